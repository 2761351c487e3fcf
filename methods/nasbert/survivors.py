"""The paths of every block that are still trained, by size bin; and which of them is trained next."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from methods.errors import UserError
from methods.nasbert.bins import bin_of_classes, operation_costs
from methods.nasbert.options import NasBertOptions, ShrinkingOptions
from methods.nasbert.paths import Indices, Paths
from methods.nasbert.plan import epochs_of, probe_shares
from methods.nasbert.space import NasBertSpace

if TYPE_CHECKING:
    from methods.backbone import BackboneConfig

_TRIES = 100


def bins_of(options: ShrinkingOptions, space: NasBertSpace, backbone: BackboneConfig, paths: Paths) -> Indices:
    """The bin (n,) of every path of a block, -1 where the latency condition drops it (paper, section 3.3)."""
    parameters, latency = (paths.costs(table) for table in operation_costs(options, space, backbone))
    return bin_of_classes(parameters, latency, np.ones(len(paths)), options.bins, options.bin_policy, options.latency_bound)


class Survivors:
    """`alive[block][bin]`: numbers of the paths that are trained, ascending. `probes[block]`: paths that are set apart.

    Probes are stratified by bin, at most a tenth of each, the same in every run of a space and seed; they are never trained, ranked
    or chosen, so that what is measured on them was never selected for.
    """

    def __init__(self, paths: Paths, bin_of: Indices, bins: int, blocks: int, probes: int = 0) -> None:
        self.paths, self.bin_of, self.bins = paths, bin_of, bins
        self.probes = [self._probes(block, -(-probes // blocks)) for block in range(blocks)]
        everything = np.arange(len(paths))
        self.alive: list[list[Indices]] = []
        for block in range(blocks):
            apart = np.isin(everything, self.probes[block])
            self.alive.append([everything[(bin_of == b) & ~apart] for b in range(bins)])

    def _probes(self, block: int, count: int) -> Indices:
        rng = np.random.default_rng((block, count))
        places = [np.flatnonzero(self.bin_of == b) for b in range(self.bins)]
        shares = probe_shares([len(place) for place in places], count, 1)
        drawn = [rng.choice(place, share, replace=False) for place, share in zip(places, shares, strict=True) if share]
        return np.sort(np.concatenate([np.zeros(0, np.int64), *drawn]))

    def at_start(self, block: int) -> list[int]:
        """Paths of each bin before anything was dropped."""
        apart = self.bin_of[self.probes[block]]
        return [int((self.bin_of == b).sum() - (apart == b).sum()) for b in range(self.bins)]

    def count(self, block: int) -> list[int]:
        """Paths alive in each bin."""
        return [len(numbers) for numbers in self.alive[block]]

    def contains(self, block: int, number: int) -> bool:
        place = self.bin_of[number]
        if place < 0:
            return False
        numbers = self.alive[block][place]
        at = int(np.searchsorted(numbers, number))
        return at < len(numbers) and numbers[at] == number

    def all_of(self, block: int) -> Indices:
        """Every path alive in a block, ascending."""
        return np.sort(np.concatenate(self.alive[block]))

    def state(self) -> list[list[list[int]]]:
        """Plain data for a checkpoint."""
        return [[numbers.tolist() for numbers in block] for block in self.alive]

    def restore(self, state: Sequence[Sequence[Sequence[int]]]) -> None:
        self.alive = [[np.array(numbers, dtype=np.int64) for numbers in block] for block in state]


def draw(survivors: Survivors, block: int, options: NasBertOptions, rng: random.Random, before: int | None) -> int:
    """The number of the path to train next. `before`: the block's path of the step before, for `gradual`."""
    o = options.supernet
    if o.sampler == "gradual" and before is not None:
        for _ in range(_TRIES):
            number = _changed(survivors.paths, before, o.gradual_changes, rng)
            if number != before and survivors.contains(block, number):
                return number
    filled = [numbers for numbers in survivors.alive[block] if len(numbers)]
    if not filled:
        raise UserError(
            f"nasbert: no path of block {block + 1} is left to be trained; widen shrinking.latency_bound or lower shrinking.bins"
        )
    chosen = survivors.all_of(block) if o.sampler == "paths" else rng.choice(filled)
    return int(chosen[rng.randrange(len(chosen))])


def _changed(paths: Paths, number: int, changes: int, rng: random.Random) -> int:
    """A path that differs in at most so many moves: another width, another operation, one appended or removed."""
    hidden, names = paths[number]
    operations = list(names)
    for _ in range(changes):
        moves = ["hidden"] * (len(paths.sizes) > 1) + ["change"]
        moves += ["append"] * (len(operations) < paths.per_block) + ["remove"] * (len(operations) > 1)
        move = rng.choice(moves)
        if move == "hidden":
            hidden = rng.choice(paths.sizes)
        elif move == "change":
            operations[rng.randrange(len(operations))] = rng.choice(paths.names)
        elif move == "append":
            operations.append(rng.choice(paths.names))
        else:
            operations.pop()
    return paths.number(hidden, operations)


def check_bins(options: NasBertOptions, occupancy: Sequence[int]) -> None:
    """Raises UserError where bins of so many paths leave nothing to train, or no step to train it in."""
    if not any(occupancy):
        raise UserError(
            f"nasbert: shrinking.latency_bound: {options.shrinking.latency_bound} drops every path of a block; write upper or none"
        )
    if not epochs_of(options, list(occupancy)):
        raise UserError(
            f"nasbert: supernet.warmup_epochs: 0 makes no training step, for shrinking.kept: {options.shrinking.kept} drops nothing"
            f" (the fullest of {options.shrinking.bins} bins has {max(occupancy)} paths); write supernet.warmup_epochs: 1 or more,"
            " or a number of supernet.epochs"
        )


def as_data(survivors: Survivors) -> dict[str, Any]:
    """What is left, readable by people: per block and bin the operations of each path."""
    named = [[[survivors.paths[int(i)] for i in numbers] for numbers in block] for block in survivors.alive]
    return {"blocks": [[[f"{h}:{'.'.join(ops)}" for h, ops in numbers] for numbers in block] for block in named]}
