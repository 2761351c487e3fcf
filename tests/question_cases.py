"""Generated articles with questions, in the layout of SQuAD v1.1."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from tests.conftest import WORDS

SAID = [word for word in WORDS if word not in ("a", "the")]
"""Words that SQuAD's metrics count."""


def articles(count: int, seed: int, questions: int = 6, longest: int = 60) -> dict[str, Any]:
    """Articles of two paragraphs. The answer to `where is A ?` is that word of the paragraph with the one behind it."""
    rng = np.random.default_rng(seed)
    return {"data": [{"title": f"{seed}-{number}", "paragraphs": _paragraphs(rng, questions, longest)} for number in range(count)]}


def _paragraphs(rng: np.random.Generator, questions: int, longest: int) -> list[dict[str, Any]]:
    made = []
    for _ in range(2):
        words = rng.choice(SAID, size=rng.integers(8, longest)).tolist()
        places = rng.integers(0, len(words) - 1, size=questions // 2).tolist()
        asked = [{"question": f"where is {words[place]} ?", "answers": [_answer(words, place)]} for place in places]
        made.append({"context": " ".join(words), "qas": asked})
    return made


def _answer(words: list[str], place: int) -> dict[str, Any]:
    return {"text": " ".join(words[place : place + 2]), "answer_start": len(" ".join([*words[:place], ""]))}


def write_articles(folder: Path, train: int = 20, validation: int = 3, longest: int = 60) -> Path:
    """train.json and validation.json."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (name, count) in enumerate((("train", train), ("validation", validation))):
        (folder / f"{name}.json").write_text(json.dumps(articles(count, seed, longest=longest)))
    return folder
