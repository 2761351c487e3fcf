"""What is measured on the way of a search, without a trace in it: gradient shares of the loss's terms, cells' agreement, entropies."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from methods.adabert.cells import PARAMETER_FREE, Mixing
from methods.adabert.derivation import derive
from methods.adabert.relaxation import Relaxation
from methods.adabert.remedies.alignment import each_cell, mean_cosine
from methods.adabert.remedies.penalties import entropy
from methods.adabert.search_model import SearchModel
from methods.adabert.search_step import SearchStep
from methods.space import Architecture
from methods.training.loop import Batch


@contextmanager
def still(model: SearchModel) -> Iterator[None]:
    """Eval mode: no dropout is drawn and no batch statistics are taken."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def gradient_shares(step: SearchStep, batch: Batch) -> dict[str, float]:
    """D6 and D12 on one batch under one draw: `<term>.edges` and `<term>.depth`, the share of each term in the gradient norms of
    these parameters, and `cosine` between the gradients on the shared edges of the `cells` that the draw has."""
    supernet = step.model.supernet
    parameters = {"edges": supernet.edge_logits, "depth": supernet.depth_logits}
    with still(step.model), torch.enable_grad():
        weights = step.model.sample(step.temperature, step.generator("measure"))
        weights = replace(weights, edges=each_cell(weights.edges, len(supernet.cells)))
        mixing = Mixing(chosen=step.options.execution == "chosen")
        terms = step.objective(batch, step.model(batch, weights, mixing), weights)
        terms = replace(terms, efficiency=step.efficiency.loss(step.model.probabilities()))
        cells = float(weights.depth.detach().nonzero().max()) + 1
        found = {"cells": cells, "cosine": float(mean_cosine(terms.labels + terms.distillation, weights.edges))}
        norms = {name: _norms(term, parameters) for name, term in vars(terms).items() if name != "penalties"}
    for of in parameters:
        total = sum(norm[of] for norm in norms.values())
        found |= {f"{name}.{of}": norm[of] / total if total else 0.0 for name, norm in norms.items()}
    return found


def _norms(term: Tensor, parameters: dict[str, torch.nn.Parameter]) -> dict[str, float]:
    if not term.requires_grad:
        return dict.fromkeys(parameters, 0.0)
    found = torch.autograd.grad(term, list(parameters.values()), retain_graph=True, allow_unused=True)
    return {name: 0.0 if g is None else float(g.norm()) for name, g in zip(parameters, found, strict=True)}


def soft_loss(step: SearchStep, batch: Batch) -> Tensor:
    """Labels and distillation where all operations and depths count by their probability: what DARTS-ES bends."""
    probabilities = step.model.probabilities()
    terms = step.objective(batch, step.model(batch, probabilities), probabilities)
    return terms.labels + terms.distillation


def normalised_entropies(probabilities: Relaxation) -> tuple[list[float], float]:
    """D1: of each edge and of the depth, over the largest possible one; 0 where there is nothing to choose."""
    edges, depth = probabilities.edges, probabilities.depth
    of_edges = (entropy(edges) / math.log(edges.shape[1])).tolist()
    return of_edges, float(entropy(depth)) / math.log(len(depth)) if len(depth) > 1 else 0.0


def derived(model: SearchModel) -> Architecture:
    """What the base rule would derive now."""
    logits = model.decided()
    return derive(model.supernet.space, logits.edges, logits.depth)


def parameter_free_edges(architecture: Architecture) -> int:
    """Kept edges of the cell that hold no parameter."""
    return sum(name in PARAMETER_FREE for node in architecture.choices["nodes"] for _, name in node)
