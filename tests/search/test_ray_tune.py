"""Strategy `ray_tune`: what goes through a real `Tuner` is what `OptunaSearch` proposes, asked and told, of which
`tests/search/test_strategies.py` shows the rest."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("ray")

import ray

from methods.budget import Budget
from methods.errors import StageError
from methods.space import Architecture
from search.loop import one_by_one, search
from search.ray_.optuna_search import OptunaSearchStrategy
from search.ray_.strategy import RayTune
from search.strategies.strategy import Problem
from tests.search.test_strategies import LARGE, SMALL, advance
from tests.search.toy import LayerSpace, costs_of, measured, share


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 (Ray's own spelling)
    try:
        ray.init(address="local", num_cpus=1, object_store_memory=80 * 2**20, include_dashboard=False, logging_level="error")
    except Exception as error:  # a machine too busy for Ray's own deadlines, or one without sockets
        pytest.skip(f"no Ray cluster starts here: {error}")
    yield
    ray.shutdown()


def problem(space: LayerSpace, budget: Budget | None = None, evaluations: int = 40, objectives: tuple[str, ...] = ()) -> Problem:
    return Problem(space, budget or Budget(), costs_of(space), 3, evaluations, objectives)


def test_trials_of_a_tuner_are_those_of_the_searcher_asked_and_told(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """With anchors, a limit that proposals exceed, and two objectives: the last tenth depends on every score before."""
    budget = share(LARGE, 0.4)
    asked = problem(LARGE, budget, 30, ("max_flops", "max_params"))
    tuned = RayTune(asked)
    try:
        told = advance(tuned, LARGE, budget, 30)
    finally:
        tuned.close()
    alone = OptunaSearchStrategy(asked)
    assert told == advance(alone, LARGE, budget, 30)
    assert any(not budget.met_by(costs_of(LARGE)(a)) for a in told)
    assert capfd.readouterr() == ("", "")
    assert not Path("~/ray_results").expanduser().exists()


def test_a_small_space_is_proposed_whole_and_repeats_are_no_trials() -> None:
    tuned, alone = RayTune(problem(SMALL)), OptunaSearchStrategy(problem(SMALL))
    try:
        told = advance(tuned, SMALL, Budget(), 1000)
        assert tuned.ask(3) == []
    finally:
        tuned.close()
    assert told == advance(alone, SMALL, Budget(), 1000)
    assert set(told) == set(SMALL.enumerate())
    assert tuned.duplicates == alone.duplicates > 0


def test_a_search_that_fails_amid_a_generation_leaves_nothing_behind() -> None:
    def evaluate(architecture: Architecture) -> tuple[object, None]:
        if len(seen) == 5:
            raise StageError("the sixth")
        seen.append(architecture)
        return measured(architecture, LARGE), None

    seen: list[Architecture] = []
    ended = lambda: not [a for a in ray.util.list_named_actors(all_namespaces=True)]  # noqa: E731
    with pytest.raises(StageError, match="the sixth"):
        search(LARGE, one_by_one(evaluate), [], "ray_tune", 12, 0, costs_of(LARGE), lambda _: None, lambda *_: None, generation=4)
    assert len(seen) == 5 and ended()
