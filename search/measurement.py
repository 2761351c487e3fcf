"""`Measurement`: one architecture evaluated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from methods.costs import Costs
from methods.space import Architecture

Kind = Literal["predicted", "shared", "assembled", "finished", "control"]
Key = tuple[str, str, str, str, str]
INT8 = "int8"
"""The control that is a winner with weights of 8 bit."""
BYTES = ("file_bytes", "float32_file_bytes")
"""Among its metrics: bytes of its file, and of the same network's in float32."""


@dataclass(frozen=True)
class Evaluated:
    """What was looked at: an architecture on a split of a task, with certain weights; `seed` is that of their training."""

    architecture: Architecture
    task: str
    split: str
    split_digest: str
    weights_digest: str
    kind: Kind
    seed: int

    @property
    def key(self) -> Key:
        """What makes it one of its own: a retrained supernet or another split is never answered with old scores."""
        return self.architecture.id, self.task, self.split_digest, self.weights_digest, self.kind


@dataclass(frozen=True)
class Measurement(Evaluated):
    """One architecture evaluated on one split with certain weights.

    `costs` are those of the deployed form at the experiment's length and batch. `control` names the control row where `kind` is
    `control` (teacher, random, truncated-kd, ...). `seconds` is what the evaluation took. `metric` names the main metric: the one
    that ranks, larger being better.
    """

    metric: str
    metrics: Mapping[str, float]
    costs: Costs
    control: str = ""
    seconds: float = 0.0
    created: str = field(default="", compare=False)

    @property
    def quality(self) -> float:
        """The value of the main metric."""
        return self.metrics[self.metric]

    def _repr_html_(self) -> str:
        from methods.showing import card

        which = f"{self.architecture.method} {self.architecture.id[:8]}"
        kind = f"{self.kind} ({self.control})" if self.control else self.kind
        facts = {"task": self.task, "split": self.split, "kind": kind, "seed": self.seed, **self.metrics, **self.costs.measured_against()}
        return card(f"{which}: {self.metric} {self.quality:.4f}", facts)
