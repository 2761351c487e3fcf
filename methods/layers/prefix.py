"""Slicing shared weights."""

from __future__ import annotations

from torch import Tensor


def prefix(weights: Tensor, n: int, dim: int = 0) -> Tensor:
    """The first `n` along `dim`; where that is all of them the tensor itself, which spares the backward pass a copy."""
    return weights if n == weights.size(dim) else weights.narrow(dim, 0, n)
