"""Expected costs under architecture parameters: those of the network that derivation keeps, differentiable in the probabilities.

The model is the one whose most probable point is the base derivation: with p(e, o) the probability of operation o on edge e, inner
node n keeps the edge set S with operations o_e with probability proportional to the product of p(e, o_e) over S; zero is no
operation to keep. So S weighs the product of q(e) = sum of p(e, o) without zero, an operation on a kept edge has chance p(e, o) / q(e),
nodes and depth are independent, and costs are linear in both.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from methods.adabert.relaxation import Relaxation
from methods.adabert.space import AdaBertSpace
from methods.backbone import BackboneConfig
from methods.space import Form
from methods.tasks.head import Head

_TINY = 1e-30
"""Stands for 0 where an edge is certainly zero: its operations are then alike, and logarithms finite."""


@dataclass(frozen=True)
class ExpectedCosts:
    """Float64 scalars; parameters as counts, FLOPs of `batch` texts of a length."""

    embedding_parameters: Tensor
    other_parameters: Tensor
    flops: Tensor

    @property
    def parameters(self) -> Tensor:
        return self.embedding_parameters + self.other_parameters


def kept_probabilities(space: AdaBertSpace, edges: Tensor) -> Tensor:
    """(E, O) without zero: the chance that derivation keeps edge e with operation o. Rows of a node add up to its kept edges."""
    alive = edges[:, :-1]
    mass = alive.sum(1)
    chances = []
    for node in range(space.options.nodes):
        rows = [row for row, (n, _) in enumerate(space.edges) if n == node]
        chances.append(_edge_chances((mass[rows] + _TINY).log(), space.kept(node)))
    share = (alive + _TINY) / (mass + alive.shape[1] * _TINY)[:, None]
    return torch.cat(chances)[:, None] * share


def _edge_chances(log_mass: Tensor, kept: int) -> Tensor:
    """(sources,): the chance of each edge to be in the kept set of `kept` edges."""
    sets = list(combinations(range(len(log_mass)), kept))
    weights = torch.stack([log_mass[list(members)].sum() for members in sets]).softmax(0)
    member = torch.tensor([[source in members for source in range(len(log_mass))] for members in sets], device=log_mass.device)
    return (weights[:, None] * member).sum(0)


def expected_costs(
    space: AdaBertSpace,
    backbone: BackboneConfig,
    head: Head,
    probabilities: Relaxation,
    length: int = 128,
    batch: int = 1,
    form: Form = "deployed",
) -> ExpectedCosts:
    """Expected costs of the derived network; exact where the probabilities leave no doubt (`relaxation.one_hot`)."""
    edges, depth = probabilities.edges.double(), probabilities.depth.double()
    kept = kept_probabilities(space, edges)
    cells: Any = (depth * torch.arange(1, len(depth) + 1, device=depth.device)).sum()
    stem, output = space.ends(backbone, head, cells, form)
    parts = space.parts[form].values()

    def of_edges(costs: list[int]) -> Tensor:
        return (kept * torch.tensor(costs, dtype=torch.float64, device=kept.device)).sum()

    parameters = of_edges([part.other_parameters() for part in parts]) + space.options.nodes
    flops = of_edges([part.flops(length) for part in parts])
    return ExpectedCosts(
        torch.as_tensor(float(stem.embedding_parameters()), dtype=torch.float64, device=kept.device),
        stem.other_parameters() + cells * parameters + output.other_parameters(),
        batch * (stem.flops(length) + cells * flops + output.flops(length)),
    )
