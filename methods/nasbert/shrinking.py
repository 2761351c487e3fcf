"""Progressive shrinking: which paths of a block are dropped at the end of an epoch (paper, section 3.3; its ablation in section 4.4)."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
import numpy.typing as npt

from methods.nasbert.options import ShrinkingOptions
from methods.nasbert.paths import Indices
from methods.nasbert.survivors import Survivors

Losses = Callable[[Indices], npt.NDArray[np.float64]]
"""Held-out losses (n,) of paths of the block at hand."""


@dataclass(frozen=True)
class Round:
    """What one bin went through at the end of an epoch: paths alive afterwards, losses of those ranked (NaN where none was)."""

    bin: int
    alive: int
    ranked: int
    best: float
    mean: float
    worst: float


def shrink(survivors: Survivors, block: int, options: ShrinkingOptions, losses: Losses, seed: str) -> list[Round]:
    """Drops paths of one block as `options.unit` says and returns what happened, bin by bin."""
    if options.unit == "none":
        return []
    ranked = [sampled(numbers, options, f"{seed}/{b}") for b, numbers in enumerate(survivors.alive[block])]
    values = losses(np.concatenate(ranked))
    per_bin = np.split(values, np.cumsum([len(numbers) for numbers in ranked])[:-1])
    if options.unit == "path":
        for b, (numbers, found) in enumerate(zip(ranked, per_bin, strict=True)):
            survivors.alive[block][b] = without_worst(survivors.alive[block][b], numbers, found, options)
    else:
        drop_operations(survivors, block, options, np.concatenate(ranked), values)
    counts = survivors.count(block)
    return [
        Round(b, counts[b], len(found), *(float(f(found)) if len(found) else float("nan") for f in (np.min, np.mean, np.max)))
        for b, found in enumerate(per_bin)
    ]


def sampled(alive: Indices, options: ShrinkingOptions, seed: str, all_of_small: bool = False) -> Indices:
    """The paths of a bin that are ranked: all of them or a sample; none where the bin is small enough, unless `all_of_small`."""
    if len(alive) <= options.kept and not all_of_small:
        return alive[:0]
    if not options.sample or len(alive) <= options.sample:
        return alive
    chosen = random.Random(seed).sample(range(len(alive)), options.sample)
    drawn: Indices = alive[np.sort(np.array(chosen))]
    return drawn


def without_worst(alive: Indices, ranked: Indices, losses: npt.NDArray[np.float64], options: ShrinkingOptions) -> Indices:
    """`alive` less the worst `drop_fraction` of the ranked ones, never below `kept`; equal losses go by the path's number."""
    if not len(ranked):
        return alive
    drop = min(ceil(len(ranked) * options.drop_fraction), len(alive) - options.kept)
    worst = ranked[np.lexsort((ranked, losses))][len(ranked) - drop :]
    kept: Indices = alive[~np.isin(alive, worst)]
    return kept


def drop_operations(survivors: Survivors, block: int, options: ShrinkingOptions, ranked: Indices, losses: npt.NDArray[np.float64]) -> None:
    """PS-op: the operations (of a width, at a position) with the largest mean loss go, until `operation_drop` of the paths are gone.

    An operation whose going would leave a bin with fewer than `kept` paths (or fewer than it has) stays.
    """
    paths, alive = survivors.paths, survivors.alive[block]
    everything = survivors.all_of(block)
    goal = len(everything) * (1 - options.operation_drop)
    for hidden, position, kind in _worst_first(survivors, ranked, losses):
        if sum(map(len, alive)) <= goal:
            return
        left = [numbers[~((paths.hidden[numbers] == hidden) & (paths.operations[numbers, position] == kind))] for numbers in alive]
        if all(len(after) >= min(options.kept, len(before)) for after, before in zip(left, alive, strict=True)):
            alive[:] = left


def _worst_first(survivors: Survivors, ranked: Indices, losses: npt.NDArray[np.float64]) -> list[tuple[int, int, int]]:
    """(place of the width, position, place of the operation) by mean loss of the ranked paths with it, largest first."""
    paths, scores = survivors.paths, {}
    for hidden in range(len(paths.sizes)):
        for position in range(paths.per_block):
            for kind in range(len(paths.names)):
                with_it = (paths.hidden[ranked] == hidden) & (paths.operations[ranked, position] == kind)
                if with_it.any():
                    scores[hidden, position, kind] = float(losses[with_it].mean())
    return sorted(scores, key=lambda key: (-scores[key], key))


def shrunk(counts: Sequence[Sequence[int]], kept: int) -> bool:
    """Whether no bin of any block holds more than `kept` paths."""
    return all(count <= kept for block in counts for count in block)
