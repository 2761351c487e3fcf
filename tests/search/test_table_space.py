"""The networks of a block loss table as a space: its laws, and that strategies find in it what the tables know to be best."""

from __future__ import annotations

import random
from functools import partial

import numpy as np
import pytest

from methods.budget import LIMITS, Budget
from methods.costs import costs
from methods.nasbert.estimate import NasBertEstimates
from methods.nasbert.table_space import TableSpace
from methods.space import Architecture
from methods.tasks.head import Head
from search.limits import CostFunction
from search.loop import Evaluated, SearchResult, one_by_one, search
from search.measurement import Measurement
from search.random_controls import random_in_window
from tests.methods.nasbert_cases import CLASSES, PAPER, TINY
from tests.methods.nasbert_tables import BATCH, CLOCK, KNOWN, LENGTH, LOSSES, SPACE, budget_at, estimates, everything, made_up_losses

ESTIMATES = estimates(LOSSES, SPACE)
TABLE = ESTIMATES.space


def test_assignments_and_architectures_are_one_to_one() -> None:
    listed = list(TABLE.enumerate())
    assert TABLE.size() == len(listed) == 3 * 9 * 9
    assert set(listed) == {one.architecture for one in KNOWN}
    for architecture in listed:
        assert SPACE.contains(architecture) and TABLE.contains(architecture)
        assert TABLE.at(*TABLE.rows(architecture)) == architecture
    assert not TABLE.contains(next(a for a in SPACE.enumerate() if a not in set(listed)))
    assert not TABLE.contains(Architecture.of("dynabert", listed[0].choices))


def test_changes_stay_in_the_table() -> None:
    rng = random.Random(0)
    architecture = TABLE.sample(rng)
    for _ in range(50):
        moved = TABLE.mutate(architecture, rng)
        assert moved != architecture and TABLE.contains(moved)
        architecture = moved


@pytest.mark.parametrize("head", [CLASSES, Head("span"), Head("mlm")], ids=lambda head: head.kind)
def test_costs_are_exact(head: Head) -> None:
    """For every backbone and head, not only those of the estimates."""
    listed = list(TABLE.enumerate())
    places = [TABLE.place(TABLE.encode(a)) for a in listed]
    columns = {c.name: np.array([place[c.name] for place in places]) for c in TABLE.choices}
    found = TABLE.batch_costs(columns, TINY, head, length=11, batch=3)
    expected = [costs(TABLE.spec(a, TINY, head), 11, 3) for a in listed]
    assert [found[i] for i in range(len(listed))] == expected
    for name, ends in TABLE.cost_range(TINY, head, 11, 3).items():
        values = [cost.measured_against()[name] for cost in expected]
        assert ends == (min(values), max(values))


def test_extremes() -> None:
    counted = {a: costs(SPACE.spec(a, TINY, CLASSES)) for a in TABLE.enumerate()}
    ends = [
        min(counted.values(), key=lambda c: (c.parameters, c.flops)),
        max(counted.values(), key=lambda c: (c.parameters, c.flops)),
    ]
    assert [counted[a] for a in TABLE.anchors()] == ends


def searched(estimates: NasBertEstimates, strategy: str, budget: Budget, evaluations: int | None = None) -> SearchResult:
    """A search whose objective is the predicted loss."""
    cost_of = CostFunction(estimates.space, TINY, CLASSES, LENGTH, BATCH)

    def predict(architecture: Architecture) -> Evaluated:
        loss = estimates.loss(architecture)
        assert loss is not None
        facts = ("toy", "search", "s", "w", "predicted", 0, "negative_loss", {"negative_loss": -loss})
        return Measurement(architecture, *facts, cost_of(architecture)), None  # type: ignore[arg-type]

    return search(estimates.space, one_by_one(predict), [budget], strategy, evaluations, 0, cost_of, lambda _: None, lambda *_: None)


@pytest.mark.parametrize("part", [0.3, 0.7])
def test_an_exhaustive_search_finds_what_the_tables_say(part: float) -> None:
    budget = budget_at(KNOWN, max_flops=part, max_params=0.6)
    result = searched(ESTIMATES, "exhaustive", budget)
    best = ESTIMATES.best(budget, 1000)
    assert max(m.quality for m in result.measurements) == -best[0].loss
    assert {-m.quality for m in result.measurements} == {e.loss for e in best}
    assert {e.architecture for e in best} <= {m.architecture for m in result.measurements}


@pytest.mark.parametrize("strategy", ["tpe", "nsga2", "random"])
def test_every_strategy_can_search_it(strategy: str) -> None:
    """Part of it, and all of it, where each finds the best."""
    losses = made_up_losses(SPACE, rows=4)
    small, budget = estimates(losses, SPACE), budget_at(everything(losses, SPACE, CLOCK), max_flops=0.5)
    result = searched(small, strategy, budget, 10)
    assert len(result.measurements) == len({m.architecture for m in result.measurements}) == 10
    assert all(budget.met_by(m.costs) for m in result.measurements)
    whole = searched(small, strategy, budget, small.space.size())
    assert -max(m.quality for m in whole.measurements) == small.best(budget)[0].loss


def test_random_controls_fall_into_their_window() -> None:
    budget = budget_at(KNOWN, max_flops=0.5)
    found = random_in_window(TABLE, partial(TABLE.batch_costs, backbone=TINY, head=CLASSES, length=LENGTH, batch=BATCH), budget, 4)
    cost_of = CostFunction(TABLE, TINY, CLASSES, LENGTH, BATCH)
    assert len(set(found)) == 4
    assert all(0.9 <= cost_of(a).flops / budget.limits()["max_flops"] <= 1 for a in found)


def test_a_table_of_the_paper_is_counted_without_being_listed() -> None:
    space = TableSpace(made_up_losses(PAPER, rows=100), PAPER)
    assert space.size() == 5 * 100**4
    low = space.cost_range(PAPER.backbone, CLASSES)
    for name in LIMITS[::2]:
        smallest, largest = (costs(space.spec(a, PAPER.backbone, CLASSES)).measured_against()[name] for a in space.anchors())
        assert low[name][0] <= smallest < largest <= low[name][1]
