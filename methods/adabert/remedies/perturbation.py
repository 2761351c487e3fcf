"""Perturbed mixing weights (SDARTS): the weights learn to bear that edges are not what they are."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor

STEPS = 7
"""Ascents of the adversarial form, each of 2.5 sizes / steps."""


def random_perturbation(edges: Tensor, size: float, generator: Generator) -> Tensor:
    """Uniform in [-size, size], in the shape of the mixing weights (SDARTS-RS)."""
    return ((2 * torch.rand(edges.shape, generator=generator) - 1) * size).to(edges.device)


def adversarial_perturbation(loss: Callable[[Tensor], Tensor], edges: Tensor, size: float) -> Tensor:
    """Within [-size, size], what makes `loss(edges + perturbation)` large, by projected sign ascent (SDARTS-ADV)."""
    found = torch.zeros_like(edges)
    for _ in range(STEPS):
        found.requires_grad_()
        (slope,) = torch.autograd.grad(loss(edges.detach() + found), found)
        found = (found.detach() + 2.5 * size / STEPS * slope.sign()).clamp(-size, size)
    return found
