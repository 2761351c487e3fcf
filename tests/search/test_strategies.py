"""What every strategy must do. A new strategy joins by one line in `NAMES`, and by one in `SCALE` where it is slow."""

from __future__ import annotations

import random
import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna._hypervolume import compute_hypervolume

from methods.budget import Budget
from methods.errors import UserError
from methods.space import Architecture, Choice, SearchSpace
from search.ray_.optuna_search import OptunaSearchStrategy
from search.strategies import exhaustive
from search.strategies.improvement import front, most_promising
from search.strategies.registry import DEFAULT, Entry, entry, make, names, register, resolve
from search.strategies.strategy import Problem, Strategy
from search.strategies.variation import crossover
from tests.search.toy import HEADS, LayerSpace, costs_of, quality, share

NAMES = [
    "exhaustive",
    "random",
    "tpe",
    "gp",
    "nsga2",
    "ray_tune",
    "evolution",
    "predictor",
]
Found = list[tuple[float, float]]
Floats = npt.NDArray[np.float64]
SMALL, MIDDLE, LARGE = LayerSpace(1), LayerSpace(2), LayerSpace(6)


class Tiny(LayerSpace):
    """One layer of 12 kinds."""

    def __init__(self) -> None:
        super().__init__(1)
        self.choices = (Choice("depth", (1,)), Choice("heads.0", HEADS[:3]), *self.choices[2:])

    def size(self) -> int:
        return 12

    def anchors(self) -> list[Architecture]:
        return [Architecture.of(self.method, {"heads": [6], "neurons": [32]})]


@dataclass(frozen=True)
class Scale:
    """A space to exhaust, a larger one, and how many proposals of it show what a strategy does."""

    small: LayerSpace
    large: LayerSpace
    proposals: int


SCALE = {
    "exhaustive": Scale(SMALL, MIDDLE, 40),
    "tpe": Scale(SMALL, LARGE, 24),
    "ray_tune": Scale(SMALL, LARGE, 24),
    "gp": Scale(Tiny(), MIDDLE, 10),
}
everyone = pytest.mark.parametrize("name", NAMES)
no_enumeration = pytest.mark.parametrize("name", NAMES[1:])
learning = pytest.mark.parametrize("name", NAMES[2:])


def scale(name: str) -> Scale:
    return SCALE.get(name, Scale(SMALL, LARGE, 40))


def start(
    name: str, space: SearchSpace, budget: Budget | None = None, seed: int = 0, evaluations: int = 40, objectives: tuple[str, ...] = ()
) -> Strategy:
    if name == "ray_tune":  # without the Tuner, which proposes the same: tests/search/test_ray_tune.py
        return OptunaSearchStrategy(Problem(space, budget or Budget(), costs_of(space), seed, evaluations, objectives))
    return make(name, space, seed, budget or Budget(), costs_of(space), evaluations, objectives)


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
    space, count = scale(name).large, scale(name).proposals
    told = advance(start(name, space), space, Budget(), count)
    assert len(told) == count == len(set(told))
    assert all(space.contains(architecture) for architecture in told)


@everyone
@pytest.mark.parametrize("limited", [False, True])
def test_a_small_space_is_proposed_whole_and_then_nothing(name: str, limited: bool) -> None:
    space = scale(name).small
    budget = share(space, 0.3) if limited else Budget()
    strategy = start(name, space, budget)
    told = advance(strategy, space, budget, 1000)
    assert set(told) == set(space.enumerate())
    assert len(told) == space.size()
    assert strategy.ask(3) == []


@everyone
@pytest.mark.parametrize("objectives", [(), ("max_flops", "max_params")])
def test_the_same_seed_and_answers_give_the_same_proposals(name: str, objectives: tuple[str, ...]) -> None:
    space, count = scale(name).large, scale(name).proposals
    budget = share(space, 0.5)
    first, second = (advance(start(name, space, budget, 3, objectives=objectives), space, budget, count) for _ in range(2))
    assert first == second


