"""`Measurement`: one architecture evaluated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from methods.costs import Costs
from methods.space import Architecture

Kind = Literal["predicted", "shared", "assembled", "finished", "control"]
Key = tuple[str, str, str, str, str]


@dataclass(frozen=True)
class Measurement:
    """One architecture evaluated on one split with certain weights.

    `costs` are those of the deployed form at the experiment's length and batch. `control` names the control row where `kind` is
    `control` (teacher, random, truncated-kd, ...). `seconds` is what the evaluation took. `metric` names the main metric: the one
    that ranks, larger being better.
    """

    architecture: Architecture
    task: str
    split: str
    split_digest: str
    weights_digest: str
    kind: Kind
    seed: int
    metric: str
    metrics: Mapping[str, float]
    costs: Costs
    control: str = ""
    seconds: float = 0.0
    created: str = field(default="", compare=False)

    @property
    def key(self) -> Key:
        """What makes a measurement one of its own: a retrained supernet or another split is never answered with old scores."""
        return self.architecture.id, self.task, self.split_digest, self.weights_digest, self.kind

    @property
    def quality(self) -> float:
        """The value of the main metric."""
        return self.metrics[self.metric]
