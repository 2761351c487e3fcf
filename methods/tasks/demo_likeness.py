"""A generated regression task over pairs of texts: how alike are two opinions, 0 to 5.

2 points where both verdicts agree, 2 where they are about the same thing, and the share of their words that both have (Jaccard).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random

import numpy as np

from methods.tasks.demo_grammar import NOUNS, Opinion, draw_pair
from methods.tasks.split import Split

TRAIN_ROWS = 4500
VALIDATION_ROWS = 1000
Pair = tuple[Opinion, Opinion]


def likeness(first: Opinion, second: Opinion) -> float:
    """The score of a pair, in [0, 5]."""
    words, others = set(str(first).split()), set(str(second).split())
    shared = len(words & others) / len(words | others)
    return 2 * (first.positive == second.positive) + 2 * (_subject(first) == _subject(second)) + shared


def generate_likeness(rows_train: int, rows_validation: int, seed: int) -> tuple[Split, Split]:
    """`train` and `validation`: pairs of 4 to 20 words each, a third of them independent, a third with the same words and opposite
    verdicts, a third about the same thing in other words. No pair of texts occurs twice, and no text on both sides.

    The same for a seed in every process; validation does not depend on `rows_train`.
    """
    rng = Random(f"likeness {seed}")
    seen: set[str] = set()
    validation = _pairs(rows_validation, rng, seen)
    return _split("train", _pairs(rows_train, rng, seen)), _split("validation", validation)


def _pairs(count: int, rng: Random, seen: set[str]) -> list[Pair]:
    pairs: list[Pair] = []
    while len(pairs) < count:
        first, twin = draw_pair(rng)
        other = draw_pair(rng)[0]
        second = rng.choice((other, twin, _about(other, _subject(first))))
        texts = {str(first), str(second)}
        if len(texts) == 2 and not texts & seen:
            seen |= texts
            pairs.append((first, second))
    return pairs


def _subject(opinion: Opinion) -> str:
    """What the deciding clause is about."""
    return opinion.clauses[opinion.decisive].noun


def _about(opinion: Opinion, noun: str) -> Opinion:
    """The opinion, about another thing."""
    clauses = list(opinion.clauses)
    mine = clauses[opinion.decisive]
    other = mine.other if mine.other != noun else NOUNS[(NOUNS.index(noun) + 1) % len(NOUNS)]
    clauses[opinion.decisive] = replace(mine, noun=noun, other=other)
    return replace(opinion, clauses=tuple(clauses))


def _split(name: str, pairs: Sequence[Pair]) -> Split:
    first, second = (tuple(str(pair[place]) for pair in pairs) for place in (0, 1))
    labels = np.array([likeness(*pair) for pair in pairs], dtype=np.float32)
    return Split(name, first, second, labels, np.arange(len(pairs), dtype=np.int64))
