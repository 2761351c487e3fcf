"""`Split`: the texts and labels of one part of a task's data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Split:
    """Rows of one split.

    `text`, `text_b` (None where the task has one text): texts without outer white space; `labels` (rows,): int64 classes, or
    float32 for regression; `ids` (rows,) int64: the 0-based row number in the source file, of train's for `train` and `search`; a copy
    of a training row with other words in it has that row's.
    """

    name: str
    text: tuple[str, ...]
    text_b: tuple[str, ...] | None
    labels: Labels
    ids: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.text)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over texts, labels and ids, in hexadecimal: equal data have equal digests in every process."""
        sha = hashlib.sha256(json.dumps([self.text, self.text_b, *self._more()]).encode())
        sha.update(self.labels.astype("<f4" if self.labels.dtype.kind == "f" else "<i8").tobytes())
        sha.update(self.ids.astype("<i8").tobytes())
        return sha.hexdigest()

    def _more(self) -> list[Any]:
        """What else the digest covers."""
        return []

    def take(self, rows: Sequence[int] | NDArray[np.int64], name: str | None = None) -> Self:
        """The given rows (places in this split, in that order) under the same name or another one."""
        places = np.asarray(rows, dtype=np.int64)
        text_b = None if self.text_b is None else tuple(self.text_b[place] for place in places)
        text, labels, ids = tuple(self.text[place] for place in places), self.labels[places], self.ids[places]
        return replace(self, name=name or self.name, text=text, text_b=text_b, labels=labels, ids=ids)

    def followed_by(self, other: Split, name: str) -> Split:
        """These rows, then the other's, under another name; both have as many texts."""
        text_b = None if self.text_b is None or other.text_b is None else self.text_b + other.text_b
        labels, ids = np.concatenate([self.labels, other.labels]), np.concatenate([self.ids, other.ids])
        return Split(name, self.text + other.text, text_b, labels, ids)


def strata(labels: Labels) -> NDArray[np.int64]:
    """The stratum of each row: its class, or for regression its tenth of the label range by rank; places in a text have none."""
    if labels.ndim == 2:
        return np.zeros(len(labels), dtype=np.int64)
    if labels.dtype.kind != "f":
        return labels.astype(np.int64)
    edges = np.quantile(labels, np.linspace(0, 1, 11)[1:-1])
    return np.searchsorted(edges, labels, side="right").astype(np.int64)


def stratified_rows(labels: Labels, rows: int, seed: int) -> NDArray[np.int64]:
    """At most `rows` places, ascending, with each class in its share; a larger number contains the smaller ones' choice."""
    order = np.random.default_rng(seed).permutation(len(labels))
    share = np.empty(len(labels))
    ordered = strata(labels)[order]
    for stratum in np.unique(ordered):
        mine = ordered == stratum
        share[order[mine]] = (np.arange(mine.sum()) + 0.5) / mine.sum()
    return np.sort(order[np.argsort(share[order], kind="stable")][:rows])