@no_enumeration
def test_another_seed_gives_other_proposals(name: str) -> None:
    space = scale(name).large
    first, second = (advance(start(name, space, seed=seed), space, Budget(), scale(name).proposals) for seed in (0, 1))
    assert first != second


@everyone
def test_proposals_do_not_depend_on_the_state_of_global_generators(name: str) -> None:
    told = []
    for seed in (0, 1):
        np.random.seed(seed)  # noqa: NPY002
        random.seed(seed)
        told.append(advance(start(name, scale(name).large), scale(name).large, Budget(), 10))
    assert told[0] == told[1]


@everyone
def test_a_score_that_is_no_number_is_survived(name: str) -> None:
    space = scale(name).small
    strategy = start(name, space)
    for place in range(space.size() // 4):
        for architecture in strategy.ask(4):
            strategy.tell(architecture, float("nan") if place % 2 else 0.5, {})
    assert strategy.ask(1) == []


@everyone
def test_nothing_is_said_or_warned(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    space = scale(name).small
    budget = share(space, 0.3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        advance(start(name, space, budget), space, budget, 24)
    assert capfd.readouterr() == ("", "")


@learning
def test_anchors_that_fit_come_first(name: str) -> None:
    budget, cost_of = share(LARGE, 0.5), costs_of(LARGE)
    anchors = [anchor for anchor in LARGE.anchors() if budget.met_by(cost_of(anchor))]
    assert 2 < len(anchors) < len(LARGE.anchors())
    assert start(name, LARGE, budget).ask(len(anchors)) == anchors


@learning
@pytest.mark.parametrize("evaluations", [1, 3, 12])
def test_anchors_take_at_most_a_third_and_reach_from_small_to_large(name: str, evaluations: int) -> None:
    told = start(name, LARGE, evaluations=evaluations).ask(evaluations)
    found = [architecture for architecture in told if architecture in LARGE.anchors()]
    assert len(found) == evaluations // 3
    flops = [costs_of(LARGE)(anchor).flops for anchor in LARGE.anchors()]
    if len(found) > 1:
        assert [costs_of(LARGE)(found[0]).flops, costs_of(LARGE)(found[-1]).flops] == [min(flops), max(flops)]


def test_anchors_are_parents_of_the_first_generation() -> None:
    anchors = LARGE.anchors()
    children = advance(start("nsga2", LARGE), LARGE, Budget(), len(anchors) + 20)[len(anchors) :]
    heads = [gene for child in children for gene in child.choices["heads"]]
    assert np.mean([gene in (6, 12) for gene in heads]) > 0.7


@pytest.mark.parametrize("name", ["tpe", "nsga2", "evolution", "predictor"])
def test_limits_are_learnt_or_known(name: str) -> None:
    limit, cost_of = share(LARGE, 0.25), costs_of(LARGE)
    later = [advance(start(name, LARGE, budget), LARGE, budget, 80, 8)[40:] for budget in (limit, share(LARGE, 1.0))]
    aware, unaware = (np.mean([limit.met_by(cost_of(architecture)) for architecture in some]) for some in later)
    assert aware > unaware + 0.2


class WithoutAnchors(LayerSpace):
    """A head start for nobody."""

    def anchors(self) -> list[Architecture]:
        return []


def found_by(name: str, layers: int, part: float, seed: int, evaluations: int, objectives: tuple[str, ...] = ()) -> Found:
    """(share of the limit, quality) of the first so many proposals that meet the limit at `part` of the way to the largest network."""
    space = WithoutAnchors(layers)
    budget, cost_of, found = share(space, part), costs_of(space), []
    strategy = start(name, space, budget, seed, evaluations, objectives)
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


@pytest.mark.parametrize(("name", "evaluations", "margin"), [("tpe", 40, 0.02), ("evolution", 50, 0.01), ("predictor", 40, 0.04)])
def test_the_best_is_better_than_that_of_random_search(name: str, evaluations: int, margin: float) -> None:
    found = ([best_quality(found_by(n, LARGE.layers, 0.4, seed, evaluations)) for seed in range(3)] for n in (name, "random"))
    theirs, chance = map(np.mean, found)
    assert theirs > chance + margin


def test_a_gaussian_process_proposes_better_networks_than_random_search() -> None:
    found = [[np.mean([score for _, score in found_by(n, 2, 1.0, seed, 12)[8:]]) for seed in range(2)] for n in ("gp", "random")]
    assert np.mean(found[0]) > np.mean(found[1]) + 0.02


@pytest.mark.parametrize(
    ("name", "evaluations", "margin"), [("tpe", 40, 0.01), ("nsga2", 100, 0.003), ("evolution", 100, 0.01), ("predictor", 40, 0.03)]
)
def test_the_front_covers_more_than_that_of_random_search(name: str, evaluations: int, margin: float) -> None:
    found = (
        [hypervolume(found_by(n, LARGE.layers, 0.4, seed, evaluations, ("max_flops",))) for seed in range(3)] for n in (name, "random")
    )
    theirs, chance = map(np.mean, found)
    assert theirs > chance + margin


def test_auto_is_exhaustive_where_that_measures_no_more() -> None:
    assert resolve("auto", 24, 24) == "exhaustive"
    assert resolve("auto", 25, 24) == resolve("auto", LARGE.size()) == DEFAULT in names()
    assert resolve("auto", 24) == "exhaustive"
    assert resolve("tpe", 1, 1) == "tpe"
    assert type(start("auto", SMALL)) is type(start("exhaustive", SMALL))


@pytest.mark.parametrize("costs", [0, 1, 2, 3])
def test_most_promising_is_the_largest_expected_improvement_of_the_volume(costs: int) -> None:
    """Against the improvement of the hypervolume itself, for scores that are certain."""
    rng = np.random.default_rng(costs)
    prices, candidates = rng.uniform(size=(6, costs)), rng.uniform(size=(8, costs))
    scores, mean = rng.uniform(size=6), rng.uniform(size=8)
    corner = np.concatenate([prices, candidates])
    reference = np.array([-scores.min(), *corner.max(axis=0)])

    def volume(scores: Floats, prices: Floats) -> float:
        losses = np.column_stack([-scores, prices])
        return float(compute_hypervolume(np.minimum(losses, reference), reference))

    before = volume(scores, prices)
    gains = [volume(np.append(scores, mean[i]), np.vstack([prices, candidates[i]])) - before for i in range(8)]
    first = most_promising(scores, prices, candidates, mean, np.zeros(8), 1)[0]
    assert gains[first] >= max(gains) - 0.01 * volume(np.append(scores, 1.0), np.vstack([prices, corner.min(axis=0)]))


def test_the_front_is_what_no_other_point_dominates() -> None:
    rng = np.random.default_rng(0)
    scores, prices = rng.integers(4, size=30).astype(float), rng.integers(4, size=(30, 2)).astype(float)
    losses = np.column_stack([-scores, prices])
    slow = [i for i, a in enumerate(losses) if not any((b <= a).all() and (b < a).any() for b in losses)]
    assert front(scores, prices).tolist() == slow
    assert len(slow) < 30


@given(st.integers(0, 2**32))
def test_a_crossover_has_every_choice_of_one_parent(seed: int) -> None:
    rng = random.Random(seed)
    first, second = (LARGE.sample(rng) for _ in range(2))
    child, left, right = (LARGE.encode(a) for a in (crossover(LARGE, first, second, rng), first, second))
    kept = ["depth", *(f"{kind}.{i}" for kind in ("heads", "neurons") for i in range(int(child["depth"])))]
    assert all(child[name] in (left[name], right[name]) for name in kept)


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
    with pytest.raises(UserError, match=r"'bohb' is unknown; there are auto, exhaustive, random, tpe, gp, nsga2"):
        start("bohb", SMALL)


def test_a_name_is_taken_once() -> None:
    register("random", entry("random"))
    with pytest.raises(ValueError, match="registered"):
        register("random", Entry(lambda _: start("tpe", SMALL), 3))
