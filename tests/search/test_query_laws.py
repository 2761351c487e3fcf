"""The query's laws: what `best` and `fronts` say is what a plain look at every measurement says."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from methods.budget import Budget
from methods.costs import Costs
from methods.errors import UserError
from methods.space import Architecture
from search.candidates import candidates, pareto_front
from search.measurement import Kind, Measurement
from search.query import Answer, NothingFits, best, fronts
from tests.search.made import made


def current(found: Sequence[Measurement], kind: Kind) -> Candidates:
    """What counts on `search`, by one loop after another: per architecture and seed the last measurement of the present supernet."""
    kept: dict[Architecture, dict[int, Measurement]] = {}
    for place, m in enumerate(found):
        if (m.kind, m.split) != (kind, "search"):
            continue
        shared = [n for n in found if (n.kind, n.split, n.seed) == ("shared", "search", m.seed) and whose(n) == whose(m)]
        if kind == "shared":
            counts = m.weights_digest == shared[-1].weights_digest
        else:
            present = [n.weights_digest == shared[-1].weights_digest for n in shared]
            counts = all(present) or place > found.index(shared[present.index(True)])
        if counts:
            kept.setdefault(m.architecture, {})[m.seed] = m
    return kept


def whose(m: Measurement) -> str:
    return m.architecture.method


Candidates = dict[Architecture, dict[int, Measurement]]


def worth(by_seed: dict[int, Measurement], seeds: Iterable[int]) -> float:
    """The mean over these seeds, as it is ranked by."""
    values = [by_seed[seed].quality for seed in seeds]
    found = math.fsum(values) / len(values) if all(map(math.isfinite, values)) else math.nan
    return round(found, 12) if math.isfinite(found) else -math.inf


def order(by_seed: dict[int, Measurement]) -> tuple[int, int, int, str]:
    """Of equals the first: the one of fewer FLOPs, parameters, more seeds, the smaller id."""
    last = by_seed[max(by_seed)]
    return last.costs.flops, last.costs.parameters, -len(by_seed), last.architecture.id


def rank(by_seed: dict[int, Measurement], seeds: Iterable[int]) -> tuple[float, int, int, int, str]:
    return -worth(by_seed, seeds), *order(by_seed)


def first_of(found: Candidates) -> Architecture:
    """Unbeaten on common seeds; of these what most seeds put first, then what has most seeds, then the best mean."""
    unbeaten = {a: by for a, by in found.items()
                if not any(other.keys() >= by.keys() and rank(other, by) < rank(by, by) for other in found.values())}  # fmt: skip
    named = [min((a for a, by in unbeaten.items() if seed in by), key=lambda a: rank(unbeaten[a], [seed]))
             for seed in {seed for by in unbeaten.values() for seed in by}]  # fmt: skip
    return min(unbeaten, key=lambda a: (-named.count(a), -len(unbeaten[a]), *rank(unbeaten[a], unbeaten[a])))


def within(candidates: Candidates, budget: Budget, method: str | None = None) -> Candidates:
    return {a: by for a, by in candidates.items() if method in (None, a.method) and budget.met_by(by[max(by)].costs)}


def stands(finished: Candidates, shared: Candidates) -> bool:
    """Whether what a method finished stands for all; both within the budget."""
    if not finished or not shared:
        return bool(finished)
    first = first_of(shared)
    if first in finished and {frozenset(by) for by in finished.values()} == {frozenset(shared[first])}:
        return True
    bests = {seed: min((a for a in shared if seed in shared[a]), key=lambda a: rank(shared[a], [seed]))
             for seed in {seed for by in shared.values() for seed in by}}  # fmt: skip
    return all(seed in finished.get(a, {}) for seed, a in bests.items())


def plainly(found: Sequence[Measurement], budget: Budget) -> tuple[str, Kind] | None:
    """The winner's id and kind by one loop after another over everything."""
    finished, shared = (within(current(found, kind), budget) for kind in ("finished", "shared"))
    methods = {a.method for some in (finished, shared) for a in some}
    if not methods:
        return None
    if all(stands(within(finished, budget, method), within(shared, budget, method)) for method in methods):
        return first_of(finished).id, "finished"
    return first_of(shared).id, "shared"


