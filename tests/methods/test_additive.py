"""Exact search over additive tables against enumeration of every combination."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from math import inf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from methods import additive
from methods.additive import Chain, Found, Group, front, least, most_rows, top

few = settings(max_examples=200, deadline=None, derandomize=True)
Problem = tuple[list[Chain], list[float]]


def chain_of(rng: np.random.Generator, sizes: Sequence[int], columns: int, states: int, kinds: int) -> Chain:
    """Random tables; `kinds`: so many different numbers, eighths, so that sums are exact and the fewer the more ties; 0: any number."""

    def numbers(*shape: int) -> np.ndarray:
        return (rng.integers(0, kinds, shape) - 4) / 8 if kinds else rng.normal(1, 1, shape)

    groups = tuple(Group(rng.integers(0, states, n), numbers(n, columns), numbers(n)) for n in sizes)
    return Chain(groups, tuple(numbers(states, states, columns) for _ in sizes[1:]))


@st.composite
def problems(draw: st.DrawFn, coarse: bool = True) -> Problem:
    """One to three chains, and a limit (or none) per cost somewhere between all and nothing."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    columns, states = draw(st.integers(0, 3)), draw(st.integers(1, 3))
    sizes = st.lists(st.integers(1, 5), min_size=1, max_size=4)
    kinds = draw(st.sampled_from([2, 5, 28])) if coarse else 0
    chains = [chain_of(rng, draw(sizes), columns, states, kinds) for _ in range(draw(st.integers(1, 3)))]
    return chains, draw(st.lists(st.sampled_from([-1.5, -1.0, 1.0, 2.5, 4.0, 6.0, inf]), min_size=columns, max_size=columns))


def enumerated(chains: Sequence[Chain]) -> list[Found]:
    """Every combination, in the order of chain and rows, added up from left to right."""
    found = []
    for k, chain in enumerate(chains):
        for rows in itertools.product(*(range(len(group.scores)) for group in chain.groups)):
            picked = list(zip(chain.groups, rows, strict=True))
            score = sum(float(group.scores[row]) for group, row in picked)
            costs = sum(group.costs[row] for group, row in picked)
            states = [group.states[row] for group, row in picked]
            for link, before, after in zip(chain.links, states, states[1:], strict=False):
                costs = costs + link[before, after]
            found.append(Found(k, rows, score, tuple(costs.tolist())))
    return found


def within(found: Sequence[Found], limits: Sequence[float]) -> list[Found]:
    return [one for one in found if all(cost <= limit for cost, limit in zip(one.costs, limits, strict=True))]


