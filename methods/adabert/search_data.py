"""The rows of a search: those that train the weights, and those held out of them, never of `search` or `validation`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from methods.adabert.options import SearchOptions
from methods.tasks.batches import Collate, Encoded, training_batches
from methods.tasks.split import Split

Places = NDArray[np.int64]


def held_out_share(options: SearchOptions) -> float:
    """A half where the architecture parameters have rows of their own (DARTS), a tenth where only a remedy looks at some, else none."""
    if options.level != "single":
        return 0.5
    watched = options.remedies.eigenvalue_stop is not None or options.remedies.operation_stop is not None
    return 0.1 if watched else 0.0


def divide(ids: NDArray[np.int64], share: float, seed: int) -> tuple[Places, Places]:
    """Places of the rows that train and of those held out, at random; copies of a row (equal ids) stay together."""
    different = np.random.default_rng(seed).permutation(np.unique(ids))
    held_out = np.isin(ids, different[: round(share * len(different))])
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


class SearchRows:
    """Some rows of a split; tokenised when first needed, once for all parts of it."""

    def __init__(self, encode: Callable[[], Encoded], collate: Collate, places: Places, digest: str) -> None:
        self.encode, self.collate, self.places, self.digest = encode, collate, places, digest

    def __len__(self) -> int:
        return len(self.places)

    @property
    def lengths(self) -> NDArray[np.int64]:
        return self.encode().lengths[self.places]

    def batch(self, rows: Sequence[int]) -> dict[str, Tensor]:
        return self.collate(self.encode(), self.places[list(rows)].tolist())

    def numbered(self, number: int, size: int, seed: int) -> dict[str, Tensor]:
        """Batch `number` of an endless series; the same one each time."""
        per_epoch = -(-len(self) // size)
        order = self._order(size, seed, number // per_epoch)
        return self.batch(order[number % per_epoch])

    def _order(self, size: int, seed: int, epoch: int) -> list[list[int]]:
        if getattr(self, "_kept", ((),))[0] != (size, seed, epoch):
            self._kept = ((size, seed, epoch), training_batches(self.lengths, size, seed, epoch))
        return self._kept[1]


def search_rows(split: Split, collate: Collate, options: SearchOptions, seed: int) -> tuple[SearchRows, SearchRows | None]:
    """The rows that train the weights, and those held out where the options need some."""
    encode = cache(lambda: collate.encode(split))
    trained, held_out = divide(split.ids, held_out_share(options), seed)
    parts = [SearchRows(encode, collate, places, split.digest) for places in (trained, held_out)]
    return parts[0], parts[1] if len(held_out) else None
