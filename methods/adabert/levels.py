"""How weights w and architecture parameters alpha share their data: on one batch, or alpha on held-out rows (DARTS).

Every function leaves gradients in `.grad`, all taken at the same point; the optimisers step afterwards. A loss is a function of a batch and
of whether alpha is free; each of `losses` has its own draw of operations, and the mean over them counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from methods.training.loop import Backward, Batch

Loss = Callable[[Batch, bool], Tensor]
Parameters = Sequence[nn.Parameter]
RADIUS = 1e-2
"""Of the finite difference, over the norm of its direction (DARTS, section 2.3)."""


def single(losses: Sequence[Loss], batch: Batch, backward: Backward, free: bool = True) -> None:
    """Both on the same batch (AdaBERT); alpha rests where it is not free."""
    for loss in losses:
        backward(loss(batch, free) / len(losses))


def bilevel(losses: Sequence[Loss], batch: Batch, held_out: Batch, backward: Backward, alpha: Parameters) -> None:
    """w on the batch, alpha on held-out rows (DARTS, first order)."""
    found = gradients(losses, held_out, alpha)
    single(losses, batch, backward, free=False)
    _leave(alpha, found)


def unrolled(
    losses: Sequence[Loss], batch: Batch, held_out: Batch, backward: Backward, alpha: Parameters, weights: Parameters, rate: float
) -> None:
    """As `bilevel`, but alpha's gradient looks one plain gradient step of w ahead (DARTS, second order, equations 7 and 8)."""
    _leave(alpha, unrolled_gradients(losses, batch, held_out, alpha, weights, rate))
    found = [parameter.grad for parameter in alpha]
    single(losses, batch, backward, free=False)
    for parameter, gradient in zip(alpha, found, strict=True):
        parameter.grad = gradient


def unrolled_gradients(
    losses: Sequence[Loss], batch: Batch, held_out: Batch, alpha: Parameters, weights: Parameters, rate: float
) -> list[Tensor]:
    """d/d alpha of the held-out loss at w - rate dL/dw, the second derivative by a central difference."""
    weights = [parameter for parameter in weights if parameter.requires_grad]
    descent = gradients(losses, batch, weights, free=False)
    with moved(weights, descent, -rate):
        found = gradients(losses, held_out, [*alpha, *weights])
    direct, direction = found[: len(alpha)], found[len(alpha) :]
    radius = RADIUS / max(float(torch.stack([part.norm() for part in direction]).norm()), 1e-12)
    with moved(weights, direction, radius):
        above = gradients(losses, batch, alpha)
    with moved(weights, direction, -radius):
        below = gradients(losses, batch, alpha)
    return [d - rate * (a - b) / (2 * radius) for d, a, b in zip(direct, above, below, strict=True)]


def gradients(losses: Sequence[Loss], batch: Batch, parameters: Parameters, free: bool = True) -> list[Tensor]:
    """The mean gradient over the losses, one graph alive at a time; zeros where a parameter plays no part."""
    total = [torch.zeros_like(parameter) for parameter in parameters]
    for loss in losses:
        found = torch.autograd.grad(loss(batch, free), list(parameters), allow_unused=True)
        for mean, part in zip(total, found, strict=True):
            if part is not None:
                mean.add_(part, alpha=1 / len(losses))
    return total


@contextmanager
def moved(parameters: Parameters, direction: Sequence[Tensor], distance: float) -> Iterator[None]:
    """The parameters shifted by distance x direction; afterwards they are bit-equal to what they were."""
    kept = [parameter.detach().clone() for parameter in parameters]
    with torch.no_grad():
        for parameter, part in zip(parameters, direction, strict=True):
            parameter.add_(part, alpha=distance)
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, value in zip(parameters, kept, strict=True):
                parameter.copy_(value)


def _leave(parameters: Parameters, found: Sequence[Tensor]) -> None:
    for parameter, gradient in zip(parameters, found, strict=True):
        parameter.grad = gradient
