"""The most probable architectures under a budget, and the whole Pareto set, exactly and from one search.

Costs add up over kept edges and grow with K, so every K is a chain of `methods.additive` whose groups are the inner nodes. Of a
node's rows of equal costs only the most probable ones can be in an answer, which leaves few.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf

import numpy as np
import numpy.typing as npt

from methods.adabert.derivation import AlphaModel, Floats, per_row
from methods.adabert.space import AdaBertSpace
from methods.additive import Chain, Found, Group, front, least, top
from methods.budget import Budget
from methods.costs import Costs
from methods.errors import UserError
from methods.space import Architecture

CostOf = Callable[[Architecture], Costs]
Ints = npt.NDArray[np.int64]
_ROUNDING = 1e-9
"""Seconds do not add up exactly; limits on them are taken so much (relatively) lower."""


@dataclass(frozen=True)
class CostTable:
    """Costs of a space by what each part of an architecture adds, in the columns of `names` (the limits that speak of them).

    `base` (Kmax, c): K cells whose edges all have the first operation; `steps` (Kmax, O, c): what another operation on one edge of
    the cell adds to it.
    """

    names: tuple[str, ...]
    base: Floats
    steps: Floats

    @classmethod
    def of(cls, space: AdaBertSpace, cost_of: CostOf) -> CostTable:
        """Read off the costs of cells with one operation throughout, which say all where costs are sums over parts: parameters and
        FLOPs always, latency by a table."""
        operations, cells = space.options.operations, range(1, space.options.cells + 1)
        found = [[cost_of(space.uniform(k, name)).measured_against() for name in operations] for k in cells]
        names = tuple(found[0][0])
        values = np.array([[[costs[name] for name in names] for costs in row] for row in found], dtype=np.float64)
        edges = sum(space.kept(node) for node in range(space.options.nodes))
        return cls(names, values[:, 0], (values - values[:, :1]) / edges)

    def columns(self, names: Sequence[str]) -> CostTable:
        """These columns alone. Raises UserError for one that is not there."""
        unknown = [name for name in names if name not in self.names]
        if unknown:
            raise UserError(f"adabert: no cost is known for {', '.join(unknown)}; there are {', '.join(self.names)}")
        places = [self.names.index(name) for name in names]
        return CostTable(tuple(names), self.base[:, places], self.steps[:, :, places])


@dataclass(frozen=True)
class Derived:
    """An architecture and its log-probability under the architecture parameters, in nats."""

    architecture: Architecture
    log_probability: float


def budgeted(model: AlphaModel, budget: Budget, cost_of: CostOf, count: int = 1) -> list[Derived]:
    """The `count` (or all there are) most probable architectures that meet every limit, best first; of equal ones the first.

    Raises UserError that names each limit and the smallest achievable value where nothing meets them, and for a limit on a cost that
    `cost_of` does not know.
    """
    given = budget.limits() or {"max_flops": inf}
    table = CostTable.of(model.space, cost_of).columns(list(given))
    limits = [limit * (1 - _ROUNDING) if name.startswith("max_latency.") else limit for name, limit in given.items()]
    chains = _Chains(model, table, count)
    found = top(chains.made, np.array(limits), count)
    if not found:
        raise UserError(_refusal(budget, chains, cost_of(model.space.smallest())))
    return [chains.derived(one) for one in found]


def pareto(model: AlphaModel, cost_of: CostOf, cost: str = "max_flops", count: int | None = None) -> list[tuple[Derived, float]]:
    """The whole Pareto set of log-probability and one cost (named by the limit that speaks of it), cost ascending, with that cost.

    `count`: at most so many, evenly spread, both ends among them.
    """
    chains = _Chains(model, CostTable.of(model.space, cost_of).columns([cost]), 1)
    return [(chains.derived(one), one.costs[0]) for one in front(chains.made, 0, count)]


@dataclass(frozen=True, eq=False)
class _Chains:
    """A chain per K; `count`: so many rows of equal costs are kept in each group."""

    model: AlphaModel
    table: CostTable
    count: int

    @cached_property
    def rows(self) -> list[list[Ints]]:
        """Per K and node the rows that are kept."""
        return [[_thinned(costs, logs, self.count) for costs, logs in zip(each, self.model.nodes, strict=True)] for each in self._costs]

    @cached_property
    def _costs(self) -> list[list[Floats]]:
        """Per K and node what each row adds to the cost."""
        found = []
        for steps in self.table.steps:
            nodes = [np.broadcast_to(steps, (n + 2, *steps.shape)) for n in range(self.model.space.options.nodes)]
            found.append([per_row(self.model.sets(n), values) for n, values in enumerate(nodes)])
        return found

    @cached_property
    def made(self) -> list[Chain]:
        link = np.zeros((1, 1, len(self.table.names)))
        chains = []
        for k, (costs, kept) in enumerate(zip(self._costs, self.rows, strict=True)):
            groups = []
            for n, (each, rows) in enumerate(zip(costs, kept, strict=True)):
                first = (self.table.base[k], -self.model.depth[k]) if n == 0 else (0.0, 0.0)
                groups.append(Group(np.zeros(len(rows), dtype=np.int64), each[rows] + first[0], first[1] - self.model.nodes[n][rows]))
            chains.append(Chain(tuple(groups), (link,) * (len(groups) - 1)))
        return chains

    def derived(self, found: Found) -> Derived:
        rows = [int(kept[row]) for kept, row in zip(self.rows[found.chain], found.rows, strict=True)]
        return Derived(self.model.architecture(found.chain + 1, rows), -found.score)


def _thinned(costs: Floats, logs: Floats, count: int) -> Ints:
    """Of the rows of equal costs the `count` most probable ones (of equal ones the first), in their order."""
    alike = np.unique(costs, axis=0, return_inverse=True)[1].reshape(-1)
    order = np.lexsort((np.arange(len(logs)), -logs, alike))
    starts = np.r_[True, np.diff(alike[order]) != 0]
    place = np.arange(len(order)) - np.maximum.accumulate(np.where(starts, np.arange(len(order)), 0))
    return np.asarray(np.sort(order[place < count]))


def _refusal(budget: Budget, chains: _Chains, smallest: Costs) -> str:
    """Each limit with the smallest value that can be reached."""
    reached = dict(zip(chains.table.names, least(chains.made).tolist(), strict=True))
    limits = budget.limits()
    said = [f"{name} is {_amount(name, v)} and the smallest achievable {_amount(name, reached[name])}" for name, v in limits.items()]
    if "max_params" in limits:
        said.append(f"its embedding tables alone hold {smallest.embedding_parameters:,} parameters")
    together = "" if any(reached[name] > limit for name, limit in limits.items()) else "; each can be met, but not all together"
    return f"budget {budget.label()}: no architecture of adabert meets it: {'; '.join(said)}{together}"


def _amount(name: str, value: float) -> str:
    return f"{value:.4g} s" if name.startswith("max_latency.") and value < inf else f"{value:,.0f}"
