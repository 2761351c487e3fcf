"""All paths of one block as arrays: a path is known by its number."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from methods.errors import UserError
from methods.nasbert.space import NasBertSpace
from methods.nasbert.tables import Table

Indices = npt.NDArray[np.int64]
Path = tuple[int, tuple[str, ...]]
"""Hidden size and operations, identities left out."""

MOST = 5_000_000
"""More paths in a block than this are not listed."""


def check_count(space: NasBertSpace) -> None:
    """Raises UserError where a block has too many paths to be listed."""
    count = space.paths_per_block()
    if count > MOST:
        raise UserError(
            f"nasbert: sublayers: {space.blocks * space.per_block} in {space.blocks} blocks; a block of {space.per_block} sublayers has"
            f" {count:,} paths, more than the {MOST:,} that can be ranked; choose more blocks or fewer operations"
        )


class Paths:
    """The paths of a block in canonical order: by hidden size, then length, then operations in the order of the space.

    `hidden` (n,): place of the hidden size. `operations` (n, per block): places of the operations, filled up with the identity,
    whose place is the number of operations. Raises UserError where there are too many to be listed.
    """

    def __init__(self, space: NasBertSpace) -> None:
        self.sizes, self.names, self.per_block = space.hidden_sizes, space.operations, space.per_block
        check_count(space)
        kinds, parts = len(self.names), []
        for length in range(1, self.per_block + 1):
            numbers = np.arange(kinds**length)
            digits = [(numbers // kinds ** (length - 1 - j)) % kinds for j in range(length)]
            parts.append(np.stack([*digits, *[np.full_like(numbers, kinds)] * (self.per_block - length)], axis=1))
        one_size = np.concatenate(parts)
        self.operations: Indices = np.tile(one_size, (len(self.sizes), 1))
        self.hidden: Indices = np.repeat(np.arange(len(self.sizes)), len(one_size))

    def __len__(self) -> int:
        return len(self.hidden)

    def __getitem__(self, number: int) -> Path:
        names = tuple(self.names[o] for o in self.operations[number] if o < len(self.names))
        return self.sizes[self.hidden[number]], names

    @cached_property
    def lengths(self) -> Indices:
        """How many operations each path has (n,)."""
        return np.asarray((self.operations < len(self.names)).sum(axis=1), dtype=np.int64)

    def number(self, hidden: int, operations: Sequence[str]) -> int:
        """The number of a path; ValueError where it is none of this block's."""
        kinds, length = len(self.names), len(operations)
        if not 1 <= length <= self.per_block:
            raise ValueError(f"a path has 1 to {self.per_block} operations, got {length}")
        place = 0
        for name in operations:
            place = place * kinds + self.names.index(name)
        before = sum(int(kinds**k) for k in range(1, length))
        return self.sizes.index(hidden) * (len(self) // len(self.sizes)) + before + place

    def costs(self, operation_table: Table) -> Table:
        """A cost of operations, given as table (hidden sizes, operations + identity), summed along each path: (n,)."""
        return np.asarray(operation_table[self.hidden[:, None], self.operations].sum(axis=1), dtype=operation_table.dtype)
