"""`Candidate`: one architecture with what was measured of it in all seeds; and which candidates no other beats."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, TypeVar

import numpy as np

from methods.costs import Costs
from methods.space import Architecture
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
    """Quality as it is ranked by: 12 decimals, so that means that differ by rounding alone tie; no number is the worst."""
    return -math.inf if math.isnan(quality) else round(quality, 12)


def candidates(measurements: Iterable[Measurement], kind: Kind, split: str = "search") -> list[Candidate]:
    """The architectures measured in this kind on this split, in order of first appearance.

    Hand over all of a run, in the order in which they were added: where a seed's supernet was trained again, scores of the weights
    before do not count, neither with `shared` weights nor `finished` from them; of one architecture the last measurement counts.
    """
    everything = list(measurements)
    current = _shared_of_last_weights(everything, split) if kind == "shared" else _since_last_weights(everything)
    groups: dict[Architecture, dict[int, Measurement]] = {}
    for m in current:
        if m.kind == kind and m.split == split:
            groups.setdefault(m.architecture, {})[m.seed] = m
    return [Candidate(tuple(by_seed[seed] for seed in sorted(by_seed))) for by_seed in groups.values()]


def _whose(m: Measurement) -> tuple[str, str, int]:
    return m.task, m.architecture.method, m.seed


def _shared_of_last_weights(everything: Sequence[Measurement], split: str) -> list[Measurement]:
    """With shared weights on the split: those of the supernet measured last, per task, method and seed."""
    found = [m for m in everything if m.kind == "shared" and m.split == split]
    last = {_whose(m): m.weights_digest for m in found}
    return [m for m in found if m.weights_digest == last[_whose(m)]]


def _since_last_weights(everything: Sequence[Measurement]) -> list[Measurement]:
    """Those added since the present supernet was first searched; all of them where it was trained only once."""
    digests: dict[tuple[str, str, int], dict[str, int]] = {}
    present: dict[tuple[str, str, int], str] = {}
    for i, m in enumerate(everything):
        if m.kind == "shared" and m.split == "search":
            digests.setdefault(_whose(m), {}).setdefault(m.weights_digest, i)
            present[_whose(m)] = m.weights_digest
    since = {who: first[present[who]] for who, first in digests.items() if len(first) > 1}
    return [m for i, m in enumerate(everything) if i >= since.get(_whose(m), 0)]


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


def pareto_front(scored: Iterable[S], cost: str | Callable[[Costs], float] = "flops") -> list[S]:
    """Those that no other beats, cost ascending: no other costs at most as much and is at least as good, one of the two strictly.

    `cost`: a name of `COSTS`, or a function. Of equals the one with the smallest id stays. Hand over one kind on one split.
    """
    of = COSTS[cost] if isinstance(cost, str) else cost
    items = list(scored)
    if not items:
        return []
    spent = np.array([of(item.costs) for item in items])
    quality = np.array([rankable(item.quality) for item in items])
    order = np.lexsort((np.array([item.architecture.id for item in items]), -quality, spent))
    best_before = np.concatenate(([-np.inf], np.maximum.accumulate(quality[order])[:-1]))
    return [items[i] for i in order[quality[order] > best_before]]
