"""Exact search over additive tables: one row of every group is chosen, and scores and costs add up along the chain.

Knows no method. A chain of groups is cut in the middle and each half is listed (1e4 rows for two groups of 100); combinations of
the halves never are. Each half is parted into blocks of rows alike in score and costs. What a pair of blocks has of least score and
costs bounds all its combinations from below: pairs that break a limit are left out, the others are looked into by ascending bound
until the bound exceeds the worst score that still counts. Rounded sums are monotone in their terms, so bounds hold to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import inf, prod

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

BLOCK = 32
"""Rows of a block; more where a half is so large that it would have more than `MOST_BLOCKS`."""
MOST_BLOCKS = 512
SLAB = 1_000_000
"""Combinations that are looked at in one go."""
LARGEST_HALF = 10_000_000


def most_rows(groups: int) -> int:
    """So many rows may each of so many groups have at most, all alike, for their chain to be searched exactly."""
    half = -(-groups // 2)
    rows = round(float(LARGEST_HALF ** (1 / half)))
    return rows if prod([rows] * half) <= LARGEST_HALF else rows - 1


@dataclass(frozen=True, eq=False)
class Group:
    """Rows to choose one from: `states` (n,), on which costs between neighbouring groups may depend, `costs` (n, c) and `scores` (n,).

    Integers are exact below 2^53.
    """

    states: Ints
    costs: Floats
    scores: Floats

    def __post_init__(self) -> None:
        n = len(self.scores)
        if not n or self.scores.shape != (n,) or self.states.shape != (n,) or self.costs.ndim != 2 or len(self.costs) != n:
            shapes = f"states {self.states.shape}, costs {self.costs.shape}, scores {self.scores.shape}"
            raise ValueError(f"a group has at least one row, states (n,), costs (n, c) and scores (n,), got {shapes}")
        if not (np.isfinite(self.scores).all() and np.isfinite(self.costs).all()):
            raise ValueError("scores and costs are finite numbers")


@dataclass(frozen=True, eq=False)
class Chain:
    """Groups in their order, and per border the costs between them: `links` (states before, states after, c)."""

    groups: tuple[Group, ...]
    links: tuple[Floats, ...]

    def __post_init__(self) -> None:
        if not self.groups or len(self.links) != len(self.groups) - 1:
            raise ValueError(f"a chain has at least one group and a link at every border, got {len(self.groups)} and {len(self.links)}")

    @property
    def sizes(self) -> tuple[int, ...]:
        """The number of rows of each group."""
        return tuple(len(group.scores) for group in self.groups)

    @property
    def columns(self) -> int:
        """The number of costs."""
        return int(self.groups[0].costs.shape[1])

    def negated(self) -> Chain:
        """The chain with every cost turned round: its least costs are the greatest of this one."""
        return Chain(tuple(replace(g, costs=-g.costs) for g in self.groups), tuple(-link for link in self.links))

    def totals(self, rows: Ints) -> Floats:
        """Score and costs (n, 1 + c) of combinations (n, groups), added up as the search does: halves first."""
        halves = []
        for part in (range(self.middle), range(self.middle, len(self.groups))):
            total = np.zeros((len(rows), 1 + self.columns))
            for place, k in enumerate(part):
                step = self._step(k, rows) if place else 0.0
                total = total + step + self._values[k][rows[:, k]]
            halves.append(total)
        border = self._step(self.middle, rows) if self.middle < len(self.groups) else 0.0
        return np.asarray(halves[0] + border + halves[1])

    def _step(self, k: int, rows: Ints) -> Floats:
        """What stands between the groups k - 1 and k: (n, 1 + c)."""
        return self._links[k - 1][self.groups[k - 1].states[rows[:, k - 1]], self.groups[k].states[rows[:, k]]]

    @cached_property
    def middle(self) -> int:
        """So many groups make up the first half; both halves have as few combinations as can be."""
        return min(range(1, len(self.groups) + 1), key=lambda k: max(prod(self.sizes[:k]), prod(self.sizes[k:])))

    @cached_property
    def _values(self) -> list[Floats]:
        return [np.column_stack([group.scores, group.costs]) for group in self.groups]

    @cached_property
    def _links(self) -> list[Floats]:
        return [np.concatenate([np.zeros((*link.shape[:2], 1)), link], axis=2) for link in self.links]

    def _half(self, start: int, stop: int) -> tuple[Floats, Ints, Ints]:
        """All combinations of some groups, in lexicographic order: score and costs (n, 1 + c), states of the first and last group."""
        if start == stop:
            return np.zeros((1, 1 + self.columns)), np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64)
        if prod(self.sizes[start:stop]) > LARGEST_HALF:
            raise ValueError(f"groups of {self.sizes} rows are too many to be searched exactly")
        values, last = self._values[start], self.groups[start].states
        for k in range(start + 1, stop):
            states = self.groups[k].states
            values = (values[:, None] + self._links[k - 1][last][:, states] + self._values[k]).reshape(-1, 1 + self.columns)
            last = np.tile(states, len(last))
        return values, np.repeat(self.groups[start].states, len(values) // self.sizes[start]), last

    def halves(self) -> tuple[Floats, Ints, Floats, Ints, Floats]:
        """The halves: score and costs (n, 1 + c) with the states at the border (n,), twice; and the costs of the border."""
        left, _, before = self._half(0, self.middle)
        right, after, _ = self._half(self.middle, len(self.groups))
        whole = self.middle == len(self.groups)
        border = np.zeros((int(before.max()) + 1, 1, 1 + self.columns)) if whole else self._links[self.middle - 1]
        return left, before, right, after, border

    def rows(self, left: int, right: int) -> tuple[int, ...]:
        """The rows of a combination, given by its places in the two halves."""
        parts = ((left, self.sizes[: self.middle]), (right, self.sizes[self.middle :]))
        return tuple(int(row) for place, sizes in parts if sizes for row in np.unravel_index(place, sizes))


@dataclass(frozen=True)
class Found:
    """A combination: the place of its chain, a row of every group, its score (or what was minimised) and its costs."""

    chain: int
    rows: tuple[int, ...]
    score: float
    costs: tuple[float, ...]


def top(chains: Sequence[Chain], limits: Sequence[float] | Floats, count: int, minimise: int | None = None) -> list[Found]:
    """The `count` (or all there are) least scores among the combinations of all chains that meet every limit (c,), inf for none.

    Ordered by score, chain and rows. `minimise`: the column of a cost that takes the place of the score. Exact.
    """
    bounds = np.asarray(limits, dtype=np.float64)
    limited = np.flatnonzero(bounds < inf)
    columns = [0 if minimise is None else 1 + minimise, *(1 + limited).tolist()]
    joins = [_Join(chain, columns, bounds[limited]) for chain in chains]
    pairs = [join.pairs() for join in joins]
    bound = np.concatenate([bound for bound, _, _ in pairs])
    left, right = (np.concatenate([pair[k] for pair in pairs]) for k in (1, 2))
    whose = np.repeat(np.arange(len(pairs)), [len(pair[0]) for pair in pairs])
    order = np.argsort(bound, kind="stable")
    best = _Best(count)
    for some in _batches(order, max(join.combinations for join in joins)):
        inside = some[bound[some] <= best.worst]
        for k in np.unique(whose[inside]).tolist():
            of_chain = inside[whose[inside] == k]
            best.add(k, *joins[k].inspect(left[of_chain], right[of_chain], best.worst))
        if len(inside) < len(some):
            break
    return [_found(chains, k, i, j, minimise) for k, i, j in best.places()]


def _batches(order: Ints, combinations: int) -> Iterator[Ints]:
    """Pairs of blocks in their order, few at first: the sooner a worst score is known, the fewer need to be looked into."""
    start, step, most = 0, 1, max(1, SLAB // combinations)
    while start < len(order):
        yield order[start : start + step]
        start, step = start + step, min(2 * step, most)


class _Best:
    """The least so far: (score, chain, place in the left half, place in the right half)."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.scores: Floats = np.empty(0)
        self.keys: Ints = np.empty((3, 0), dtype=np.int64)

    @property
    def worst(self) -> float:
        """A score above it no longer counts."""
        return float(self.scores[-1]) if 0 < self.count <= len(self.scores) else inf

    def add(self, chain: int, scores: Floats, left: Ints, right: Ints) -> None:
        scores = np.concatenate([self.scores, scores])
        keys = np.concatenate([self.keys, np.stack([np.full_like(left, chain), left, right])], axis=1)
        order = np.lexsort((keys[2], keys[1], keys[0], scores))[: self.count]
        self.scores, self.keys = scores[order], keys[:, order]

    def places(self) -> list[list[int]]:
        places: list[list[int]] = self.keys.T.tolist()
        return places


