"""The embedded task: generated opinions whose verdict needs composition, so that a bag of words can't tell it (see demo_grammar)."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import numpy as np

from methods.tasks.demo_grammar import Opinion, draw_pair
from methods.tasks.split import Split

TRAIN_ROWS = 4500
VALIDATION_ROWS = 1000


def generate_demo(rows_train: int, rows_validation: int, seed: int) -> tuple[Split, Split]:
    """`train` and `validation`: 4 to 20 words a row, label 1 for a positive verdict, half of the rows each (up to one odd row).

    Rows come in pairs of opposite verdicts, both on one side; of opinions with several clauses both have the same words, so
    their bag says nothing. No text occurs twice. The same for a seed in every process; validation does not depend on `rows_train`.
    """
    rng = Random(f"demo {seed}")
    seen: set[str] = set()
    validation = _rows(rows_validation, rng, seen)
    return _split("train", _rows(rows_train, rng, seen)), _split("validation", validation)


def _rows(count: int, rng: Random, seen: set[str]) -> list[Opinion]:
    opinions: list[Opinion] = []
    while len(opinions) < count:
        pair = draw_pair(rng)
        texts = {str(opinion) for opinion in pair}
        if not texts & seen:
            seen |= texts
            opinions.extend(pair)
    opinions = opinions[:count]
    rng.shuffle(opinions)
    return opinions


def _split(name: str, opinions: Sequence[Opinion]) -> Split:
    labels = np.array([opinion.positive for opinion in opinions], dtype=np.int64)
    return Split(name, tuple(map(str, opinions)), None, labels, np.arange(len(opinions), dtype=np.int64))
