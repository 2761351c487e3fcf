"""Copies of texts with some of their words replaced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import NamedTuple

from methods.tasks.split import Split
from methods.training.augmentation.options import AugmentationOptions
from methods.training.augmentation.source import WordSource
from methods.training.augmentation.words import Word, words_of


class Copy(NamedTuple):
    """A new row: the id of the row that it was made of, which of its texts was varied (0 or 1), the copy's number, and the texts."""

    source: int
    side: int
    number: int
    text: str
    text_b: str | None


def make_copies(rows: Split, source: WordSource, options: AugmentationOptions) -> list[Copy]:
    """`copies` of each text of these rows, in their order; some may be equal, or equal to their source.

    Of a pair the first text is varied beside the second one, then the second beside the last variant of the first (as TinyBERT's code
    does). What is drawn depends on seed, row, text and copy alone.
    """
    first = _variants(rows.text, 0, rows, source, options)
    if rows.text_b is None:
        return [Copy(int(i), 0, k, text, None) for i, texts in zip(rows.ids, first, strict=True) for k, text in enumerate(texts)]
    second = _variants(rows.text_b, 1, rows, source, options)
    copies = []
    for i, a, b, variants, variants_b in zip(rows.ids, rows.text, rows.text_b, first, second, strict=True):
        last = list(dict.fromkeys((a, *variants)))[-1]
        copies += [Copy(int(i), 0, k, text, b) for k, text in enumerate(variants)]
        copies += [Copy(int(i), 1, k, last, text) for k, text in enumerate(variants_b)]
    return copies


def _variants(texts: Sequence[str], side: int, rows: Split, source: WordSource, options: AugmentationOptions) -> list[list[str]]:
    words = words_of(source.tokenizer, texts)
    drawn = [[draw(options, i, side, k, len(found)) for k in range(options.copies)] for i, found in zip(rows.ids, words, strict=True)]
    needed = sorted({(row, place) for row, copies in enumerate(drawn) for picks in copies for place in picks})
    candidates = source.candidates(texts, words, needed)

    def variant(row: int, picks: Mapping[int, float]) -> str:
        return _replaced(texts[row], words[row], {place: _pick(candidates[row, place], share) for place, share in picks.items()})

    return [[variant(row, picks) for picks in copies] for row, copies in enumerate(drawn)]


def draw(options: AugmentationOptions, row: int, side: int, copy: int, words: int) -> dict[int, float]:
    """Which of the words are replaced, each with chance `rate`, and by which of their candidates: a share of their number."""
    rng = Random(f"{options.seed} {row} {side} {copy}")
    drawn = [(rng.random(), rng.random()) for _ in range(words)]
    return {place: share for place, (chance, share) in enumerate(drawn) if chance < options.rate}


def _pick(candidates: Sequence[str], share: float) -> str | None:
    return candidates[int(share * len(candidates))] if candidates else None


def _replaced(text: str, words: Sequence[Word], others: Mapping[int, str | None]) -> str:
    """The text with other words in these places, capitalised where the old ones were; one without candidates stays."""
    parts, end = [], 0
    for place, other in sorted(others.items()):
        if other is not None:
            word = words[place]
            capital = text[word.start : word.end].istitle()
            parts += [text[end : word.start], other.title() if capital else other]
            end = word.end
    return "".join([*parts, text[end:]])
