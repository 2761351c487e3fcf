"""From a split to padded batches: tokenised once, bucketed by length, in an order that depends on (seed, epoch) alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from methods.tasks.questions.split import QuestionSplit
from methods.tasks.split import Split

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Tokens = list[NDArray[np.int64]]
MEGA_BATCH = 50
"""Batches that are sorted by length together."""


@dataclass(frozen=True, eq=False)
class Encoded:
    """A tokenised split. `columns`: per input name the tokens of each row; `lengths` (rows,): of a pair encoded apart, the longer text."""

    columns: Mapping[str, Tokens]
    lengths: NDArray[np.int64]
    labels: NDArray[Any]
    ids: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.lengths)

    def kept(self, logits: Tensor, batch: dict[str, Tensor]) -> Tensor:  # noqa: ARG002 (one signature)
        """What evaluation keeps of a batch's logits: (B, outputs)."""
        return logits

    def outputs(self, kept: NDArray[np.float32]) -> NDArray[np.float32]:
        """From what was kept of each row here to what stands for each row of the split: (split's rows, outputs)."""
        return kept


class Collate(Protocol):
    """Makes batches of a method's own form; made once per tokenizer."""

    def encode(self, split: Split) -> Encoded:
        """The split tokenised, each text cut at the maximal length."""

    def __call__(self, encoded: Encoded, rows: Sequence[int]) -> dict[str, Tensor]:
        """The batch of these rows (B), padded to the longest of them (L): inputs (B, L), `labels` (B, ...), `example_id` (B,)."""


def joint(tokenizer: PreTrainedTokenizerBase, max_length: int, *, pad_to: int | None = None) -> Collate:
    """`[CLS] a [SEP]` or `[CLS] a [SEP] b [SEP]`: input_ids, attention_mask, token_type_ids, labels, example_id.

    Special tokens, and whether there are types, are the tokenizer's: RoBERTa's gives `<s> a </s></s> b </s>` and no token_type_ids.

    Of a pair that is longer than `max_length` the longer text is cut; a question's context is read in windows instead, each a row.
    `pad_to`: every batch has this length (the reference's form).
    """
    return _TextCollate(tokenizer, max_length, False, _padding(pad_to, max_length))


def separate(tokenizer: PreTrainedTokenizerBase, max_length: int, *, pad_to: int | None = None) -> Collate:
    """`[CLS] a [SEP]`, and of a pair `[CLS] b [SEP]` apart, each cut at `max_length`, both padded to the same length.

    input_ids, attention_mask, for pairs input_ids_b, attention_mask_b, labels, example_id. `pad_to`: every batch has this length.
    """
    return _TextCollate(tokenizer, max_length, True, _padding(pad_to, max_length))


def _padding(pad_to: int | None, max_length: int) -> int:
    if pad_to is not None and pad_to < max_length:
        raise ValueError(f"pad_to {pad_to} is less than max_length {max_length}")
    return pad_to or 0


@dataclass(frozen=True)
class _TextCollate:
    tokenizer: PreTrainedTokenizerBase
    max_length: int
    apart: bool
    pad_to: int

    def encode(self, split: Split) -> Encoded:
        if isinstance(split, QuestionSplit):
            return self._windows(split)
        if self.apart:
            columns = {"input_ids": self._tokens(split.text)["input_ids"]}
            if split.text_b is not None:
                columns["input_ids_b"] = self._tokens(split.text_b)["input_ids"]
        else:
            columns = self._tokens(split.text, split.text_b)
        lengths = np.max([[len(row) for row in rows] for name, rows in columns.items() if name != "token_type_ids"], axis=0)
        return Encoded(columns, lengths.astype(np.int64), split.labels, split.ids)

    def _windows(self, split: QuestionSplit) -> Encoded:
        from methods.tasks.questions.encoding import encode_windows

        if self.apart:
            raise ValueError("a question and its context are read together")
        return encode_windows(self.tokenizer, self.max_length, split)

    def _tokens(self, text: Sequence[str], text_b: Sequence[str] | None = None) -> dict[str, Tokens]:
        texts = (list(text), None if text_b is None else list(text_b))
        cut = {"truncation": True, "max_length": self.max_length}
        typed = not self.apart and "token_type_ids" in self.tokenizer.model_input_names
        found = self.tokenizer(*texts, **cut, return_attention_mask=False, return_token_type_ids=typed)
        return {name: [np.asarray(row, dtype=np.int64) for row in found[name]] for name in ("input_ids", "token_type_ids") if name in found}

    def __call__(self, encoded: Encoded, rows: Sequence[int]) -> dict[str, Tensor]:
        places = np.asarray(rows, dtype=np.int64)
        length = max(int(encoded.lengths[places].max()), self.pad_to)
        batch: dict[str, Tensor] = {}
        for name, tokens in encoded.columns.items():
            filler = int(self.tokenizer.pad_token_id or 0) if name.startswith("input_ids") else 0
            batch[name], mask = _pad([tokens[place] for place in places], length, filler)
            if name.startswith("input_ids"):
                batch[name.replace("input_ids", "attention_mask")] = mask
        return {**batch, "labels": torch.from_numpy(encoded.labels[places]), "example_id": torch.from_numpy(encoded.ids[places])}


def _pad(rows: Tokens, length: int, filler: int) -> tuple[Tensor, Tensor]:
    """Values and mask (rows, length), int64, filled up on the right."""
    lengths = np.array([len(row) for row in rows])
    mask = np.arange(length) < lengths[:, None]
    values = np.full((len(rows), length), filler, dtype=np.int64)
    values[mask] = np.concatenate(rows)
    return torch.from_numpy(values), torch.from_numpy(mask.astype(np.int64))


def training_batches(lengths: NDArray[np.int64] | Sequence[int], batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """Batches of row numbers, each row once: shuffled, 50 batches at a time sorted by length, then shuffled as batches."""
    sizes = np.asarray(lengths)
    generator = np.random.default_rng((seed, epoch))
    order = generator.permutation(len(sizes))
    batches: list[list[int]] = []
    for start in range(0, len(order), MEGA_BATCH * batch_size):
        part = order[start : start + MEGA_BATCH * batch_size]
        batches += _chunks(part[np.argsort(sizes[part], kind="stable")], batch_size)
    return [batches[place] for place in generator.permutation(len(batches))]


def evaluation_batches(lengths: NDArray[np.int64] | Sequence[int], batch_size: int) -> list[list[int]]:
    """Batches of row numbers, the shortest rows first; the same ones each time."""
    return _chunks(np.argsort(np.asarray(lengths), kind="stable"), batch_size)


def token_batches(lengths: NDArray[np.int64] | Sequence[int], tokens: int) -> list[list[int]]:
    """Batches of row numbers, the shortest rows first, of at most so many tokens once padded, but always a row."""
    sizes = np.asarray(lengths)
    batches: list[list[int]] = []
    for row in np.argsort(sizes, kind="stable").tolist():
        if not batches or (len(batches[-1]) + 1) * sizes[row] > tokens:
            batches.append([])
        batches[-1].append(row)
    return batches


def _chunks(rows: NDArray[np.int64], size: int) -> list[list[int]]:
    return [rows[start : start + size].tolist() for start in range(0, len(rows), size)]
