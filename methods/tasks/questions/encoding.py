"""Questions with their contexts as token windows, and back from windows to answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from methods.errors import UserError
from methods.tasks.batches import Encoded
from methods.tasks.questions.answers import best_spans, scores
from methods.tasks.questions.split import QuestionSplit

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, eq=False)
class EncodedWindows(Encoded):
    """A row is a window; `labels` (rows, 2): first and last token of the answer; `ids`: the question's.

    `rows` (rows,): the window's question as its place in `split`; `offsets`: for each token its characters in the context, (tokens, 2).
    The column `context_mask` says which tokens are the context's.
    """

    split: QuestionSplit
    rows: NDArray[np.int64]
    offsets: list[NDArray[np.int64]]

    def kept(self, logits: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """The best span of each window, see `best_spans`."""
        return best_spans(logits, batch["context_mask"])

    def outputs(self, kept: NDArray[np.float32]) -> NDArray[np.float32]:
        """F1 and exact match of each question's answer, (questions, 2)."""
        found = [scores(answer, right) for answer, right in zip(self.answers(kept), self.split.answers, strict=True)]
        return np.array(found, dtype=np.float32)

    def answers(self, spans: NDArray[np.float32]) -> list[str]:
        """The text of the likeliest span of each question over its windows; empty where none of them has one. `spans` (windows, 3)."""
        texts, best = [""] * len(self.split), np.full(len(self.split), -np.inf)
        for row, offsets, (score, first, last) in zip(self.rows, self.offsets, spans, strict=True):
            if score > best[row]:
                best[row] = score
                texts[row] = self.split.contexts[row][offsets[int(first), 0] : offsets[int(last), 1]]
        return texts


def encode_windows(tokenizer: PreTrainedTokenizerBase, max_length: int, split: QuestionSplit) -> EncodedWindows:
    """Every question with as many windows of its context as it takes to cover it, each at most `max_length` tokens with the question.

    A window that does not hold the whole first answer has both its places at the first token (as Devlin et al. and transformers' run_qa).
    """
    if not tokenizer.is_fast:
        raise UserError(f"the tokenizer {type(tokenizer).__name__} says no places of its tokens in the text; a fast one is needed")
    split.windows.check(max_length, "task")
    typed = "token_type_ids" in tokenizer.model_input_names
    found = tokenizer(
        _cut(tokenizer, split.text, split.windows.question_length),
        list(split.contexts),
        truncation="only_second",
        max_length=max_length,
        stride=split.windows.stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        return_attention_mask=False,
        return_token_type_ids=typed,
    )
    columns = {name: [np.asarray(row, dtype=np.int64) for row in found[name]] for name in ("input_ids", "token_type_ids") if name in found}
    sequences = (found.sequence_ids(window) for window in range(len(columns["input_ids"])))
    columns["context_mask"] = [np.array([text == 1 for text in window], dtype=np.int64) for window in sequences]
    offsets = [np.asarray(window, dtype=np.int64) for window in found["offset_mapping"]]
    rows = np.asarray(found["overflow_to_sample_mapping"], dtype=np.int64)
    labels = [_tokens(*window) for window in zip(offsets, columns["context_mask"], split.labels[rows], strict=True)]
    lengths = np.array([len(window) for window in offsets], dtype=np.int64)
    return EncodedWindows(columns, lengths, np.array(labels, dtype=np.int64), split.ids[rows], split, rows, offsets)


def _cut(tokenizer: PreTrainedTokenizerBase, questions: Sequence[str], limit: int) -> list[str]:
    """The questions, cut where they have more than `limit` word pieces."""
    pieces = tokenizer(list(questions), add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    cut = [text if len(found) <= limit else text[: found[limit - 1][1]] for text, found in zip(questions, pieces, strict=True)]
    return [text if whole == text else _trimmed(tokenizer, text, limit) for whole, text in zip(questions, cut, strict=True)]


def _trimmed(tokenizer: PreTrainedTokenizerBase, text: str, limit: int) -> str:
    """A word that is cut in its midst may fall into more pieces than it did."""
    while len(tokenizer(text, add_special_tokens=False)["input_ids"]) > limit:
        text = text[:-1]
    return text


def _tokens(offsets: NDArray[np.int64], context: NDArray[np.int64], answer: NDArray[np.int64]) -> tuple[int, int]:
    """First and last token of the answer, (0, 0) where the window does not hold it whole."""
    (inside,), (begin, end) = np.nonzero(context), answer
    if not len(inside) or begin < offsets[inside[0], 0] or end > offsets[inside[-1], 1]:
        return 0, 0
    first = np.searchsorted(offsets[inside, 1], begin, side="right")
    last = np.searchsorted(offsets[inside, 0], end, side="left") - 1
    return (int(inside[first]), int(inside[last])) if first <= last else (0, 0)