@given(problems(), st.sampled_from([1, 3, 20, 1000]), st.sampled_from([1, 2, 32]))
@few
def test_top_is_what_enumeration_finds(problem: Problem, count: int, block: int) -> None:
    """With blocks of any size; every tie broken alike."""
    chains, limits = problem
    expected = sorted(within(enumerated(chains), limits), key=lambda f: (f.score, f.chain, f.rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(additive, "BLOCK", block)
        assert top(chains, limits, count) == expected[:count]


@given(problems(), st.integers(0, 2))
@few
def test_a_cost_can_take_the_place_of_the_score(problem: Problem, column: int) -> None:
    chains, limits = problem
    if column < len(limits):
        fitting = sorted(within(enumerated(chains), limits), key=lambda f: (f.costs[column], f.chain, f.rows))
        found = top(chains, limits, 5, minimise=column)
        assert [(f.chain, f.rows, f.score, f.costs) for f in found] == [(f.chain, f.rows, f.costs[column], f.costs) for f in fitting[:5]]


@given(problems(coarse=False), st.sampled_from([1, 7, 1000]))
@few
def test_rounding_changes_nothing(problem: Problem, count: int) -> None:
    """Where sums are rounded, `totals` says what a combination scores and costs, to the last bit."""
    chains, limits = problem
    rows = [np.array(list(itertools.product(*map(range, chain.sizes)))) for chain in chains]
    totals = [chain.totals(of_chain) for chain, of_chain in zip(chains, rows, strict=True)]
    everything = [
        Found(k, tuple(row.tolist()), float(total[0]), tuple(total[1:].tolist()))
        for k in range(len(chains))
        for row, total in zip(rows[k], totals[k], strict=True)
    ]
    expected = sorted(within(everything, limits), key=lambda f: (f.score, f.chain, f.rows))
    assert top(chains, limits, count) == expected[:count]
    for one, plain in zip(everything, enumerated(chains), strict=True):
        assert (one.chain, one.rows) == (plain.chain, plain.rows)
        assert [one.score, *one.costs] == pytest.approx([plain.score, *plain.costs])


def pareto(found: Sequence[Found], column: int) -> list[Found]:
    best, kept = inf, []
    for one in sorted(found, key=lambda f: (f.costs[column], f.score, f.chain, f.rows)):
        if one.score < best:
            best = one.score
            kept.append(one)
    return kept


@given(problems(), st.integers(0, 2), st.sampled_from([1, 50, 10**6]))
@few
def test_the_front_is_whole(problem: Problem, column: int, slab: int) -> None:
    chains, limits = problem
    if column < len(limits):
        expected = pareto(enumerated(chains), column)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(additive, "SLAB", slab)
            assert front(chains, column) == expected
            shorter = front(chains, column, count=3)
        assert len(shorter) == min(3, len(expected))
        assert (shorter[0], shorter[-1]) == (expected[0], expected[-1])
        assert all(one in expected for one in shorter)


@given(problems())
@few
def test_least_and_greatest_costs(problem: Problem) -> None:
    chains, limits = problem
    everything = enumerated(chains)
    costs = np.array([found.costs for found in everything]).reshape(len(everything), len(limits))
    assert least(chains).tolist() == costs.min(axis=0).tolist()
    assert (-least([chain.negated() for chain in chains])).tolist() == costs.max(axis=0).tolist()


@pytest.mark.parametrize("share", [0.05, 0.2, 0.4, 0.8, 2.0])
def test_many_blocks_and_batches(share: float) -> None:
    """160,000 combinations of correlated costs, enumerated as arrays."""
    rng = np.random.default_rng(3)
    chain = chain_of(rng, [20] * 4, 3, 3, kinds=28)
    rows = np.stack([axis.ravel() for axis in np.meshgrid(*[np.arange(20)] * 4, indexing="ij")], axis=1)
    totals = chain.totals(rows)
    low, high = totals[:, 1:].min(axis=0), totals[:, 1:].max(axis=0)
    limits = low + share * (high - low)
    fitting = np.flatnonzero((totals[:, 1:] <= limits).all(axis=1))
    expected = fitting[np.argsort(totals[fitting, 0], kind="stable")][:100]
    found = top([chain], limits, 100)
    assert [f.rows for f in found] == [tuple(row) for row in rows[expected].tolist()]
    assert len(found) == min(100, len(fitting))


def test_few_combinations_are_looked_into(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 1e8 less than a fiftieth, whether limits are tight, medium or loose."""
    looked_into = []
    inspect = additive._Join.inspect

    def counted(join: additive._Join, left: np.ndarray, right: np.ndarray, worst: float) -> tuple[np.ndarray, ...]:
        looked_into.append(len(left) * join.combinations)
        return inspect(join, left, right, worst)

    monkeypatch.setattr(additive._Join, "inspect", counted)
    rng = np.random.default_rng(0)
    size = rng.uniform(0.1, 1, (4, 100))
    costs = size[..., None] * rng.uniform(0.8, 1.2, (4, 100, 3))
    scores = (1 - size) + rng.normal(0, 0.05, (4, 100))
    groups = [Group(np.zeros(100, dtype=np.int64), costs[n], scores[n]) for n in range(4)]
    chain = Chain(tuple(groups), (np.zeros((1, 1, 3)),) * 3)
    for limit in (0.3, 0.6, 1.0, 2.0, 3.0, 9.0):
        looked_into.clear()
        assert len(top([chain], [limit] * 3, 100)) == (100 if limit > 0.4 else 0)
        assert sum(looked_into) < 2e6


def test_tables_that_do_not_fit_together_are_refused() -> None:
    state, cost, score = np.zeros(2, dtype=np.int64), np.ones((2, 1)), np.ones(2)
    with pytest.raises(ValueError, match="at least one row"):
        Group(state[:0], cost[:0], score[:0])
    with pytest.raises(ValueError, match=r"costs \(2,\)"):
        Group(state, cost[:, 0], score)
    with pytest.raises(ValueError, match="finite"):
        Group(state, cost, np.array([1.0, inf]))
    with pytest.raises(ValueError, match="link at every border, got 2 and 0"):
        Chain((Group(state, cost, score),) * 2, ())


@pytest.mark.parametrize("groups", [1, 2, 3, 4, 5])
def test_most_rows_is_where_the_search_ends(groups: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(additive, "LARGEST_HALF", 120)
    most = most_rows(groups)
    assert most == {1: 120, 2: 120, 3: 10, 4: 10, 5: 4}[groups]
    rng = np.random.default_rng(0)
    assert len(top([chain_of(rng, [most] * groups, 1, 1, kinds=28)], [inf], 1)) == 1
    with pytest.raises(ValueError, match="too many"):
        top([chain_of(rng, [most + 1] * groups, 1, 1, kinds=28)], [inf], 1)


def test_halves_too_large_to_be_listed_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(additive, "LARGEST_HALF", 24)
    chain = chain_of(np.random.default_rng(0), [5, 5, 4, 4], 1, 1, kinds=28)
    with pytest.raises(ValueError, match=r"\(5, 5, 4, 4\) rows are too many"):
        top([chain], [inf], 1)