widths = st.integers(1, 6)
measurements = st.lists(
    st.builds(
        lambda width, flops, **facts: made(width, costs=Costs(100, 10 * (width // 2), 1000 * flops), **facts),
        width=widths,
        flops=st.integers(1, 3),
        quality=st.sampled_from([0.1, 0.2, 0.3, 0.4, math.nan, math.inf]),
        kind=st.sampled_from(["shared", "finished", "control", "predicted"]),
        seed=st.integers(0, 2),
        weights_digest=st.sampled_from(["old", "new"]),
        split=st.sampled_from(["search", "search", "validation"]),
        method=st.sampled_from(["toy", "toy", "other"]),
    ),
    max_size=25,
)
budgets = st.builds(
    Budget,
    max_params=st.none() | st.integers(100, 140),
    max_params_non_embedding=st.none() | st.integers(1, 40),
    max_flops=st.none() | st.integers(500, 4000),
)
lucky = [made(1, 0.9, seed=0), made(2, 0.95, seed=0), made(2, 0.7, seed=1), made(3, 0.75, seed=1)]
tenth = [made(1, q, seed=s) for s, q in enumerate((0.1, 0.2, 0.3))] + [made(1, 0.2)]


@settings(max_examples=300, deadline=None)
@given(measurements, budgets)
@example(tenth, Budget())
@example(lucky, Budget())
def test_best_equals_a_plain_look_at_everything(found: list[Measurement], budget: Budget) -> None:
    ranked = [m for m in found if m.split == "search" and m.kind in ("shared", "finished")]
    if not ranked:
        with pytest.raises(UserError, match="nothing was measured"):
            best(found, budget)
        return
    result, expected = best(found, budget), plainly(found, budget)
    if expected is not None:
        assert isinstance(result, Answer)
        assert (result.architecture.id, result.kind) == expected
        assert budget.met_by(result.costs) and all(left >= 0 for left in result.slack.values())
    else:
        assert isinstance(result, NothingFits)
        everything = [c for kind in ("finished", "shared") for c in candidates(found, kind)]
        for name, limit in budget.limits().items():
            least = min(c.costs.measured_against()[name] for c in everything)
            assert result.smallest[name] == least
            assert (name in result.binding) >= (least > limit)
        assert result.binding
        assert result.jointly == all(result.smallest[name] <= limit for name, limit in budget.limits().items())


@settings(max_examples=300, deadline=None)
@given(measurements, st.sampled_from(["flops", "parameters"]))
def test_the_front_equals_a_plain_look_at_every_pair(found: list[Measurement], cost: str) -> None:
    def beats(one: Measurement, other: Measurement) -> bool:
        spent, limit = getattr(one.costs, cost), getattr(other.costs, cost)
        return spent <= limit and one.quality >= other.quality and (spent, one.quality) != (limit, other.quality)

    def point(m: Measurement) -> tuple[float, float]:
        return getattr(m.costs, cost), m.quality

    found = [m for m in found if math.isfinite(m.quality)]
    front = pareto_front(found, cost)
    unbeaten = {point(m) for m in found if not any(beats(other, m) for other in found)}
    assert [point(m) for m in front] == sorted(unbeaten)
    for m in front:
        assert order({0: m}) == min(order({0: other}) for other in found if point(other) == point(m))


devices = st.dictionaries(st.sampled_from(["phone", "laptop"]), st.sampled_from([0.1, 0.2, 0.3]))


@settings(max_examples=50, deadline=None)
@given(measurements, st.lists(devices, min_size=25, max_size=25), devices)
def test_limits_of_several_devices(found: list[Measurement], latency: list[dict[str, float]], limits: dict[str, float]) -> None:
    found = [replace(m, kind="shared", weights_digest="w", split="search", costs=replace(m.costs, latency=known))
             for m, known in zip(found, latency, strict=False)]  # fmt: skip
    if not found:
        return
    last = {(m.architecture, m.seed): m for m in found}
    fitting = {}
    for architecture in {m.architecture for m in found}:
        by_seed = {seed: m for (a, seed), m in last.items() if a == architecture}
        used = by_seed[max(by_seed)].costs.latency
        if all(used.get(device, math.inf) <= limit for device, limit in limits.items()):
            fitting[architecture] = by_seed
    try:
        result = best(found, Budget(max_latency=limits))
    except UserError as error:
        assert "no cost is known" in str(error)
        candidates_of = {a: max(seed for b, seed in last if b == a) for a, _ in last}
        assert any(all(device not in last[key].costs.latency for key in candidates_of.items()) for device in limits)
        return
    if fitting:
        assert isinstance(result, Answer) and result.architecture == first_of(fitting)
    else:
        assert isinstance(result, NothingFits)
        if result.nearest:
            assert result.nearest.excess and all(share > 0 for share in result.nearest.excess.values())


@settings(max_examples=300, deadline=None)
@given(measurements, budgets)
def test_the_fronts_are_of_one_kind_each_and_keep_within_the_limits(found: list[Measurement], budget: Budget) -> None:
    ranked = [m for m in found if m.split == "search" and m.kind in ("shared", "finished")]
    made_of = {front.kind: front.points for front in fronts(found, "max_flops", budget)} if ranked else {}
    for kind in ("finished", "shared"):
        fitting = list(within(current(found, kind), budget).values())
        unbeaten = [order(by) for by in fitting if worth(by, by) > -math.inf and not any(beats(other, by) for other in fitting)]
        listed = made_of.get(kind, ())
        assert [c.costs.flops for c in listed] == sorted(c.costs.flops for c in listed)
        assert sorted((c.costs.flops, c.costs.parameters, -len(c.seeds), c.architecture.id) for c in listed) == sorted(unbeaten)
    answer = best(found, budget) if ranked else None
    if isinstance(answer, Answer) and math.isfinite(answer.quality):
        assert answer.architecture in [c.architecture for c in made_of[answer.kind]], "what is best is beaten by nothing"


def beats(one: dict[int, Measurement], other: dict[int, Measurement]) -> bool:
    """At no more FLOPs at least as good in the mean over the other's seeds, all of which it was measured in."""
    if one is other or not one.keys() >= other.keys() or order(one)[0] > order(other)[0]:
        return False
    return (-worth(one, other), *order(one)) < (-worth(other, other), *order(other))
