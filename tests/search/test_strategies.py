"""What every strategy must do. A new strategy joins by one line in `NAMES`."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest

from methods.budget import Budget
from methods.errors import UserError
from methods.space import Architecture, SearchSpace
from search.strategies import exhaustive
from search.strategies.registry import Entry, entry, make, names, register
from search.strategies.strategy import Strategy
from tests.search.toy import LayerSpace, costs_of, quality, share

NAMES = [
    "exhaustive",
    "random",
    "tpe",
    "nsga2",
]
Found = list[tuple[float, float]]
SMALL, LARGE = LayerSpace(1), LayerSpace(6)
everyone = pytest.mark.parametrize("name", NAMES)
no_enumeration = pytest.mark.parametrize("name", NAMES[1:])


def start(name: str, space: SearchSpace, budget: Budget | None = None, seed: int = 0) -> Strategy:
    return make(name, space, seed, budget or Budget(), costs_of(space), 40)


def advance(strategy: Strategy, space: SearchSpace, budget: Budget, proposals: int, generation: int = 4) -> list[Architecture]:
    """Asks and tells until so many were proposed or nothing is left."""
    cost_of, told = costs_of(space), []
    while len(told) < proposals and (asked := strategy.ask(min(generation, proposals - len(told)))):
        assert len(asked) <= generation
        for architecture in asked:
            violations = budget.violations(cost_of(architecture))
            fits = all(v <= 0 for v in violations.values())
            strategy.tell(architecture, quality(architecture) if fits else None, violations)
        told += asked
    return told


def test_every_strategy_takes_part() -> None:
    assert sorted(NAMES) == sorted(names())


@everyone
def test_proposals_are_distinct_members_in_canonical_form(name: str) -> None:
    space = LayerSpace(2) if name == "exhaustive" else LARGE
    told = advance(start(name, space), space, Budget(), 60)
    assert len(told) == 60 == len(set(told))
    assert all(space.contains(architecture) for architecture in told)


@everyone
@pytest.mark.parametrize("budget", [Budget(), share(SMALL, 0.3)])
def test_a_small_space_is_proposed_whole_and_then_nothing(name: str, budget: Budget) -> None:
    strategy = start(name, SMALL, budget)
    told = advance(strategy, SMALL, budget, 1000)
    assert set(told) == set(SMALL.enumerate())
    assert len(told) == SMALL.size()
    assert strategy.ask(3) == []


@everyone
def test_the_same_seed_and_answers_give_the_same_proposals(name: str) -> None:
    space = LayerSpace(2) if name == "exhaustive" else LARGE
    budget = share(space, 0.5)
    first, second = (advance(start(name, space, budget, seed=3), space, budget, 36) for _ in range(2))
    assert first == second


@no_enumeration
def test_another_seed_gives_other_proposals(name: str) -> None:
    first, second = (advance(start(name, LARGE, seed=seed), LARGE, Budget(), 20) for seed in (0, 1))
    assert first != second


@everyone
def test_proposals_do_not_depend_on_the_state_of_global_generators(name: str) -> None:
    told = []
    for seed in (0, 1):
        np.random.seed(seed)  # noqa: NPY002
        told.append(advance(start(name, SMALL), SMALL, Budget(), 12))
    assert told[0] == told[1]


@everyone
def test_a_score_that_is_no_number_is_survived(name: str) -> None:
    strategy = start(name, SMALL)
    for place in range(6):
        for architecture in strategy.ask(4):
            strategy.tell(architecture, float("nan") if place % 2 else 0.5, {})
    assert strategy.ask(1) == []


@everyone
def test_nothing_is_said_or_warned(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    budget = share(SMALL, 0.3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        advance(start(name, SMALL, budget), SMALL, budget, 24)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["tpe", "nsga2"])
def test_samplers_start_from_the_anchors(name: str) -> None:
    anchors = LARGE.anchors()
    assert start(name, LARGE).ask(len(anchors)) == anchors


def test_anchors_are_parents_of_the_first_generation() -> None:
    anchors = LARGE.anchors()
    children = advance(start("nsga2", LARGE), LARGE, Budget(), len(anchors) + 20)[len(anchors) :]
    heads = [gene for child in children for gene in child.choices["heads"]]
    assert np.mean([gene in (6, 12) for gene in heads]) > 0.7


@pytest.mark.parametrize("name", ["tpe", "nsga2"])
def test_samplers_learn_the_limit_from_what_exceeds_it(name: str) -> None:
    limit, cost_of = share(LARGE, 0.25), costs_of(LARGE)
    later = [advance(start(name, LARGE, budget), LARGE, budget, 80)[40:] for budget in (limit, share(LARGE, 1.0))]
    aware, unaware = (np.mean([limit.met_by(cost_of(architecture)) for architecture in some]) for some in later)
    assert aware > unaware + 0.2


class WithoutAnchors(LayerSpace):
    """A head start for nobody."""

    def anchors(self) -> list[Architecture]:
        return []


def found_by(name: str, seed: int, evaluations: int) -> Found:
    """(share of the limit, quality) of the first so many proposals that meet a limit."""
    space, budget = WithoutAnchors(6), share(LARGE, 0.4)
    cost_of, strategy, found = costs_of(space), start(name, space, budget, seed), []
    while len(found) < evaluations:
        for architecture in strategy.ask(4):
            costs = cost_of(architecture)
            score = quality(architecture) if budget.met_by(costs) else None
            strategy.tell(architecture, score, budget.violations(costs))
            found += [] if score is None else [(costs.flops / budget.limits()["max_flops"], score)]
    return found[:evaluations]


def best_quality(found: Found) -> float:
    return max(score for _, score in found)


def hypervolume(found: Found) -> float:
    """The area that the front of (share of the limit, quality) covers."""
    area = best = 0.0
    for spent, score in sorted(found):
        area += max(score - best, 0) * (1 - spent)
        best = max(score, best)
    return area


@pytest.mark.parametrize(("name", "worth", "evaluations", "margin"), [("tpe", best_quality, 50, 0.02), ("nsga2", hypervolume, 100, 0.003)])
def test_samplers_beat_random_search(name: str, worth: Callable[[Found], float], evaluations: int, margin: float) -> None:
    theirs, chance = (np.mean([worth(found_by(n, seed, evaluations)) for seed in range(3)]) for n in (name, "random"))
    assert theirs > chance + margin


def test_repeats_are_counted_and_answered_inside() -> None:
    strategy = start("tpe", SMALL)
    advance(strategy, SMALL, Budget(), 24)
    assert strategy.duplicates > 0


def test_an_exhaustive_search_of_a_large_space_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"exhaustive takes spaces of at most 100,000 .*layers has 199,411,800"):
        start("exhaustive", LARGE)
    monkeypatch.setattr(exhaustive, "LARGEST", 23)
    with pytest.raises(UserError, match="24"):
        start("exhaustive", SMALL)


def test_an_unknown_name_is_answered_with_those_that_there_are() -> None:
    with pytest.raises(UserError, match=r"'bohb' is unknown; there are exhaustive, random, tpe, nsga2"):
        start("bohb", SMALL)


def test_a_name_is_taken_once() -> None:
    register("random", entry("random"))
    with pytest.raises(ValueError, match="registered"):
        register("random", Entry(lambda _: start("tpe", SMALL), 3))
