"""Where other words come from: a masked language model, word embeddings, or both."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from methods.backbone import Backbone
from methods.dynabert.space import full_spec
from methods.errors import UserError
from methods.evaluation import weights_digest
from methods.network import Network
from methods.recipe import Context
from methods.tasks.head import Head
from methods.training.augmentation.neighbours import Pieces, nearest_words
from methods.training.augmentation.options import AugmentationOptions
from methods.training.augmentation.predictions import MaskedWordPredictor
from methods.training.augmentation.words import Word, whole_words, words_of
from methods.training.initialisation import load_backbone, load_masked_word_head
from methods.training.progress import progress_bar

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

READ = 2048
"""Texts that are tokenised at a time."""


@dataclass
class WordSource:
    """`table` (V, H): word embeddings. Words of one piece have the `predictor`'s candidates, where there is one; all others neighbours."""

    tokenizer: PreTrainedTokenizerBase
    table: Tensor
    predictor: MaskedWordPredictor | None
    count: int
    _near: dict[Pieces, tuple[str, ...]] = field(default_factory=dict, init=False)

    @property
    def kind(self) -> Literal["masked_words", "embeddings"]:
        return "embeddings" if self.predictor is None else "masked_words"

    @property
    def flops(self) -> float:
        """Of all that was predicted so far."""
        return 0.0 if self.predictor is None else self.predictor.flops

    @property
    def digest(self) -> str:
        """SHA-256 of tokenizer and weights."""
        sha = hashlib.sha256(json.dumps(sorted(self.tokenizer.get_vocab().items())).encode())
        sha.update(np.ascontiguousarray(self.table.float().cpu().numpy()).tobytes())
        if self.predictor is not None:
            sha.update(weights_digest(self.predictor.network).encode())
        return sha.hexdigest()

    def prepare(self, texts: Sequence[str]) -> None:
        """Looks up the neighbours of all words of these texts that need them, in an order of their own: the same whatever is done next."""
        wanted: set[Pieces] = set()
        for start in range(0, len(texts), READ):
            for words in words_of(self.tokenizer, texts[start : start + READ]):
                wanted.update(word.pieces for word in words if not self._predicted(word))
        ordered, known = sorted(wanted), whole_words(self.tokenizer)
        bar = progress_bar(len(ordered), "neighbours")
        self._near = nearest_words(self.table, known, ordered, self.count, bar.update)
        bar.close()

    def candidates(self, texts: Sequence[str], words: Sequence[Sequence[Word]], needed: Iterable[tuple[int, int]]) -> Candidates:
        """Other words for the needed ones (number of the text, number of its word); `prepare` has seen the texts."""
        found, requests = {}, []
        for row, place in needed:
            word = words[row][place]
            if self._predicted(word):
                requests.append((row, place))
            else:
                found[row, place] = self._near[word.pieces]
        if self.predictor is not None:
            predicted = self.predictor.predict(texts, [(row, words[row][place]) for row, place in requests], self.count)
            found.update(zip(requests, predicted, strict=True))
        return found

    def _predicted(self, word: Word) -> bool:
        return self.predictor is not None and len(word.pieces) == 1


Candidates = dict[tuple[int, int], tuple[str, ...]]
"""By the number of a text and that of its word."""


def open_source(context: Context, options: AugmentationOptions) -> WordSource:
    """The source that the options name. Raises UserError where it can't be had."""
    backbone, network = models_of(options, context.backbone)
    device = context.hardware.device
    if options.backbone is None and context.teacher is not None:
        table = context.teacher.stem.word.weight.detach()
    else:
        table = backbone.weights()["embeddings.word_embeddings.weight"]
    predictor = None
    if network is not None:
        positions = min(backbone.config.positions, int(backbone.tokenizer.model_max_length))
        words = whole_words(backbone.tokenizer)
        predictor = MaskedWordPredictor(network.to(device).eval(), backbone.tokenizer, words, positions, context.hardware)
    return WordSource(backbone.tokenizer, table.to(device), predictor, options.candidates)


def models_of(options: AugmentationOptions, backbone: Backbone) -> tuple[Backbone, Network | None]:
    """The backbone that the options name, else the given one; and its masked language model, where one is wanted. Raises UserError."""
    backbone = backbone if options.backbone is None else _other(options.backbone)
    network = None if options.source == "embeddings" else masked_language_model(backbone)
    if network is None and options.source == "masked_words":
        raise UserError(
            f"augmentation.source: masked_words, but backbone {backbone.name} has no output layer for masked words; "
            "name another under augmentation.backbone, or write embeddings"
        )
    return backbone, network


def _other(name: str) -> Backbone:
    try:
        return Backbone.load(name)
    except UserError as error:
        raise UserError(f"augmentation.{error}") from error


def masked_language_model(backbone: Backbone) -> Network | None:
    """The backbone with its output layer for masked words; None where its files hold none."""
    head = backbone.masked_word_head()
    if head is None:
        return None
    with torch.random.fork_rng():
        network = Network(full_spec(backbone.config, Head("mlm")))
    load_backbone(network, backbone.weights())
    load_masked_word_head(network, head)
    return network.requires_grad_(False)
