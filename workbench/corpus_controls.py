"""Control networks of methods that are trained on a corpus: random ones, and what a person would build."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from methods.budget import Budget
from methods.costs import CostArrays
from methods.space import Architecture, SearchSpace
from search.limits import CostFunction
from search.random_controls import random_in_window

RANDOM, HAND_MADE = "random", "hand-made"


def hand_made_within(space: SearchSpace, budget: Budget, cost_of: CostFunction, winner: Architecture) -> Architecture | None:
    """Of the hand-made networks that meet the budget the one that uses most FLOPs, then parameters; None where none meets it."""
    fitting = [architecture for architecture in space.hand_made(winner) if budget.met_by(cost_of(architecture))]
    return max(fitting, key=lambda a: (cost_of(a).flops, cost_of(a).parameters, a.id), default=None)


def random_within(space: SearchSpace, budget: Budget, cost_of: CostFunction, count: int, seed: int) -> list[Architecture]:
    """Random networks that use up a budget, in the order of their ids."""

    def batch_costs(places: Mapping[str, npt.NDArray[Any]]) -> CostArrays:
        counted = space.batch_costs(places, cost_of.backbone, cost_of.head, cost_of.length, cost_of.batch)
        return _timed(counted, space, cost_of, places) if budget.max_latency else counted

    found = random_in_window(space, batch_costs, budget, count, seed) if count else []
    return sorted(found, key=lambda a: a.id)


@dataclass(frozen=True)
class _Timed(CostArrays):
    """Costs with seconds (n,) by device."""

    seconds: Mapping[str, Any] = field(default_factory=dict)

    def measured_against(self) -> dict[str, npt.NDArray[Any]]:
        return {**super().measured_against(), **{f"max_latency.{device}": values for device, values in self.seconds.items()}}


def _timed(counted: CostArrays, space: SearchSpace, cost_of: CostFunction, places: Mapping[str, npt.NDArray[Any]]) -> _Timed:
    """Latency is looked up network by network."""
    rows = zip(*([choice.values[i] for i in places[choice.name]] for choice in space.choices), strict=True)
    names = [choice.name for choice in space.choices]
    latency = [cost_of(space.decode(dict(zip(names, row, strict=True)))).latency for row in rows]
    seconds = {device: np.array([each[device] for each in latency]) for device in cost_of.devices}
    c = counted
    return _Timed(c.embedding_parameters, c.other_parameters, c.flops, c.length, c.batch, seconds)
