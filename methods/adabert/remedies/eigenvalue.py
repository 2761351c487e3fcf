"""DARTS-ES and DARTS-ADA: the curvature of the held-out loss in the architecture parameters tells when they start to overfit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from methods.adabert.options import EigenvalueStop

ITERATIONS, TOLERANCE = 100, 1e-4


def dominant_eigenvalue(loss: Tensor, parameters: Sequence[nn.Parameter]) -> float:
    """The eigenvalue of largest magnitude of the loss's Hessian in the parameters, by power iteration on Hessian-vector products."""
    slopes = torch.autograd.grad(loss, list(parameters), create_graph=True, allow_unused=True)
    flat = torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for p, g in zip(parameters, slopes, strict=True)])
    direction = torch.randn(len(flat), generator=torch.Generator().manual_seed(0)).to(flat)
    direction, value = direction / direction.norm(), 0.0
    for _ in range(ITERATIONS if flat.requires_grad else 0):
        found = torch.autograd.grad(flat @ direction, list(parameters), retain_graph=True, allow_unused=True)
        product = torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for p, g in zip(parameters, found, strict=True)])
        before, value = value, float(product @ direction)
        norm = float(product.norm())
        if norm == 0 or abs(value - before) <= TOLERANCE * abs(value):
            break
        direction = product / norm
    return value


@dataclass
class EigenvalueWatch:
    """`measure` gives the eigenvalue, `snapshot` what can be gone back to, `go_back` goes there; `decay` multiplies the weight decay.

    It fires where the mean of the last `window` values exceeds the one `lag` evaluations earlier `threshold` times.
    """

    options: EigenvalueStop
    per_epoch: int
    measure: Callable[[], float]
    snapshot: Callable[[], dict[str, Tensor]]
    go_back: Callable[[dict[str, Tensor]], None]
    decay: Callable[[float, float], None]
    values: list[float] = field(default_factory=list)
    fired: int = 0
    snapshots: list[dict[str, Tensor]] = field(default_factory=list)
    since: int = 0
    """The first value that counts: after a return the earlier ones do not."""

    def after(self, step: int) -> bool:
        """Called after every step; True ends the search, with what was `lag` evaluations earlier in place."""
        o = self.options
        if step % (o.every_epochs * self.per_epoch):
            return False
        self.values.append(self.measure())
        self.snapshots = [*self.snapshots, self.snapshot()][-(o.lag + 1) :]
        if step // self.per_epoch < o.first_epoch or not self._sharper():
            return False
        self.fired += 1
        self.go_back(self.snapshots[0])
        if o.action == "stop":
            return True
        self.decay(o.factor, o.largest_weight_decay)
        self.since, self.snapshots = len(self.values), []
        return False

    def _sharper(self) -> bool:
        o, values = self.options, self.values[self.since :]
        if len(values) <= o.lag:
            return False
        means = [sum(part) / len(part) for end in (len(values), len(values) - o.lag) if (part := values[max(0, end - o.window) : end])]
        return means[0] > o.threshold * means[1] > 0

    def state(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("values", "fired", "snapshots", "since")}

    def restore(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)
