"""The relaxed form that the differentiable search trains (paper): weights over operations and depths, not a choice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from methods.adabert.cells import PLAIN, Mixing, SupernetCell
from methods.layers.cell import run_cells
from methods.space import Architecture
from methods.supernet import Batch

if TYPE_CHECKING:
    from methods.adabert.space import AdaBertSpace
    from methods.adabert.supernet import AdaBertSupernet


@dataclass(frozen=True)
class Relaxation:
    """Weights, one-hot or soft: `edges` (E, O + 1) per edge over `space.columns` (zero last), `depth` (Kmax,) over K = 1..Kmax.

    As probabilities, each row sums to 1. `relaxed` also takes weights of each cell's own: `edges` (Kmax, E, O + 1).
    """

    edges: Tensor
    depth: Tensor


@dataclass(frozen=True)
class RelaxedOutput:
    """`logits` (B, C): those of every depth, `depth_logits` (Kmax, B, C), mixed by the depth's weights; `states`: Kmax + 1 of (B, L, d)
    with their mask (B, L)."""

    logits: Tensor
    depth_logits: Tensor
    states: tuple[Tensor, ...]
    mask: Tensor


def one_hot(space: AdaBertSpace, architecture: Architecture, dtype: torch.dtype = torch.float32) -> Relaxation:
    """The weights that leave no doubt about the architecture: every edge that it does not keep is zero."""
    genes = architecture.choices
    kept = {(node, source): name for node, edges in enumerate(genes["nodes"]) for source, name in edges}
    edges = torch.zeros(len(space.edges), len(space.columns), dtype=dtype)
    for row, edge in enumerate(space.edges):
        edges[row, space.columns.index(kept.get(edge, space.columns[-1]))] = 1.0
    depth = torch.zeros(space.options.cells, dtype=dtype)
    depth[genes["K"] - 1] = 1.0
    return Relaxation(edges, depth)


def relaxed(supernet: AdaBertSupernet, batch: Batch, weights: Relaxation, mixing: Mixing = PLAIN) -> RelaxedOutput:
    """All cells with the weighted operations of all edges; depth k's logits read cells 1..k only."""
    edges = weights.edges if weights.edges.ndim == 3 else [weights.edges] * len(supernet.cells)
    cells = [cast(SupernetCell, cell).mixed(own, mixing) for cell, own in zip(supernet.cells, edges, strict=True)]
    states, mask = run_cells(supernet.texts(batch), cells)
    each = torch.stack([supernet.read_out(states[: k + 1], mask) for k in range(1, len(cells) + 1)])
    return RelaxedOutput((each * weights.depth[:, None, None]).sum(0), each, states, mask)
