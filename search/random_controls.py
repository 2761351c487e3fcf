"""Random architectures that use up a budget: the control that shows what a search was worth."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from methods.budget import Budget
from methods.costs import CostArrays
from methods.errors import UserError
from methods.space import Architecture, SearchSpace
from search.strategies.strategy import ENUMERABLE, seed_of

BatchCosts = Callable[[Mapping[str, npt.NDArray[Any]]], CostArrays]
Ratios = npt.NDArray[np.float64]

_ROUND, _ROUNDS = 512, 16
_CLIMBS_PER_CONTROL, _STEPS, _NEIGHBOURS = 20, 100, 16


def random_in_window(
    space: SearchSpace, batch_costs: BatchCosts, budget: Budget, n: int = 5, seed: int = 0, low: float = 0.9
) -> list[Architecture]:
    """`n` distinct random architectures that meet the budget and use at least `low` of it; all there are, where there are fewer.

    How much one uses is its largest ratio of cost to limit, over the limits. `batch_costs`: `space.batch_costs` with backbone, head,
    length and batch bound. Small spaces are listed. Large ones are sampled as the space samples; where samples hardly ever fall into
    the window, they are moved there by mutation, and an empty answer then means that none was found.
    """
    rng = random.Random(seed_of("controls", seed))
    used = _Used(space, batch_costs, budget, low)
    if _listable(space):
        inside = used.inside(list(space.enumerate()))
        return rng.sample(inside, min(n, len(inside)))
    found: dict[Architecture, None] = {}
    for _ in range(_ROUNDS):
        found.update(dict.fromkeys(used.inside([space.sample(rng) for _ in range(_ROUND)])))
        if len(found) >= n:
            return list(found)[:n]
    for _ in range(_CLIMBS_PER_CONTROL * n):
        if len(found) >= n:
            break
        moved = _climb(space, used, rng)
        if moved is not None:
            found[moved] = None
    return list(found)[:n]


class _Used:
    """How much of the budget architectures use."""

    def __init__(self, space: SearchSpace, batch_costs: BatchCosts, budget: Budget, low: float) -> None:
        self._space = space
        self._batch_costs = batch_costs
        self._budget = budget
        self.low = low
        if not budget.limits():
            raise UserError("random controls need a limit; this budget has none")

    def ratios(self, architectures: Sequence[Architecture]) -> Ratios:
        """(n,): the largest ratio of cost to limit of each."""
        places = [self._space.place(self._space.encode(a)) for a in architectures]
        costs = self._batch_costs({c.name: np.array([p[c.name] for p in places]) for c in self._space.choices}).measured_against()
        limits = self._budget.limits()
        unknown = [name for name in limits if name not in costs]
        if unknown:
            raise UserError(f"budget {self._budget.label()}: no cost is known for {', '.join(unknown)}")
        ratios: Ratios = np.max([np.asarray(costs[name]) / limit for name, limit in limits.items()], axis=0)
        return ratios

    def inside(self, architectures: Sequence[Architecture]) -> list[Architecture]:
        """Those in the window, in the order given."""
        if not architectures:
            return []
        ratios = self.ratios(architectures)
        return [architectures[i] for i in np.flatnonzero((ratios >= self.low) & (ratios <= 1)).tolist()]


def _listable(space: SearchSpace) -> bool:
    assignments = 1
    for choice in space.choices:
        assignments *= len(choice.values)
    return assignments <= ENUMERABLE


def _climb(space: SearchSpace, used: _Used, rng: random.Random) -> Architecture | None:
    """From a random sample, mutation by mutation, towards a random place in the window; None where it does not arrive."""
    aim = rng.uniform(used.low, 1)
    here = space.sample(rng)
    distance = abs(float(used.ratios([here])[0]) - aim)
    for _ in range(_STEPS):
        neighbours = [space.mutate(here, rng) for _ in range(_NEIGHBOURS)]
        if inside := used.inside([here, *neighbours]):
            return rng.choice(inside)
        distances = np.abs(used.ratios(neighbours) - aim)
        nearest = int(distances.argmin())
        if distances[nearest] <= distance:
            here, distance = neighbours[nearest], float(distances[nearest])
    return None
