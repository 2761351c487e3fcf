"""The cap on parameter-free edges (DARTS+): the search ends before the derived cell has more of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass
class ParameterFreeCap:
    """`count` of parameter-free edges in the derived cell; `snapshot` and `go_back` of the architecture parameters.

    Fires where a cell that met the cap no longer does, and goes back to the last one that did.
    """

    cap: int
    count: Callable[[], int]
    snapshot: Callable[[], dict[str, Tensor]]
    go_back: Callable[[dict[str, Tensor]], None]
    met: dict[str, Tensor] = field(default_factory=dict)
    fired: int = 0

    def after(self, step: int) -> bool:  # noqa: ARG002 (one signature)
        """Called after every step in which the architecture parameters are trained; True ends the search."""
        if self.count() <= self.cap:
            self.met = self.snapshot()
            return False
        if not self.met:
            return False
        self.fired = 1
        self.go_back(self.met)
        return True

    def state(self) -> dict[str, Any]:
        return {"met": self.met, "fired": self.fired}

    def restore(self, state: dict[str, Any]) -> None:
        self.met, self.fired = state["met"], state["fired"]
