"""The search loop: nothing over a limit is evaluated, nothing is evaluated twice, and an interrupted search ends as it would have."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from methods.budget import Budget
from methods.errors import UserError
from methods.space import Architecture
from search import loop
from search.archive import Archive
from search.front import widest
from search.limits import CostFunction, refuse_impossible
from search.loop import SearchResult, one_by_one, search
from search.measurement import Measurement
from search.predictions import Predictions
from tests.search.toy import BACKBONE, HEAD, LENGTH, LayerSpace, costs_of, measured, quality, share

SMALL, LARGE = LayerSpace(1), LayerSpace(6)
Evaluated = tuple[Measurement, Predictions | None]


class Desk:
    """An evaluator that remembers what it was asked, and breaks down after `breaks` evaluations."""

    def __init__(self, space: LayerSpace, breaks: int = 10**9) -> None:
        self.space, self.breaks = space, breaks
        self.asked: list[Architecture] = []

    def __call__(self, architectures: Sequence[Architecture]) -> Iterator[Evaluated]:
        assert architectures
        for architecture in architectures:
            if len(self.asked) == self.breaks:
                raise ConnectionError("pulled the plug")
            self.asked.append(architecture)
            logits = np.full((3, 2), quality(architecture), dtype=np.float32)
            yield measured(architecture, self.space), Predictions(np.arange(3), logits)


def run(
    desk: Desk,
    archive: Archive,
    budgets: list[Budget],
    strategy: str = "random",
    evaluations: int | None = 20,
    objectives: tuple[str, ...] = (),
) -> SearchResult:
    return search(
        desk.space,
        desk,
        budgets,
        strategy,
        evaluations,
        seed=0,
        cost_of=costs_of(desk.space),
        known=lambda a: archive.find(a.id, "toy", "s", "w", "shared"),
        commit=archive.add,
        objectives=objectives,
    )


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    with Archive(tmp_path / "archive.db") as opened:
        yield opened


@pytest.mark.parametrize("strategy", ["exhaustive", "random", "tpe", "nsga2", "evolution", "predictor"])
def test_what_exceeds_the_budget_is_never_evaluated(strategy: str, archive: Archive) -> None:
    budget, cost_of, desk = share(SMALL, 0.4), costs_of(SMALL), Desk(SMALL)
    result = run(desk, archive, [budget], strategy, None)
    fitting = {a for a in SMALL.enumerate() if budget.met_by(cost_of(a))}
    assert 0 < len(fitting) < SMALL.size()
    assert set(desk.asked) == fitting
    assert len(desk.asked) == result.evaluated == len(fitting)
    assert result.infeasible == SMALL.size() - len(fitting)
    assert result.passes[0].stopped == "every architecture was proposed"


def test_everything_measured_is_committed_with_its_predictions(archive: Archive) -> None:
    result = run(Desk(LARGE), archive, [share(LARGE, 0.6)])
    assert archive.measurements() == list(result.measurements)
    assert len(result.measurements) == 20
    kept = archive.predictions(result.measurements[7].key)
    assert kept is not None and kept.logits[0, 0] == np.float32(result.measurements[7].quality)


@pytest.mark.parametrize("strategy", ["random", "tpe", "nsga2", "evolution", "predictor"])
@pytest.mark.parametrize("breaks", [1, 13, 21])
def test_an_interrupted_search_goes_the_same_way(strategy: str, breaks: int, archive: Archive, tmp_path: Path) -> None:
    budgets = [share(LARGE, 0.4), share(LARGE, 0.6)]
    with Archive(tmp_path / "whole.db") as whole:
        straight = run(Desk(LARGE), whole, budgets, strategy)
        expected = whole.measurements()
    with pytest.raises(ConnectionError):
        run(Desk(LARGE, breaks), archive, budgets, strategy)
    assert archive.measurements() == expected[:breaks]
    desk = Desk(LARGE)
    resumed = run(desk, archive, budgets, strategy)
    assert archive.measurements() == expected
    assert [p.measurements for p in resumed.passes] == [p.measurements for p in straight.passes]
    assert len(desk.asked) == len(expected) - breaks
    assert resumed.answered + resumed.evaluated == straight.answered + straight.evaluated == 40


def test_a_second_run_is_answered_from_the_archive(archive: Archive) -> None:
    first = run(Desk(LARGE), archive, [share(LARGE, 0.5)], "tpe")
    desk = Desk(LARGE)
    second = run(desk, archive, [share(LARGE, 0.5)], "tpe")
    assert desk.asked == []
    assert (second.evaluated, second.answered) == (0, 20)
    assert second.measurements == first.measurements


def test_budgets_share_what_was_measured_without_any_archive() -> None:
    desk = Desk(SMALL)
    budgets = [share(SMALL, 0.9), share(SMALL, 0.4)]
    result = search(SMALL, desk, budgets, "random", None, 0, costs_of(SMALL), lambda _: None, lambda *_: None)
    assert len(desk.asked) == len(set(desk.asked))
    assert [p.label for p in result.passes] == [budget.label() for budget in budgets]
    assert result.passes[1].evaluated == 0 < result.passes[1].answered


def test_an_exhaustive_search_serves_all_budgets_in_one_pass(archive: Archive) -> None:
    tight, wide, cost_of, desk = share(SMALL, 0.2), share(SMALL, 0.6), costs_of(SMALL), Desk(SMALL)
    result = run(desk, archive, [tight, wide], "exhaustive", None)
    assert len(result.passes) == 1 and result.passes[0].label == ""
    assert desk.asked == [a for a in SMALL.enumerate() if wide.met_by(cost_of(a))]


@pytest.mark.parametrize("strategy", ["random", "nsga2", "evolution", "predictor"])
def test_a_front_is_searched_once_for_all_budgets_within_the_widest(strategy: str, archive: Archive) -> None:
    tight, wide, cost_of, desk = share(LARGE, 0.2), share(LARGE, 0.6), costs_of(LARGE), Desk(LARGE)
    result = run(desk, archive, [tight, wide], strategy, 30, ("max_flops",))
    assert [p.budgets for p in result.passes] == [(tight, wide)] and result.passes[0].label == ""
    assert len(desk.asked) == 30 == len(result.measurements)
    assert all(wide.met_by(cost_of(a)) for a in desk.asked)
    assert {tight.met_by(cost_of(a)) for a in desk.asked} == {True, False}


def test_the_widest_limits_are_those_that_all_budgets_have() -> None:
    phone, tablet = Budget(max_flops=3, max_params=5, max_latency={"a": 1}), Budget(max_flops=4, max_latency={"a": 2, "b": 1})
    assert widest([phone, tablet]) == Budget(max_flops=4, max_latency={"a": 2})
    assert widest([phone]) == phone
    assert widest([Budget(max_flops=3), Budget(max_params=5)]) == Budget()


def test_an_unknown_objective_is_refused_before_anything_is_asked(archive: Archive) -> None:
    desk = Desk(LARGE)
    with pytest.raises(UserError, match=r"search\.objectives: no cost is known for 'max_latency.phone'.*there are max_params, "):
        run(desk, archive, [Budget()], objectives=("max_latency.phone",))
    assert desk.asked == []


@pytest.mark.parametrize(("space", "became"), [(SMALL, "exhaustive"), (LARGE, "predictor")])
def test_auto_says_what_it_became(space: LayerSpace, became: str, archive: Archive) -> None:
    result = run(Desk(space), archive, [share(space, 0.5)], "auto", 24)
    assert [p.strategy for p in result.passes] == [became]


def test_generations_reach_the_evaluator_whole(archive: Archive) -> None:
    sizes: list[int] = []
    desk = Desk(LARGE)

    def evaluate(architectures: Sequence[Architecture]) -> Iterator[Evaluated]:
        sizes.append(len(architectures))
        return desk(architectures)

    search(LARGE, evaluate, [Budget()], "random", 20, 0, costs_of(LARGE), lambda _: None, archive.add, generation=8)
    assert sizes == [8, 8, 4]


def test_what_arrives_in_another_order_is_committed_at_once_and_told_in_the_order_of_asking(archive: Archive, tmp_path: Path) -> None:
    """The strategy goes the same way whatever is ready first; an error comes after what arrived before it is kept."""

    def backwards(architectures: Sequence[Architecture]) -> Iterator[Evaluated]:
        yield from ((measured(architecture, LARGE), None) for architecture in reversed(architectures))

    def broken(architectures: Sequence[Architecture]) -> Iterator[Evaluated]:
        yield from list(backwards(architectures))[:3]
        raise RuntimeError("a worker is gone")

    with Archive(tmp_path / "other.db") as other:
        results = [
            search(LARGE, evaluate, [share(LARGE, 0.5)], "tpe", 20, 0, costs_of(LARGE), lambda _: None, kept.add)
            for evaluate, kept in ((backwards, archive), (lambda some: reversed(list(backwards(some))), other))
        ]
        assert results[0].measurements == results[1].measurements
        arrived = [m.architecture for m in archive.measurements()]
        assert arrived != [m.architecture for m in other.measurements()] and len(arrived) == 20
    with Archive(tmp_path / "third.db") as third:
        with pytest.raises(RuntimeError, match="gone"):
            search(LARGE, broken, [Budget()], "random", 8, 0, costs_of(LARGE), lambda _: None, third.add)
        assert len(third.measurements()) == 3


def test_one_by_one_makes_an_evaluator_of_a_function() -> None:
    evaluate = one_by_one(lambda a: (measured(a, SMALL), None))
    result = search(SMALL, evaluate, [], "exhaustive", None, 0, costs_of(SMALL), lambda _: None, lambda *_: None)
    assert [m.architecture for m in result.measurements] == list(SMALL.enumerate())


@pytest.mark.parametrize("strategy", ["exhaustive", "random"])
def test_progress_ends_at_its_total(strategy: str, archive: Archive) -> None:
    heard: list[tuple[int, int]] = []
    budgets = [share(SMALL, 0.4), share(SMALL, 0.7)]
    evaluate = Desk(SMALL)
    search(SMALL, evaluate, budgets, strategy, None, 0, costs_of(SMALL), lambda _: None, archive.add, lambda *h: heard.append(h))
    assert len({total for _, total in heard}) == 1
    assert [done for done, _ in heard] == sorted(done for done, _ in heard)
    assert heard[-1][0] == heard[-1][1]


def test_a_search_that_finds_nothing_that_fits_ends_and_says_so(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "PATIENCE", 40)
    result = run(Desk(LARGE), archive, [share(LARGE, 1e-6)])
    assert "proposals in a row exceeded the budget" in result.passes[0].stopped
    assert result.measurements == ()


@pytest.mark.parametrize("change", ["another", "none", "costs"])
def test_a_wrong_evaluator_is_found_out(change: str, archive: Archive) -> None:
    def evaluate(architectures: Sequence[Architecture]) -> Iterator[Evaluated]:
        for architecture in architectures if change != "none" else ():
            wrong = {"costs": costs_of(LARGE)(LARGE.largest())} if change == "costs" else {"architecture": LARGE.smallest()}
            yield replace(measured(architecture, LARGE), **wrong), None

    with pytest.raises(ValueError, match=r"evaluator answered|measured with costs"):
        search(LARGE, evaluate, [Budget()], "random", 4, 0, costs_of(LARGE), lambda _: None, archive.add)
    assert archive.measurements() == []


@pytest.mark.parametrize("limit", ["max_params", "max_params_non_embedding", "max_flops"])
def test_an_impossible_budget_is_refused_before_anything_is_asked(limit: str, archive: Archive) -> None:
    least = costs_of(LARGE)(LARGE.smallest()).measured_against()[limit]
    desk = Desk(LARGE)
    with pytest.raises(UserError, match=f"{limit} is {least - 1:,.0f}, and the smallest network of layers needs {least:,.0f}"):
        run(desk, archive, [Budget(max_flops=1e12), Budget(**{limit: least - 1})])
    assert desk.asked == []
    cost_of = CostFunction(LARGE, BACKBONE, HEAD, LENGTH)
    refuse_impossible(LARGE, Budget(**{limit: least}), cost_of)
    with pytest.raises(UserError, match=limit):
        refuse_impossible(LARGE, Budget(**{limit: least - 1}), cost_of)


@pytest.mark.parametrize("evaluations", [0, -3])
def test_too_few_evaluations_are_refused(evaluations: int, archive: Archive) -> None:
    with pytest.raises(UserError, match=r"search\.evaluations"):
        run(Desk(LARGE), archive, [Budget()], evaluations=evaluations)
