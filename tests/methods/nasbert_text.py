"""A small corpus from which masked words can be learnt: words follow one another in a fixed order, now and then another one."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from methods.backbone import Backbone
from methods.corpus.corpus import Corpus
from methods.corpus.masked_words import evaluate_masked_words, masked_words_of
from methods.corpus.options import CorpusOptions
from methods.network import Network
from methods.recipe import Hardware
from tests.conftest import WORDS

LENGTH = 12


def make_corpus(folder: Path, backbone: Backbone) -> Corpus:
    """About 3,000 words in 100 documents; a tenth of it `search`, a tenth `validation`. A few words make up most of the text."""
    rng = np.random.default_rng(0)
    order = ["the", "film", "is", "good", "the", "plot", "is", "bad"]
    documents = [[order[(start + i) % 8] if rng.random() < 0.9 else str(rng.choice(WORDS)) for i in range(30)] for start in range(100)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "text.txt").write_text("\n\n".join(" ".join(words) for words in documents) + "\n")
    options = CorpusOptions(name="ordered", data=str(folder / "text.txt"), search_share=0.1, validation_share=0.1)
    return options.load(backbone.tokenizer, folder / "packed")


def likelihood(network: Network, corpus: Corpus) -> float:
    """Of masked words on `search`, nats a word."""
    return evaluate_masked_words(masked_words_of(network), corpus.packed("search", LENGTH), corpus.masker, Hardware())["log_likelihood"]
