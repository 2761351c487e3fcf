"""The paths of a block counted by cost, and the size bins of progressive shrinking (paper, section 3.3).

A path's costs depend only on its width and on how often each operation occurs, so a block of 97,650 paths has 2,305 classes of equal
cost, and spaces far too large to list are counted exactly.

Bins depend on costs alone, so that classes fall into the bins of their paths.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations_with_replacement
from math import ceil, factorial, prod
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from methods.errors import UserError
from methods.nasbert.networks import operation
from methods.nasbert.options import BinPolicy, LatencyBound, ShrinkingOptions
from methods.nasbert.space import NasBertSpace
from methods.nasbert.tables import Table
from methods.tasks.head import Head

if TYPE_CHECKING:
    from methods.backbone import BackboneConfig

BIN_LENGTH = 128
"""Where FLOPs stand for latency, they are those of so many tokens."""
NANOSECONDS = 1_000_000_000


@dataclass(frozen=True)
class PathClasses:
    """m classes of equally costly paths: place of the hidden size (m,), occurrences of each operation (m, o), and how many paths
    a class has (m,), as floats that are exact below 2^53."""

    hidden: npt.NDArray[np.int64]
    occurrences: npt.NDArray[np.int64]
    paths: npt.NDArray[np.float64]

    def costs(self, operation_table: Table) -> Table:
        """Sum of a cost of operations, given as table (hidden, o), over each class's path: (m,)."""
        return np.asarray((operation_table[self.hidden] * self.occurrences).sum(axis=1), dtype=np.int64)


def path_classes(space: NasBertSpace) -> PathClasses:
    """All paths of one block, identities (which may only end it) left out."""
    kinds = len(space.operations)
    occurrences, paths = [], []
    for length in range(1, space.per_block + 1):
        for chosen in combinations_with_replacement(range(kinds), length):
            counts = [chosen.count(kind) for kind in range(kinds)]
            occurrences.append(counts)
            paths.append(factorial(length) // prod(factorial(c) for c in counts))
    sizes = len(space.hidden_sizes)
    return PathClasses(
        hidden=np.repeat(np.arange(sizes), len(paths)),
        occurrences=np.tile(np.array(occurrences, dtype=np.int64), (sizes, 1)),
        paths=np.tile(np.array(paths, dtype=np.float64), sizes),
    )


def operation_costs(options: ShrinkingOptions, space: NasBertSpace, backbone: BackboneConfig) -> tuple[Table, Table]:
    """Parameters and latency of each operation, each (hidden sizes, operations + identity): nanoseconds of the table that the options
    name, else FLOPs. Raises UserError where that table can't be read or lacks an operation."""
    table = space.tables(backbone, Head("mlm"), BIN_LENGTH).operation
    return table[..., 1], table[..., 2] if options.latency is None else _measured(options.latency, space, backbone)


def _measured(path: str, space: NasBertSpace, backbone: BackboneConfig) -> Table:
    from methods.latency import LatencyTable

    eps, settings = backbone.layer_norm_eps, space.settings
    try:
        device = LatencyTable.load(path)
        rows = [[device.part(operation(name, h, eps, settings)) for name in space.operations] + [0.0] for h in space.hidden_sizes]
    except UserError as error:
        raise UserError(f"nasbert: shrinking.latency: {error}") from error
    return np.asarray(np.rint(np.array(rows) * NANOSECONDS), dtype=np.int64)


def bin_of_classes(
    parameters: Table, latency: Table, paths: npt.NDArray[np.float64], bins: int, policy: BinPolicy, bound: LatencyBound
) -> npt.NDArray[np.int64]:
    """The bin (from 0) of each class, -1 where the latency condition drops it.

    `equal_width`: bin b holds parameters in (b/B, (b+1)/B] of the largest path's (half-open, or that path itself would have no bin).
    `upper`: latency may not exceed the bin's share of the slowest path's latency; `both`: it must fall in the same share (the paper,
    literally). `quantile` says the same of ranks: of the share of paths that are as large or smaller, as slow or faster. Its bins
    have about equally many paths before any is dropped; equally large paths are never parted.
    """
    if policy == "quantile":
        parameters, latency = _rank(parameters, paths), _rank(latency, paths)
    place, share = _share(parameters, bins), _share(latency, bins)
    kept = {"upper": share <= place, "both": share == place, "none": np.ones_like(place, dtype=bool)}[bound]
    return np.where(kept, place, -1)


def _rank(values: Table, paths: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """How many paths have at most each value (m,)."""
    distinct, place = np.unique(values, return_inverse=True)
    return np.asarray(np.cumsum(np.bincount(place, weights=paths, minlength=len(distinct)))[place], dtype=np.int64)


def _share(values: Table, bins: int) -> npt.NDArray[np.int64]:
    """ceil(B value / largest) - 1, in integers."""
    return np.asarray(-(-values * bins // values.max()) - 1, dtype=np.int64)


@dataclass(frozen=True)
class Shrinking:
    """What shrinking one block will take: rounds, path evaluations over all of them, and the paths left at the end."""

    rounds: int
    evaluations: int
    kept: int


def foresee_shrinking(occupancy: list[int], kept: int, sample: int, drop_fraction: float) -> Shrinking:
    """The rounds in numbers alone: per bin `sample` paths (0: all) are ranked, a fraction of them dropped, never below `kept`."""
    rounds = evaluations = left = 0
    for paths in occupancy:
        alive, needed = paths, 0
        if sample and alive > max(sample, kept):
            step = ceil(sample * drop_fraction)
            needed = -(-(alive - max(sample, kept)) // step)
            alive = max(kept, alive - needed * step)
            evaluations += needed * sample
        while alive > kept:
            ranked = min(sample, alive) if sample else alive
            alive = max(kept, alive - ceil(ranked * drop_fraction))
            evaluations += ranked
            needed += 1
        rounds, left = max(rounds, needed), left + alive
    return Shrinking(rounds, evaluations, left)