class _Join:
    """The two halves of a chain in blocks. `columns`: what is minimised, then what is limited."""

    def __init__(self, chain: Chain, columns: list[int], limits: Floats) -> None:
        left, before, right, after, border = chain.halves()
        self.left, self.right = _Blocks(left[:, columns], before), _Blocks(right[:, columns], after)
        self.border, self.limits = border[:, :, columns], limits

    @property
    def combinations(self) -> int:
        """So many combinations has a pair of blocks at most."""
        return self.left.members.shape[1] * self.right.members.shape[1]

    def pairs(self) -> tuple[Floats, Ints, Ints]:
        """Pairs of blocks that may meet the limits: the least that a combination can score, and the numbers of the blocks."""
        between = self.border[self.left.states][:, self.right.states]
        least = self.left.least[:, None] + between + self.right.least
        left, right = np.nonzero((least[..., 1:] <= self.limits).all(axis=2))
        return least[left, right, 0], left, right

    def inspect(self, left: Ints, right: Ints, worst: float) -> tuple[Floats, Ints, Ints]:
        """Of these pairs of blocks all combinations within the limits: scores up to `worst`, and the places in the halves."""
        i, j = self.left.members[left], self.right.members[right]
        a = self.left.values[i] + self.border[self.left.states[left], self.right.states[right]][:, None]
        b = self.right.values[j]
        scores = a[:, :, None, 0] + b[:, None, :, 0]
        fits = scores <= worst
        for k, limit in enumerate(self.limits, start=1):
            fits &= a[:, :, None, k] + b[:, None, :, k] <= limit
        pair, x, y = np.nonzero(fits)
        return scores[fits], i[pair, x], j[pair, y]


