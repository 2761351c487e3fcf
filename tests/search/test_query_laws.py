"""The query's laws: what `best` and `fronts` say is what a plain look at every measurement says."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

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


def current(found: Sequence[Measurement], kind: Kind) -> dict[Architecture, dict[int, Measurement]]:
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


def rank(by_seed: dict[int, Measurement]) -> tuple[float, int, int, str]:
    costs = by_seed[max(by_seed)].costs
    mean = math.fsum(m.quality for m in by_seed.values()) / len(by_seed)
    return -round(mean, 12), costs.flops, costs.parameters, by_seed[max(by_seed)].architecture.id


def within(
    candidates: dict[Architecture, dict[int, Measurement]], budget: Budget, method: str
) -> dict[Architecture, dict[int, Measurement]]:
    return {a: by for a, by in candidates.items() if a.method == method and budget.met_by(by[max(by)].costs)}


def of_seed(candidates: dict[Architecture, dict[int, Measurement]], seed: int) -> dict[Architecture, dict[int, Measurement]]:
    return {a: {seed: by[seed]} for a, by in candidates.items() if seed in by}


def finished_winner(finished: Any, shared: Any, budget: Budget, method: str) -> Architecture | None:
    """What one method ships of what it finished; None where that does not stand for all."""
    mine, others = within(finished, budget, method), within(shared, budget, method)
    if not mine:
        return None
    first = min(others, key=lambda a: rank(others[a])) if others else None
    seeds = {frozenset(by) for by in mine.values()}
    if len(seeds) == 1 and (first is None or (first in mine and seeds == {frozenset(others[first])})):
        return min(mine, key=lambda a: rank(mine[a]))
    votes = []
    for seed in {seed for some in (finished, shared) for a, by in some.items() if a.method == method for seed in by}:
        its, rest = (within(of_seed(some, seed), budget, method) for some in (finished, shared))
        if rest and min(rest, key=lambda a: rank(rest[a])) not in its:
            return None
        if its:
            votes.append(min(its, key=lambda a: rank(its[a])))
    most = max((votes.count(a) for a in mine), default=0)
    named = [a for a in mine if votes.count(a) == most]
    return min(named, key=lambda a: (-len(mine[a]), *rank(mine[a]))) if most else None


def plainly(found: Sequence[Measurement], budget: Budget) -> tuple[str, Kind] | None:
    """The winner's id and kind by one loop after another over everything."""
    finished, shared = current(found, "finished"), current(found, "shared")
    there = {a.method for some in (finished, shared) for a in some if within(some, budget, a.method).get(a)}
    winners = [finished_winner(finished, shared, budget, method) for method in there]
    if not winners:
        return None
    if None not in winners:
        return min(rank(finished[a]) for a in winners if a)[-1], "finished"
    return min(rank(by) for a, by in shared.items() if within({a: by}, budget, a.method))[-1], "shared"


widths = st.integers(1, 6)
measurements = st.lists(
    st.builds(
        lambda width, flops, **facts: made(width, costs=Costs(100, 10 * (width // 2), 1000 * flops), **facts),
        width=widths,
        flops=st.integers(1, 3),
        quality=st.sampled_from([0.1, 0.2, 0.3, 0.4]),
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
tenth = [made(1, q, seed=s) for s, q in enumerate((0.1, 0.2, 0.3))] + [made(1, 0.2)]


@settings(max_examples=300, deadline=None)
@given(measurements, budgets)
@example(tenth, Budget())
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

    front = pareto_front(found, cost)
    unbeaten = {point(m) for m in found if not any(beats(other, m) for other in found)}
    assert [point(m) for m in front] == sorted(unbeaten)
    for m in front:
        assert m.architecture.id == min(other.architecture.id for other in found if point(other) == point(m))


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
        assert isinstance(result, Answer) and result.architecture.id == min(rank(by) for by in fitting.values())[-1]
    else:
        assert isinstance(result, NothingFits)
        if result.nearest:
            assert result.nearest.excess and all(share > 0 for share in result.nearest.excess.values())


@settings(max_examples=300, deadline=None)
@given(measurements, budgets)
def test_the_fronts_are_of_one_kind_each_and_keep_within_the_limits(found: list[Measurement], budget: Budget) -> None:
    for kind in ("finished", "shared"):
        kept = current(found, kind)
        fitting = [by for a, by in kept.items() if within({a: by}, budget, a.method)]
        unbeaten = [rank(by)[1:] for by in fitting if not any(beats(other, by) for other in fitting)]
        made_of = [front for front in (fronts(found, "max_flops", budget) if current(found, "finished") or current(found, "shared") else [])
                   if front.kind == kind]  # fmt: skip
        listed = [c for front in made_of for c in front.points]
        assert [c.costs.flops for c in listed] == sorted(c.costs.flops for c in listed)
        assert sorted((c.costs.flops, c.costs.parameters, c.architecture.id) for c in listed) == sorted(unbeaten)


def beats(one: dict[int, Measurement], other: dict[int, Measurement]) -> bool:
    """At no more FLOPs at least as good in the mean over the other's seeds, all of which it was measured in."""
    if one is other or not one.keys() >= other.keys():
        return False
    worth = round(math.fsum(one[seed].quality for seed in other) / len(other), 12)
    flops, (least, limit) = rank(one)[1], (-rank(other)[0], rank(other)[1])
    if flops > limit or worth < least:
        return False
    return (flops, worth) != (limit, least) or (-len(one), rank(one)[-1]) < (-len(other), rank(other)[-1])
