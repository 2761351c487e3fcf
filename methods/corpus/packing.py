"""Sequences of equal length, cut from a stream of tokens without any padding (RoBERTa's FULL-SENTENCES, Liu et al. 2019, section 4.2)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Stream = NDArray[np.unsignedinteger[Any]]
"""Token ids (tokens,)."""
HASHED = 1 << 22
"""Tokens that are hashed together."""


@dataclass(frozen=True, eq=False)
class Packed:
    """Sequences `[CLS] tokens [SEP]` of `length`, on disk until they are asked for.

    `stream` (tokens,): documents joined by [SEP], memory-mapped. A sequence goes on where the one before ended; the tail, shorter
    than a sequence, is dropped. `limit`: at most so many sequences, the first ones.
    """

    stream: Stream
    length: int
    first: int
    last: int
    limit: int | None = None

    def __len__(self) -> int:
        there = len(self.stream) // self._inner
        return there if self.limit is None else min(there, self.limit)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(n,): `length` of every sequence. Read-only, without memory of its own."""
        return np.broadcast_to(np.int64(self.length), (len(self),))

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of all sequences and their length: the same in every process."""
        sha = hashlib.sha256(f"{self.length} {self.first} {self.last}".encode())
        end = len(self) * self._inner
        for start in range(0, end, HASHED):
            sha.update(self.stream[start : min(start + HASHED, end)].astype("<u4").tobytes())
        return sha.hexdigest()

    def counts(self, vocabulary: int) -> NDArray[np.int64]:
        """How often each of so many words occurs (vocabulary,)."""
        found = np.zeros(vocabulary, dtype=np.int64)
        end = len(self) * self._inner
        for start in range(0, end, HASHED):
            found += np.bincount(self.stream[start : min(start + HASHED, end)], minlength=vocabulary)
        return found

    def batch(self, rows: Sequence[int] | NDArray[np.int64]) -> dict[str, Tensor]:
        """`input_ids` and `attention_mask` (all ones), both (B, L) int64, of these sequences."""
        bodies = self.stream[: len(self) * self._inner].reshape(-1, self._inner)[np.asarray(rows, dtype=np.int64)]
        ids = np.empty((len(bodies), self.length), dtype=np.int64)
        ids[:, 0], ids[:, 1:-1], ids[:, -1] = self.first, bodies, self.last
        input_ids = torch.from_numpy(ids)
        return {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)}

    @property
    def _inner(self) -> int:
        return self.length - 2
