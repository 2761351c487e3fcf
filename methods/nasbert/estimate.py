"""What block losses and cost tables say of all networks together, exactly and without weights (paper, section 3.4)."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from math import inf
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from methods.additive import Found, front, least, top
from methods.budget import Budget
from methods.errors import UserError
from methods.nasbert.chains import Device, cost_chains, cost_columns, costs_of_row
from methods.nasbert.losses import BlockLosses
from methods.nasbert.space import NasBertSpace
from methods.nasbert.table_space import TableSpace
from methods.recipe import Estimate
from methods.space import Architecture
from methods.tasks.head import Head

if TYPE_CHECKING:
    from methods.backbone import BackboneConfig

Floats = npt.NDArray[np.float64]
PAPER_WIDTHS = (64, 128, 256, 384, 512)
PAPER_LIMITS = (7.5e6, 22.5e6, 37.5e6, 52.5e6)
"""Up to so many parameters the found networks of the paper have these embedding widths (table 10: 5M 64, 10 to 20M 128, 25 to 35M
256, 40 to 50M 384, 55 and 60M 512; midway between)."""


class NasBertEstimates:
    """`methods.recipe.Estimates` of a block loss table.

    Costs are those of the deployed form under the dearest of `heads`, of `batch` texts of `length` tokens; latency on `devices` is
    the sum of what the parts take. Block losses cannot tell embedding widths apart, so `best` names the same blocks once:
    `searched` with the widest embedding that fits the budget. `paper` gives all the width that the paper's networks of that
    `max_params` have (without that limit the widest; with a width that the space lacks the next narrower, or else its narrowest),
    and where nothing fits with it the next narrower one.
    """

    def __init__(
        self,
        losses: BlockLosses,
        space: NasBertSpace,
        backbone: BackboneConfig,
        heads: Sequence[Head],
        length: int,
        batch: int,
        devices: Mapping[str, Device],
        embedding: Literal["paper", "searched"],
    ) -> None:
        self.length, self.batch, self.devices, self.embedding = length, batch, tuple(devices), embedding
        self._space = TableSpace(losses, space)
        self._columns = cost_columns(devices)
        chains = cost_chains(losses, space, self._space.paths, backbone, heads, length, batch, devices)
        self._places = sorted(range(len(chains)), key=lambda e: -space.embedding_sizes[e])
        self._widths = [space.embedding_sizes[e] for e in self._places]
        self._chains = [chains[e] for e in self._places]

    @property
    def space(self) -> TableSpace:
        """The networks of the table, with every embedding width of the space."""
        return self._space

    def best(self, budget: Budget, count: int = 1) -> list[Estimate]:
        """The `count` (or all there are) least sums of block losses within the budget, best first; no two have the same blocks.

        Raises UserError that names limits and smallest achievable values where nothing fits, and for a device that is not known.
        """
        if count < 1:
            raise ValueError(f"count: {count} is too few")
        limits = self._limits(budget)
        for start, stop in self._rounds(budget):
            found = top(self._chains[start:stop], limits, count * (stop - start))
            by_blocks: dict[tuple[int, ...], Estimate] = {}
            for one in found:
                by_blocks.setdefault(one.rows, self._estimate(one, start))
            if found:
                return list(by_blocks.values())[:count]
        raise UserError(self._refusal(budget, limits, self._rounds(budget)[0][0]))

    def front(self, cost: str = "max_flops", count: int | None = None) -> list[Estimate]:
        """The whole Pareto front of loss and a cost, over all embedding widths, cost ascending; at most `count` points, evenly spread.

        `cost`: the name of the limit that speaks of it.
        """
        if cost not in self._columns:
            raise UserError(f"cost: {cost!r} is unknown; there are {', '.join(self._columns)}")
        return [self._estimate(one) for one in front(self._chains, self._columns.index(cost), count)]

    def loss(self, architecture: Architecture) -> float | None:
        """The sum of its block losses; None where the table lacks a part of it."""
        estimate = self.estimate(architecture)
        return None if estimate is None else estimate.loss

    def estimate(self, architecture: Architecture) -> Estimate | None:
        """Loss and costs of one architecture; None where the table lacks a part of it."""
        if not self._space.contains(architecture):
            return None
        embedding, rows = self._space.rows(architecture)
        k = self._places.index(embedding)
        score, *costs = self._chains[k].totals(np.array([rows]))[0].tolist()
        return self._estimate(Found(k, rows, score, tuple(costs)))

    def _estimate(self, found: Found, start: int = 0) -> Estimate:
        architecture = self._space.at(self._places[start + found.chain], found.rows)
        return Estimate(architecture, found.score, costs_of_row(found.costs, self.length, self.batch, self.devices))

    def _limits(self, budget: Budget) -> Floats:
        given = budget.limits()
        unknown = [name for name in given if name not in self._columns]
        if unknown:
            raise UserError(f"budget {budget.label()}: no cost is known for {', '.join(unknown)}; there are {', '.join(self._columns)}")
        return np.array([given.get(name, inf) for name in self._columns])

    def _rounds(self, budget: Budget) -> list[tuple[int, int]]:
        """Ranges of widths, widest first, that are searched together; a later one where nothing was found before."""
        if self.embedding == "searched":
            return [(0, len(self._widths))]
        wanted = inf if budget.max_params is None else PAPER_WIDTHS[bisect_left(PAPER_LIMITS, budget.max_params)]
        first = next((k for k, width in enumerate(self._widths) if width <= wanted), len(self._widths) - 1)
        return [(k, k + 1) for k in range(first, len(self._widths))]

    def _refusal(self, budget: Budget, limits: Floats, first: int) -> str:
        """Each limit with what can be reached; where each alone can be met, what can be reached with the others kept."""
        chains = self._chains[first:]
        alone = least(chains)
        names = [k for k, limit in enumerate(limits) if limit < inf]
        missed = [k for k in names if alone[k] > limits[k]]
        said = [f"{self._columns[k]} is {self._say(k, limits[k])} and the smallest achievable {self._say(k, alone[k])}" for k in names]
        text = f"budget {budget.label()}: no network of the tables meets it: {'; '.join(said)}"
        if missed:
            return text
        reached = []
        for k in names:
            others = np.where(np.arange(len(limits)) == k, inf, limits)
            reached += [f"{self._columns[k]} {self._say(k, one.score)}" for one in top(chains, others, 1, minimise=k)]
        kept = f"; with the others kept the smallest is {', or '.join(reached)}" if reached else ""
        return f"{text}; each can be met, but not all together{kept}"

    def _say(self, column: int, value: float) -> str:
        return f"{value:.4g} s" if self._columns[column].startswith("max_latency.") else f"{value:,.0f}"
