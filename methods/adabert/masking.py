"""What an operation is worth by what is lost without it, and derivation by that (DARTS-PT, arXiv 2108.04392, algorithm 1)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from methods.adabert.relaxation import Relaxation, relaxed
from methods.adabert.space import AdaBertSpace
from methods.network import task_loss
from methods.space import Architecture
from methods.supernet import Batch
from methods.training.loop import seed_of

if TYPE_CHECKING:
    from methods.adabert.options import Optimiser
    from methods.adabert.supernet import AdaBertSupernet

LossOf = Callable[[Relaxation], float]
Tune = Callable[[Relaxation], None]


def relaxed_loss(supernet: AdaBertSupernet, batches: Sequence[Batch]) -> LossOf:
    """The task's mean loss over labelled batches of the supernet in eval mode, as a function of the weights that mix it."""

    @torch.no_grad()
    def loss(weights: Relaxation) -> float:
        training = supernet.training
        supernet.eval()
        total = rows = 0.0
        for batch in batches:
            size = len(batch["labels"])
            total += size * float(task_loss(supernet.head_kind, relaxed(supernet, batch, weights).logits, batch["labels"]))
            rows += size
        supernet.train(training)
        return total / rows

    return loss


def without(edges: Tensor, row: int, column: int) -> Tensor:
    """The weights (E, O + 1) with one operation of an edge taken out, the edge's others scaled up to the same sum."""
    masked = edges.clone()
    masked[row, column] = 0
    masked[row] *= edges[row].sum() / masked[row].sum().clamp_min(1e-12)
    return masked


@torch.no_grad()
def strengths(weights: Relaxation, loss: LossOf) -> Tensor:
    """(E, O): by how much the loss rises when an operation of an edge is taken out."""
    whole = loss(weights)
    rows, operations = weights.edges.shape[0], weights.edges.shape[1] - 1
    found = [[loss(Relaxation(without(weights.edges, e, o), weights.depth)) - whole for o in range(operations)] for e in range(rows)]
    return torch.tensor(found, dtype=torch.float64)


@torch.no_grad()
def project(space: AdaBertSpace, weights: Relaxation, loss: LossOf, seed: int, tune: Tune = lambda _: None) -> Architecture:
    """Edge by edge, in random order, the operation stays whose masking costs most; then each inner node, in random order, loses the
    edge that costs least until it has as many as it keeps; then the depth stays that does best on its own.

    `weights` are those of the trained supernet, or uniform where its architecture parameters are not to be used. `tune` is called
    after each of these choices.
    """
    rng = np.random.default_rng(seed)
    edges, depth = weights.edges.clone(), weights.depth
    operations = edges.shape[1] - 1
    chosen: dict[int, int] = {}
    for row in rng.permutation(len(space.edges)).tolist():
        costs = [loss(Relaxation(without(edges, row, column), depth)) for column in range(operations)]
        chosen[row] = int(np.argmax(costs))
        edges[row] = 0
        edges[row, chosen[row]] = 1
        tune(Relaxation(edges.clone(), depth))
    for node in rng.permutation(space.options.nodes).tolist():
        alive = [row for row, (n, _) in enumerate(space.edges) if n == node]
        while len(alive) > space.kept(node):
            costs = [loss(Relaxation(_cut(edges, row), depth)) for row in alive]
            gone = alive.pop(int(np.argmin(costs)))
            edges = _cut(edges, gone)
            del chosen[gone]
        tune(Relaxation(edges.clone(), depth))
    each = [loss(Relaxation(edges, one)) for one in torch.eye(len(depth), dtype=depth.dtype, device=depth.device)]
    nodes: list[list[tuple[int, str]]] = [[] for _ in range(space.options.nodes)]
    for row, column in chosen.items():
        node, source = space.edges[row]
        nodes[node].append((source, space.options.operations[column]))
    return space.architecture(1 + int(np.argmin(each)), nodes)


def _cut(edges: Tensor, row: int) -> Tensor:
    """With zero in the place of an edge."""
    cut = edges.clone()
    cut[row] = 0
    cut[row, -1] = 1
    return cut


def tuner(supernet: AdaBertSupernet, batches: Iterator[Batch], steps: int, optimiser: Optimiser, seed: int) -> Tune:
    """Trains the weights of `supernet`, which should be a copy, for `steps` batches (0: not at all) at a tenth of the search's rate
    (DARTS-PT) with the mixing weights held; architecture parameters stay."""
    chosen = {id(p) for p in supernet.architecture_parameters()}
    trained = [p for p in supernet.parameters() if id(p) not in chosen]
    sgd = torch.optim.SGD(trained, lr=optimiser.learning_rate / 10, momentum=optimiser.beta1, weight_decay=optimiser.weight_decay)
    calls = count()

    def tune(weights: Relaxation) -> None:
        held = Relaxation(weights.edges.detach(), weights.depth.detach())
        torch.manual_seed(seed_of(seed, "tuning", next(calls)))
        supernet.train()
        for _ in range(steps):
            batch = next(batches)
            with torch.enable_grad():
                task_loss(supernet.head_kind, relaxed(supernet, batch, held).logits, batch["labels"]).backward()
            torch.nn.utils.clip_grad_norm_(trained, optimiser.clip)
            sgd.step()
            sgd.zero_grad(set_to_none=True)
        supernet.eval()

    return tune
