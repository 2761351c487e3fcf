"""Random controls: distinct, inside the window of the budget, and all there are where there are few."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from methods.budget import Budget
from methods.costs import CostArrays, costs
from methods.errors import UserError
from search.random_controls import random_in_window
from tests.search.toy import BACKBONE, HEAD, LENGTH, LayerSpace, batch_costs_of, costs_of, share

SMALL, LARGE = LayerSpace(1), LayerSpace(6)


def uses(space: LayerSpace, budget: Budget, architecture: Any) -> float:
    used = costs_of(space)(architecture).measured_against()
    return max(used[name] / limit for name, limit in budget.limits().items())


def test_the_toy_space_counts_its_costs_right() -> None:
    architectures = [*SMALL.enumerate()]
    places = [SMALL.place(SMALL.encode(a)) for a in architectures]
    arrays = batch_costs_of(SMALL)({c.name: np.array([p[c.name] for p in places]) for c in SMALL.choices})
    assert [arrays[i] for i in range(len(arrays))] == [costs(SMALL.spec(a, BACKBONE, HEAD), LENGTH) for a in architectures]


def test_all_of_a_small_window_and_no_more() -> None:
    budget = share(SMALL, 0.6)
    inside = {a for a in SMALL.enumerate() if 0.9 <= uses(SMALL, budget, a) <= 1}
    assert 1 < len(inside) < SMALL.size()
    found = random_in_window(SMALL, batch_costs_of(SMALL), budget, n=100)
    assert set(found) == inside and len(found) == len(inside)
    assert len(random_in_window(SMALL, batch_costs_of(SMALL), budget, n=1)) == 1
    assert random_in_window(SMALL, batch_costs_of(SMALL), Budget(max_flops=1e12)) == []


@pytest.mark.parametrize(
    "budget", [share(LARGE, 0.5), Budget(max_params=25_000, max_flops=900_000), Budget(max_params_non_embedding=30_000)]
)
@pytest.mark.parametrize("seed", [0, 1])
def test_controls_of_a_large_space_use_the_budget_up(budget: Budget, seed: int) -> None:
    found = random_in_window(LARGE, batch_costs_of(LARGE), budget, n=7, seed=seed)
    assert len(found) == 7 == len(set(found))
    assert all(LARGE.contains(a) and budget.met_by(costs_of(LARGE)(a)) and uses(LARGE, budget, a) >= 0.9 for a in found)


def test_the_seed_decides() -> None:
    draws = [random_in_window(LARGE, batch_costs_of(LARGE), share(LARGE, 0.5), seed=seed) for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]


def test_a_window_that_samples_hardly_hit_is_reached_by_mutation() -> None:
    budget = share(LARGE, 0.95)
    sampled = 0

    def counted(assignments: Mapping[str, Any]) -> CostArrays:
        nonlocal sampled
        arrays = batch_costs_of(LARGE)(assignments)
        if len(arrays) > 100:
            ratios = arrays.flops / budget.limits()["max_flops"]
            sampled += int(((ratios >= 0.97) & (ratios <= 1)).sum())
        return arrays

    found = random_in_window(LARGE, counted, budget, n=3, low=0.97)
    assert sampled < 3 == len(found)
    assert all(0.97 <= uses(LARGE, budget, a) <= 1 for a in found)


def test_budgets_that_say_nothing_of_costs_are_refused() -> None:
    with pytest.raises(UserError, match="has none"):
        random_in_window(SMALL, batch_costs_of(SMALL), Budget())
    with pytest.raises(UserError, match=r"no cost is known for max_latency\.phone"):
        random_in_window(SMALL, batch_costs_of(SMALL), Budget(max_latency={"phone": 0.1}))
