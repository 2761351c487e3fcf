"""`Candidate`: one architecture with what was measured of it in all seeds; and which candidates no other beats."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from methods.costs import Costs
from methods.space import Architecture
from search.columns import Columns, ranks
from search.columns import rankable as ranked
from search.measurement import Kind, Measurement


@dataclass(frozen=True)
class Candidate:
    """One architecture in one kind on one split; `measurements`: one per seed, seeds ascending."""

    measurements: tuple[Measurement, ...]

    @property
    def architecture(self) -> Architecture:
        return self.measurements[0].architecture

    @property
    def costs(self) -> Costs:
        return self.measurements[-1].costs

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(m.seed for m in self.measurements)

    @cached_property
    def metrics(self) -> dict[str, float]:
        """Mean over seeds of every metric that all seeds have."""
        names = [name for name in self.measurements[0].metrics if all(name in m.metrics for m in self.measurements)]
        return {name: _mean([m.metrics[name] for m in self.measurements]) for name in names}

    @cached_property
    def quality(self) -> float:
        """Mean over seeds of the main metric."""
        return _mean([m.quality for m in self.measurements])

    @property
    def spread(self) -> float:
        """Standard deviation of the main metric over seeds (n - 1); 0 for one seed."""
        n = len(self.measurements)
        return math.sqrt(math.fsum((m.quality - self.quality) ** 2 for m in self.measurements) / (n - 1)) if n > 1 else 0.0

    @property
    def best_seed(self) -> int:
        """The seed with the highest quality; the lowest such seed."""
        return max(self.measurements, key=lambda m: (rankable(m.quality), -m.seed)).seed


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def rankable(quality: float) -> float:
    """Quality as it is ranked by: 12 decimals, so that means that differ by rounding alone tie; what is no finite number is the worst."""
    return round(quality, 12) if math.isfinite(quality) else -math.inf


def candidates(measurements: Iterable[Measurement], kind: Kind, split: str = "search") -> list[Candidate]:
    """The architectures measured in this kind on this split, in order of first appearance.

    Hand over all of a run, in the order in which they were added: what was measured of a supernet that was trained again since does not
    count (`Columns.current`); of one architecture and seed the last measurement counts.
    """
    found = list(measurements)
    groups = Columns.of(found).groups(kind, split)
    gathered = (Candidate(tuple(found[row] for row in groups.rows_of(place))) for place in range(len(groups)))
    first = {architecture: place for place, architecture in reversed(list(enumerate(m.architecture for m in found)))}
    return sorted(gathered, key=lambda candidate: first[candidate.architecture])


class Scored(Protocol):
    """What a front is made of: a `Measurement` or a `Candidate`."""

    @property
    def architecture(self) -> Architecture: ...
    @property
    def costs(self) -> Costs: ...
    @property
    def quality(self) -> float: ...


S = TypeVar("S", bound=Scored)
COSTS: dict[str, Callable[[Costs], float]] = {
    "flops": lambda costs: costs.flops,
    "parameters": lambda costs: costs.parameters,
    "other_parameters": lambda costs: costs.other_parameters,
    "embedding_parameters": lambda costs: costs.embedding_parameters,
}


class Front(list[S]):
    """A list that shows itself as a table in a notebook."""

    def _repr_html_(self) -> str:
        from methods.showing import grid

        rows = [(s.architecture.method, s.architecture.id[:8], s.quality, s.costs.flops, s.costs.parameters) for s in self]
        return grid(f"front of {len(self)}", ("method", "architecture", "quality", "FLOPs", "parameters"), rows)


def pareto_front(scored: Iterable[S], cost: str | Callable[[Costs], float] = "flops") -> Front[S]:
    """Those that no other beats, cost ascending: no other costs at most as much and is at least as good, one of the two strictly.

    `cost`: a name of `COSTS`, or a function. Candidates are compared on common seeds (`unbeaten_on_common_seeds`). Of equals the one of
    fewer FLOPs stays, then of fewer parameters, more seeds, the smaller id. Hand over one kind on one split.
    """
    of = COSTS[cost] if isinstance(cost, str) else cost
    items = list(scored)
    spent = np.array([of(item.costs) for item in items], dtype=np.float64)
    scores = [{m.seed: m.quality for m in item.measurements} if isinstance(item, Candidate) else {0: item.quality} for item in items]
    seeds = sorted({seed for by_seed in scores for seed in by_seed})
    quality = np.array([[by_seed.get(seed, 0.0) for seed in seeds] for by_seed in scores]).reshape(len(items), len(seeds))
    measured = np.array([[seed in by_seed for seed in seeds] for by_seed in scores], dtype=bool).reshape(len(items), len(seeds))
    used = [np.array([getattr(item.costs, name) for item in items]) for name in ("flops", "parameters")]
    order = ranks(*used, -measured.sum(axis=1), np.array([item.architecture.id for item in items], dtype=np.str_))
    return Front(items[i] for i in unbeaten_on_common_seeds(spent, quality, measured, order))


def unbeaten(spent: npt.NDArray[Any], quality: npt.NDArray[Any], ids: npt.NDArray[Any]) -> npt.NDArray[np.intp]:
    """Places (of n) of the front, cost ascending; arrays of shape (n,): cost, quality, and what orders equals."""
    order = np.lexsort((ids, -quality, spent))
    best_before = np.concatenate(([-np.inf], np.maximum.accumulate(quality[order])))[: len(order)]
    return order[quality[order] > best_before]


def unbeaten_on_common_seeds(
    spent: npt.NDArray[Any], quality: npt.NDArray[Any], measured: npt.NDArray[Any], order: npt.NDArray[Any]
) -> npt.NDArray[np.intp]:
    """`unbeaten` where not all n were measured in the same of s seeds: `quality` (n, s) is looked at where `measured` (n, s) says so.

    One beats another only where it was measured in all of the other's seeds, and their means over these are compared: one lucky seed does
    not beat a mean over several. Of equals the first in `order` (n,) stays.
    """
    sets, which = np.unique(np.packbits(measured, axis=1), axis=0, return_inverse=True)
    found = []
    for number in range(len(sets)):
        mine = which.ravel() == number
        seeds = measured[np.argmax(mine)]
        rivals = np.flatnonzero(measured[:, seeds].all(axis=1))
        means = ranked(quality[rivals][:, seeds].mean(axis=1))
        front = rivals[unbeaten(spent[rivals], means, order[rivals])]
        found.append(front[mine[front]])
    places = np.concatenate(found) if found else np.zeros(0, dtype=np.intp)
    return places[np.lexsort((order[places], spent[places]))]
