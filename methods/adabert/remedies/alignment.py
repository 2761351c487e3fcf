"""Whether the cells agree on the edges that they share (Lambda-DARTS; diagnostic D12)."""

from __future__ import annotations

import torch
from torch import Tensor


def each_cell(edges: Tensor, cells: int) -> Tensor:
    """(cells, E, O + 1): the shared mixing weights (E, O + 1) once for each cell, with a gradient of its own."""
    copies = edges.expand(cells, *edges.shape).clone()
    return copies if copies.requires_grad else copies.requires_grad_()


def mean_cosine(loss: Tensor, edges: Tensor, create_graph: bool = False) -> Tensor:
    """Mean over pairs of cells of the cosine between their gradients of the loss; cells without any, being deeper than the depth that was
    drawn, do not count, and 1 where there is no pair."""
    (found,) = torch.autograd.grad(loss, edges, create_graph=create_graph, retain_graph=True)
    flat = found.flatten(1)
    alive = flat[flat.detach().norm(dim=1) > 0]
    if len(alive) < 2:
        return loss.new_ones(())
    unit = alive / alive.norm(dim=1, keepdim=True)
    first, second = torch.triu_indices(len(alive), len(alive), 1)
    cosines: Tensor = (unit @ unit.T)[first, second]
    return cosines.mean()