class _Blocks:
    """Rows of one state, alike in every column: `members` (blocks, rows; -1 beyond the last), `states` (blocks,), `least` (blocks, c).

    The last row of `values`, where -1 points, is no number and so within no limit.
    """

    def __init__(self, values: Floats, states: Ints) -> None:
        size = max(BLOCK, -(-len(values) // MOST_BLOCKS))
        spread = np.ptp(values, axis=0)
        scaled = values / np.where(spread > 0, spread, 1)
        parts = [part for state in np.unique(states) for part in _part(np.flatnonzero(states == state), scaled, size)]
        self.members = np.full((len(parts), max(map(len, parts))), -1)
        for place, part in enumerate(parts):
            self.members[place, : len(part)] = part
        self.states = np.array([states[part[0]] for part in parts])
        self.least = np.array([values[part].min(axis=0) for part in parts])
        self.values = np.concatenate([values, np.full((1, values.shape[1]), np.nan)])


def _part(rows: Ints, scaled: Floats, size: int) -> list[Ints]:
    """Halves rows along the column in which they differ most until at most `size` are left in each part."""
    if len(rows) <= size:
        return [rows]
    column = scaled[rows, np.ptp(scaled[rows], axis=0).argmax()]
    order, half = np.argpartition(column, len(rows) // 2), len(rows) // 2
    return [*_part(rows[order[:half]], scaled, size), *_part(rows[order[half:]], scaled, size)]


def front(chains: Sequence[Chain], column: int, count: int | None = None, minimise: int | None = None) -> list[Found]:
    """The whole Pareto front of score and one cost over the combinations of all chains, cost ascending. Exact.

    Of combinations with equal score and cost the first stays. `count`: at most so many, evenly spread along the front, its ends among
    them. `minimise`: the column of a cost that takes the place of the score.
    """
    columns = [0 if minimise is None else 1 + minimise, 1 + column]
    points, places = np.empty((0, 2)), np.empty((0, 3), dtype=np.int64)
    for k, chain in enumerate(chains):
        left, before, right, after, border = chain.halves()
        i, j = _undominated_by_state(left[:, columns], before), _undominated_by_state(right[:, columns], after)
        slab = max(1, SLAB // len(j))
        for some in (i[start : start + slab] for start in range(0, len(i), slab)):
            joined = left[some][:, None, columns] + border[before[some]][:, after[j]][..., columns] + right[j][:, columns]
            points = np.concatenate([points, joined.reshape(-1, 2)])
            pairs = np.stack([np.full(len(some) * len(j), k), np.repeat(some, len(j)), np.tile(j, len(some))], axis=1)
            places = np.concatenate([places, pairs])
            kept = _undominated(points)
            points, places = points[kept], places[kept]
    if count is not None and count < len(places):
        places = places[np.unique(np.linspace(0, len(places) - 1, count).round().astype(np.int64))]
    return [_found(chains, k, i, j, minimise) for k, i, j in places.tolist()]


def _undominated_by_state(points: Floats, states: Ints) -> Ints:
    groups = (np.flatnonzero(states == state) for state in np.unique(states))
    return np.sort(np.concatenate([rows[_undominated(points[rows])] for rows in groups]))


def _undominated(points: Floats) -> Ints:
    """The (score, cost) that no other undercuts, cost ascending; of equal ones the first."""
    order = np.lexsort((points[:, 0], points[:, 1]))
    scores = points[order, 0]
    before = np.concatenate(([inf], np.minimum.accumulate(scores)[:-1]))
    return np.asarray(order[scores < before], dtype=np.int64)


def least(chains: Sequence[Chain]) -> Floats:
    """The smallest achievable value of each cost (c,), each on its own."""
    return np.array([front(chains, column, minimise=column)[0].score for column in range(chains[0].columns)])


def _found(chains: Sequence[Chain], k: int, left: int, right: int, minimise: int | None) -> Found:
    rows = chains[k].rows(left, right)
    score, *costs = chains[k].totals(np.array([rows]))[0].tolist()
    return Found(k, rows, score if minimise is None else costs[minimise], tuple(costs))
