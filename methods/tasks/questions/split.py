"""`QuestionSplit`: questions, their contexts, and where in them the answers stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from methods.errors import UserError
from methods.tasks.split import Split

SPECIAL_TOKENS = 4
"""At most so many stand around and between question and context (RoBERTa's)."""


@dataclass(frozen=True)
class Windows:
    """How a context is read that is longer than what fits beside its question: in windows of which neighbours share `stride` word pieces
    (`doc_stride` in transformers' run_qa). Questions are cut at `question_length` word pieces. The defaults are BERT's for SQuAD, with
    texts of 384 tokens (Devlin et al. 2019, released code), where a stride of 128 is the distance of windows."""

    stride: int = 128
    question_length: int = 64

    def check(self, max_length: int, place: str) -> None:
        """Raises UserError where a window would not reach beyond what it shares with the one before."""
        needed = self.question_length + SPECIAL_TOKENS + self.stride + 1
        if max_length < needed:
            raise UserError(
                f"{place}: max_length: {max_length} leaves no room for windows; with question_length {self.question_length} and "
                f"stride {self.stride} at least {needed} is needed"
            )


@dataclass(frozen=True, eq=False)
class QuestionSplit(Split):
    """Rows are questions.

    `text`: the questions; `text_b`: their contexts, as they are; `labels` (rows, 2) int64: the first answer as characters of the context,
    from and up to but without; `answers`: the texts of all right answers of each row; `articles` (rows,): the number of the article that
    the context is from.
    """

    answers: tuple[tuple[str, ...], ...]
    articles: NDArray[np.int64]
    windows: Windows = field(default_factory=Windows)

    @property
    def contexts(self) -> tuple[str, ...]:
        return self.text_b or ()

    def take(self, rows: Sequence[int] | NDArray[np.int64], name: str | None = None) -> Self:
        places = np.asarray(rows, dtype=np.int64)
        answers = tuple(self.answers[place] for place in places)
        return replace(super().take(rows, name), answers=answers, articles=self.articles[places])

    def _more(self) -> list[Any]:
        return [self.answers, self.articles.tolist(), vars(self.windows)]
