"""Early stop: the test is exact, a search stops what could have won with at most its error, and what is stopped is nothing but stopped."""

from __future__ import annotations

import math
import pickle
import random
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from methods.budget import Budget
from methods.space import Architecture
from search import stopping
from search.archive import Archive
from search.incumbents import EarlyStop, Incumbents
from search.loop import Evaluated, SearchResult, search
from search.measurement import Measurement
from search.predictions import Predictions
from search.query import Answer, best
from search.stopping import LOOKS, Flags, Race, Rival, Stopped, level_of, p_value, right
from tests.search.toy import LayerSpace, costs_of, measured, quality, share

SPACE = LayerSpace(6)
ROWS = 400


def tail(wins: int, differing: int, total: int, winning: int) -> Fraction:
    """P(at most `wins`) of a sample of `differing` from `total` of which `winning` are wins, term by term."""
    ways = sum(math.comb(winning, j) * math.comb(total - winning, differing - j) for j in range(wins + 1) if differing >= j)
    return Fraction(ways, math.comb(total, differing))


@pytest.mark.parametrize("rows", [3, 8, 11])
def test_the_p_value_is_the_largest_tail_of_all_populations_that_it_can_be(rows: int) -> None:
    for seen in range(1, rows):
        for losses in range(seen + 1):
            for wins in range(seen - losses + 1):
                differing, found = wins + losses, p_value(wins, losses, seen, rows)
                totals = range(differing, differing + rows - seen + 1)
                largest = max(tail(wins, differing, d, w) for d in totals for w in range(-(-d // 2), d + 1))
                if wins >= losses:
                    assert found == 1
                else:
                    assert found == pytest.approx(float(largest), abs=1e-12)


@pytest.mark.parametrize("rows", [7, 10])
def test_no_population_that_is_at_least_as_good_is_rejected_more_often_than_the_level(rows: int) -> None:
    """All populations, all samples: the chance of a p-value of at most x is at most x."""
    for seen in range(1, rows):
        for winning in range(rows + 1):
            for losing in range(min(winning, rows - winning) + 1):
                chances: dict[float, Fraction] = {}
                for wins in range(min(seen, winning) + 1):
                    for losses in range(min(seen - wins, losing) + 1):
                        others = math.comb(rows - winning - losing, seen - wins - losses)
                        chance = Fraction(math.comb(winning, wins) * math.comb(losing, losses) * others, math.comb(rows, seen))
                        p = p_value(wins, losses, seen, rows)
                        chances[p] = chances.get(p, Fraction(0)) + chance
                for p in chances:
                    assert sum(c for q, c in chances.items() if q <= p) <= p + 1e-12


def test_what_cannot_catch_up_any_more_is_certain() -> None:
    assert p_value(0, 6, 10, 15) == 0.0 < p_value(0, 5, 10, 15)
    assert p_value(5, 5, 10, 15) == 1.0 == p_value(0, 0, 10, 15)


def test_tails_are_exact_far_out() -> None:
    assert p_value(3, 27, 250, 2000) == pytest.approx(float(tail(3, 30, 1780, 890)), rel=1e-9)


def flags(rng: np.random.Generator, like: Flags, wins: int, losses: int) -> Flags:
    """Right as `like` but for so many wins and losses over all rows."""
    found = like.copy()
    found[rng.choice(np.flatnonzero(~like), wins, replace=False)] = True
    found[rng.choice(np.flatnonzero(like), losses, replace=False)] = False
    return found


def rival(name: str, of: Flags) -> Rival:
    return Rival(name, np.packbits(of).tobytes(), len(of))


def raced(race: Race, candidate: Flags) -> int | None:
    """So many rows were seen when it was stopped; None: it was not."""
    seen = np.empty(0, dtype=np.int64)
    for part in race.parts()[:-1]:
        seen = np.concatenate([seen, part])
        if race.p_value(seen, candidate[seen]) <= race.level:
            return len(seen)
    return None


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal tails are computed once."""
    monkeypatch.setattr(stopping, "p_value", lru_cache(maxsize=None)(p_value))


@pytest.mark.usefixtures("fast")
def test_searches_stop_what_is_as_good_with_at_most_their_error_and_what_is_hopeless_soon() -> None:
    """Candidates as good as the incumbent, the hardest ones, and a little better; they differ from it in few rows or many."""
    rng, error, searches, evaluations = np.random.default_rng(0), 0.3, 300, 8
    wrong, shares = 0, []
    for number in range(searches):
        incumbent = rng.random(ROWS) < 0.7
        race = Race(Architecture.of("toy", {"n": number}), (rival("i", incumbent),), level_of(error, evaluations))
        good = []
        for place in range(evaluations - 1):
            differing = int(rng.integers(5, 60))
            candidate = flags(rng, incumbent, differing + place % 2, differing)
            one = replace(race, architecture=Architecture.of("toy", {"n": number, "place": place}))
            good.append(raced(one, candidate) is not None)
        wrong += any(good)
        shares.append((raced(race, flags(rng, incumbent, 10, 110)) or ROWS) / ROWS)
    slack = 3 * math.sqrt(error * (1 - error) / searches)
    assert 0 < wrong / searches <= error + slack
    assert np.mean(shares) < 0.3


@pytest.mark.usefixtures("fast")
def test_a_rival_that_is_beaten_protects_from_all_others() -> None:
    rng, level, races = np.random.default_rng(1), 0.1, 400
    stopped = 0
    for number in range(races):
        strong = rng.random(ROWS) < 0.9
        candidate = flags(rng, strong, 10, 90)
        weak = flags(rng, candidate, 30, 30)
        rivals = (rival("strong", strong), rival("weak", weak))
        architecture = Architecture.of("toy", {"n": number})
        assert raced(Race(architecture, rivals[:1], level), candidate)
        stopped += raced(Race(architecture, rivals, level / len(LOOKS)), candidate) is not None
    assert 0 < stopped / races <= level + 3 * math.sqrt(level * (1 - level) / races)


def test_every_pair_has_an_order_of_its_own_and_every_row_a_place() -> None:
    a, b = (Architecture.of("toy", {"n": n}) for n in (1, 2))
    one, two = (rival(name, np.ones(ROWS, dtype=bool)) for name in "xy")
    races = [Race(a, (one,)), Race(b, (one,)), Race(a, (two,)), Race(a, (one, two)), Race(a, (one,), seed=1)]
    orders = [np.concatenate(race.parts()) for race in races]
    assert all(sorted(order) == list(range(ROWS)) for order in orders)
    assert len({order.tobytes() for order in orders}) == len(races)
    assert [len(part) for part in races[0].parts()] == [50, 50, 100, 200]
    assert pickle.loads(pickle.dumps(races[3])) == races[3] and np.concatenate(races[3].parts()).tolist() == orders[3].tolist()
    tiny = Race(a, (rival("x", np.ones(3, dtype=bool)),)).parts()
    assert [len(part) for part in tiny] == [1, 1, 1]


def test_the_estimate_is_the_rivals_quality_and_the_difference_seen() -> None:
    incumbent = np.array([1, 1, 1, 1, 0, 0, 1, 1], dtype=bool)
    race = Race(Architecture.of("toy", {}), (rival("i", incumbent),))
    assert race.estimate(np.array([0, 1, 4, 5]), np.array([False, False, True, False])) == pytest.approx(6 / 8 - 1 / 4)
    assert race.estimate(np.array([0, 1]), np.array([False, False])) == 0.0


def test_logits_that_are_not_finite_are_right_nowhere() -> None:
    logits, labels = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([0, 1])
    assert right(logits, labels).tolist() == [True, True]
    logits[0, 1] = np.inf
    assert right(logits, labels).tolist() == [False, False]


def correct(architecture: Architecture) -> Flags:
    """Rows are more or less difficult for all, and a little differently for each."""
    difficulty = np.random.default_rng(0).random(ROWS)
    own = np.random.default_rng(int(architecture.id[:8], 16)).normal(0, 0.03, ROWS)
    return difficulty + own < 0.1 + 1.2 * quality(architecture)


def whole(architecture: Architecture) -> Evaluated:
    rightly = correct(architecture)
    logits = np.stack([~rightly, rightly], axis=1).astype(np.float32)
    accuracy = float(rightly.mean())
    return measured(architecture, SPACE, metrics={"accuracy": accuracy}), Predictions(np.arange(ROWS), logits, np.ones(ROWS, dtype=int))


class Desk:
    """Evaluates races, remembers how many rows of each it read, and breaks down after `breaks` of them."""

    def __init__(self, breaks: int = 10**9) -> None:
        self.breaks, self.read = breaks, dict[Architecture, int]()

    def race(self, race: Race) -> Evaluated | Stopped:
        if len(self.read) == self.breaks:
            raise ConnectionError("pulled the plug")
        seen, rightly = np.empty(0, dtype=np.int64), correct(race.architecture)
        for part in race.parts()[:-1] if race.rivals else ():
            seen = np.concatenate([seen, part])
            if (p := race.p_value(seen, rightly[seen])) <= race.level:
                self.read[race.architecture] = len(seen)
                ids = tuple(one.id for one in race.rivals)
                told = (len(seen), race.estimate(seen, rightly[seen]), ids, p)
                return Stopped(race.architecture, "toy", "search", "s", "w", "shared", 0, *told)
        self.read[race.architecture] = ROWS
        return whole(race.architecture)

    def __call__(self, races: Sequence[Race]) -> Iterator[Evaluated | Stopped]:
        return (self.race(race) for race in races)


class Pool(Desk):
    """As other processes do it: what is asked travels, and the last comes first."""

    def __call__(self, races: Sequence[Race]) -> Iterator[Evaluated | Stopped]:
        return iter([self.race(pickle.loads(pickle.dumps(race))) for race in races][::-1])


def run(
    archive: Archive, budgets: Sequence[Budget], desk: Desk | None = None, strategy: str = "evolution", error: float = 0.05
) -> SearchResult:
    """With early stop where there is a desk."""

    def plain(architectures: Sequence[Architecture]) -> Iterable[Evaluated]:
        return (whole(architecture) for architecture in architectures)

    def found(architecture: Architecture) -> Stopped | None:
        return archive.find_stopped((architecture.id, "toy", "s", "w", "shared"))

    def known(architecture: Architecture) -> Measurement | None:
        return archive.find(architecture.id, "toy", "s", "w", "shared")

    early = EarlyStop(error, desk, lambda m: archive.predictions(m.key), found, archive.add_stopped) if desk else None
    return search(SPACE, plain, budgets, strategy, 48, 0, costs_of(SPACE), known, archive.add, early=early)


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    with Archive(tmp_path / "archive.db") as opened:
        yield opened


BUDGETS = [share(SPACE, 0.4), share(SPACE, 0.7)]


@pytest.mark.parametrize("strategy", ["predictor", "random", "evolution"])
def test_the_winners_are_those_of_a_search_without_and_rows_are_saved(strategy: str, archive: Archive, tmp_path: Path) -> None:
    desk = Desk()
    result = run(archive, BUDGETS, desk, strategy)
    stopped = [one for part in result.passes for one in part.hopeless]
    assert all(len(p.measurements) + len(p.hopeless) == 48 == p.evaluated + p.answered for p in result.passes)
    assert stopped and sum(desk.read.values()) < 0.95 * ROWS * len(desk.read)
    hopeless = {one.architecture for one in stopped}
    assert not hopeless & {m.architecture for m in archive.measurements()}, "what is stopped is no measurement"
    assert {one.architecture for one in archive.stopped("toy")} == hopeless
    for budget in BUDGETS:
        answer = best(archive, budget)
        assert isinstance(answer, Answer) and answer.architecture not in hopeless
        shipped = float(correct(answer.architecture).mean())
        better = [a for a in hopeless if budget.met_by(costs_of(SPACE)(a)) and correct(a).mean() >= shipped]
        assert not better, "none of them would have won"
    if strategy == "random":
        with Archive(tmp_path / "plain.db") as plain:
            run(plain, BUDGETS, None, strategy)
            for budget in BUDGETS:
                one, other = best(plain, budget), best(archive, budget)
                assert isinstance(one, Answer) and isinstance(other, Answer) and one.architecture == other.architecture


def test_the_strategy_hears_estimates_below_the_best(archive: Archive) -> None:
    result = run(archive, BUDGETS[:1], Desk())
    (part,) = result.passes
    highest = max(m.quality for m in part.measurements)
    errors = [one.estimate - correct(one.architecture).mean() for one in part.hopeless]
    assert all(one.estimate < highest for one in part.hopeless)
    assert np.mean(np.abs(errors)) < 0.1


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> tuple[SearchResult, list[Measurement], list[Stopped]]:
    """A search that was left alone, and what its archive holds."""
    with Archive(tmp_path_factory.mktemp("straight") / "archive.db") as archive:
        result = run(archive, BUDGETS, Desk())
        return result, archive.measurements(), archive.stopped()


@pytest.mark.parametrize("breaks", [1, 11, 30])
def test_an_interrupted_search_goes_the_same_way(
    breaks: int, archive: Archive, straight: tuple[SearchResult, list[Measurement], list[Stopped]]
) -> None:
    expected, *kept = straight
    with pytest.raises(ConnectionError):
        run(archive, BUDGETS, Desk(breaks))
    desk = Desk()
    resumed = run(archive, BUDGETS, desk)
    assert [archive.measurements(), archive.stopped()] == kept
    assert [(p.measurements, p.hopeless) for p in resumed.passes] == [(p.measurements, p.hopeless) for p in expected.passes]
    assert len(desk.read) == len(kept[0]) + len(kept[1]) - breaks
    for late in [one.architecture for one in kept[1]][:5]:
        archive.add(*whole(late))  # as a control that is scored after the search
    desk = Desk()
    again = run(archive, BUDGETS, desk)
    assert not desk.read and [p.hopeless for p in again.passes] == [p.hopeless for p in expected.passes]


def test_a_pool_of_other_processes_gives_the_same(
    archive: Archive, straight: tuple[SearchResult, list[Measurement], list[Stopped]]
) -> None:
    here, _, stopped = straight
    there = run(archive, BUDGETS, Pool())
    assert [(p.measurements, p.hopeless) for p in here.passes] == [(p.measurements, p.hopeless) for p in there.passes]
    assert {one.key for one in archive.stopped()} == {one.key for one in stopped}
    assert archive.stopped() != stopped, "they arrived in another order"


def first_stopped(archive: Archive) -> tuple[Stopped, list[Measurement]]:
    (part,) = run(archive, BUDGETS[:1], Desk(), "random").passes
    return part.hopeless[0], list(part.measurements)


def test_a_stop_holds_for_the_budgets_that_its_rivals_meet_and_for_no_others(archive: Archive) -> None:
    """A budget that the rival breaks and the stopped one meets wants it evaluated there, against the incumbent of that budget."""
    stopped, told = first_stopped(archive)
    rival = next(m for m in told if m.architecture.id == stopped.rivals[0])
    cost = costs_of(SPACE)(stopped.architecture)
    wider, other = share(SPACE, 0.9), Budget(max_params=cost.parameters)
    assert rival.costs.parameters > cost.parameters, "the rival is no candidate for the other budget"
    early = EarlyStop(0.05, Desk(), lambda m: archive.predictions(m.key), lambda _: stopped, archive.add_stopped)

    def holding(budgets: Sequence[Budget], error: float = 0.05, heard: bool = True) -> Incumbents:
        found = Incumbents(replace(early, error=error), budgets, costs_of(SPACE), 48, 0)
        for measurement in told if heard else ():
            found.told(measurement)
        return found

    assert holding(BUDGETS[:1]).known(stopped.architecture) == stopped
    assert holding([*BUDGETS[:1], wider]).known(stopped.architecture) == stopped
    assert holding([*BUDGETS[:1], other]).known(stopped.architecture) is None
    assert holding(BUDGETS[:1], heard=False).known(stopped.architecture) is None, "of that rival this search does not know"
    assert holding(BUDGETS[:1], error=stopped.p).known(stopped.architecture) is None, "a smaller error asks for more"
    smallest = Budget(max_params=min(m.costs.parameters for m in told) - 1)
    assert holding([smallest]).race(SPACE.smallest()).rivals == (), "a budget without an incumbent stops nothing"


def test_one_that_a_rival_of_another_budget_beats_is_evaluated_whole_where_it_is_the_best() -> None:
    """Two budgets that do not hold one another: the candidate is far worse than the incumbent of the one, and better than the other's."""
    rng = random.Random(0)
    candidates = sorted((SPACE.sample(rng) for _ in range(200)), key=lambda a: correct(a).mean())
    strong, candidate = candidates[-1], candidates[100]
    cost = costs_of(SPACE)
    weak = next(a for a in candidates if cost(a).parameters < cost(candidate).parameters and correct(a).mean() < correct(candidate).mean())
    flops, parameters = Budget(max_flops=cost(strong).flops), Budget(max_params=cost(candidate).parameters)
    assert flops.met_by(cost(candidate)) and not parameters.met_by(cost(strong))
    kept = {a: whole(a) for a in (strong, weak)}
    early = EarlyStop(0.05, Desk(), lambda m: kept[m.architecture][1], lambda _: None, lambda _: None)

    def raced_under(*budgets: Budget) -> Evaluated | Stopped:
        incumbents = Incumbents(early, budgets, cost, 48, 0)
        for measurement, _ in kept.values():
            incumbents.told(measurement)
        return Desk().race(incumbents.race(candidate))

    assert isinstance(raced_under(flops), Stopped)
    assert not isinstance(raced_under(flops, parameters), Stopped)


def test_an_archive_made_before_gets_the_table_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    with Archive(path) as archive:
        archive.add(*whole(SPACE.smallest()))
    connection = sqlite3.connect(path)
    connection.execute("DROP TABLE stopped")
    connection.commit()
    connection.close()
    with Archive(path, create=False) as archive:
        assert archive.stopped() == [] and len(archive.measurements()) == 1
    stopped = Stopped(SPACE.largest(), "toy", "search", "s", "w", "shared", 2, 50, 0.25, ("a", "b"), 1e-5, 0.5)
    with Archive(path) as archive:
        archive.add_stopped(replace(stopped, rows=25))
        archive.add_stopped(stopped)
        assert archive.stopped("toy", "layers") == [stopped] == [archive.find_stopped(stopped.key)]
        assert archive.find_stopped(("x", *stopped.key[1:])) is None and archive.stopped("other") == []
        assert len(archive.measurements()) == 1
