"""The embedded corpus: unlabelled text in the demo's language, sentences such as the demo's backbone was pre-trained on."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from methods.tasks.demo import TRAIN_ROWS, VALIDATION_ROWS, generate_demo
from methods.tasks.demo_grammar import draw_pair, exclaimed

VERSION = 1
"""Another number where the text for a seed is another one."""
WORDS = 300_000
SENTENCES = (3, 8)
"""Of a document: least and most."""


def generate_documents(words: int = WORDS, seed: int = 0) -> Iterator[list[str]]:
    """Documents of 3 to 8 sentences, at least so many words in all; the same for a seed in every process.

    A sentence is an opinion behind an exclamation that agrees with its verdict. No row of the demo's task is among the opinions.
    """
    rng = Random(f"demo text {seed}")
    rows = {text for split in generate_demo(TRAIN_ROWS, VALIDATION_ROWS, seed=0) for text in split.text}
    sentences = _sentences(rng, rows)
    written = 0
    while written < words:
        document = [next(sentences) for _ in range(rng.randint(*SENTENCES))]
        written += sum(len(sentence.split()) for sentence in document)
        yield document


def _sentences(rng: Random, left_out: set[str]) -> Iterator[str]:
    """Sentences without end, one of every pair of opposite verdicts."""
    while True:
        opinion = rng.choice(draw_pair(rng))
        if str(opinion) not in left_out:
            yield exclaimed(opinion)
