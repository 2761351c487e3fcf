"""Strategy `ray_tune`: what goes through a real `Tuner` is what `OptunaSearch` proposes, asked and told, of which
`tests/search/test_strategies.py` shows the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("ray")

from ray.util import list_named_actors

from methods.budget import Budget
from methods.space import Architecture
from search.loop import one_by_one, search
from search.ray_.optuna_search import OptunaSearchStrategy
from search.ray_.strategy import RayTune
from search.strategies.registry import Entry, register
from search.strategies.strategy import Problem
from tests.search.test_strategies import LARGE, SMALL, advance
from tests.search.toy import LayerSpace, costs_of, measured, share

pytestmark = pytest.mark.usefixtures("cluster")


def problem(space: LayerSpace, budget: Budget | None = None, evaluations: int = 40, objectives: tuple[str, ...] = ()) -> Problem:
    return Problem(space, budget or Budget(), costs_of(space), 3, evaluations, objectives)


def test_nothing_runs_before_it_is_asked() -> None:
    """Plans and checks make a strategy for its errors alone."""
    made = RayTune(problem(SMALL))
    assert list_named_actors(all_namespaces=True) == []
    made.close()


def test_trials_of_a_tuner_are_those_of_the_searcher_asked_and_told(capfd: pytest.CaptureFixture[str]) -> None:
    """With anchors, a limit that proposals exceed, and two objectives; then an end amid a generation leaves no process behind."""
    budget = share(LARGE, 0.4)
    asked = problem(LARGE, budget, 30, ("max_flops", "max_params"))
    tuned = RayTune(asked)
    try:
        told = advance(tuned, LARGE, budget, 30)
        assert len(tuned.ask(4)) == 4
    finally:
        tuned.close()
    assert told == advance(OptunaSearchStrategy(asked), LARGE, budget, 30)
    assert any(not budget.met_by(costs_of(LARGE)(a)) for a in told)
    assert capfd.readouterr() == ("", "")
    assert not Path("~/ray_results").expanduser().exists()
    assert list_named_actors(all_namespaces=True) == []


def test_a_search_of_a_small_space_measures_all_and_repeats_are_no_trials() -> None:
    def of(name: str) -> tuple[list[Architecture], int]:
        kept: list[Architecture] = []
        evaluate = one_by_one(lambda a: (measured(a, SMALL), None))
        known, keep = lambda _: None, lambda m, _: kept.append(m.architecture)
        made = search(SMALL, evaluate, [], name, 24, 3, costs_of(SMALL), known, keep, generation=5)
        return kept, made.duplicates

    register("asked and told", Entry(OptunaSearchStrategy, 100))
    found, alone = of("ray_tune"), of("asked and told")
    assert found == alone and found[1] > 0
    assert set(found[0]) == set(SMALL.enumerate())
    assert list_named_actors(all_namespaces=True) == []
