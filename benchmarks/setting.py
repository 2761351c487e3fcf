"""What DynaBERT's benchmarks run on: MiniLM-L6 and SST-2 where they are at hand, else a random BERT of that shape and generated texts."""

from __future__ import annotations

import argparse
import os
import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from benchmarks.corpus_memory import WORDS, load_tokenizer
from methods.backbone import Backbone, BackboneConfig
from methods.dynabert.space import DynaBertSpace, full_spec
from methods.dynabert.supernet import DynaBertSupernet
from methods.network import Network
from methods.tasks.batches import joint, training_batches
from methods.tasks.head import Head
from methods.tasks.split import Split
from methods.tasks.task import load_task
from methods.training.initialisation import initialise, load_backbone

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("ELASTIBENCH_DATA") or ROOT.parent / "shared" / "data") / "sst2"
SHAPE = BackboneConfig(vocabulary=30522, positions=512, types=2, hidden=384, layers=6, heads=12, intermediate=1536)
HEAD = Head("classification", 2)
LENGTH = 128
BATCHES = 200
"""Of which the benchmarks take some of middling length."""


def parser(name: str) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}")
    made.add_argument("--backbone", type=Path, default=ROOT / "backbones" / "minilm-l6")
    made.add_argument("--data", type=Path, default=DATA, help="directory with train.tsv and validation.tsv of SST-2")
    return made


@dataclass(frozen=True)
class Setting:
    """A backbone's shape and weights (None: random ones), a tokenizer, rows to train on and rows to evaluate."""

    config: BackboneConfig
    weights: Mapping[str, Tensor] | None
    tokenizer: PreTrainedTokenizerBase
    train: Split
    validation: Split
    about: str

    @classmethod
    def of(cls, asked: argparse.Namespace) -> Setting:
        """What the options name, for one thread."""
        torch.set_num_threads(1)
        torch.manual_seed(0)
        backbone = Backbone.load(str(asked.backbone)) if asked.backbone.is_dir() else None
        if real := asked.data.is_dir():
            task = load_task("sst2", str(asked.data))
            train, validation = task.split("train"), task.split("validation")
        else:
            train, validation = _generated("train", 20_000, 9), _generated("validation", 872, 19)
        model, texts = asked.backbone.name if backbone else "a random BERT", "SST-2" if real else "generated texts"
        about = f"{model}, {texts}, one thread, processor time"
        if backbone is None:
            return cls(SHAPE, None, load_tokenizer(asked.backbone), train, validation, about)
        return cls(backbone.config, backbone.weights(), backbone.tokenizer, train, validation, about)

    @cached_property
    def teacher(self) -> Network:
        """The backbone with an untrained classifier, which does not matter for time."""
        network = Network(full_spec(self.config, HEAD))
        initialise(network)
        if self.weights is not None:
            load_backbone(network, self.weights)
        return network.eval()

    def supernet(self) -> DynaBertSupernet:
        """The paper's grid with the teacher's weights, in training mode."""
        supernet = DynaBertSupernet(DynaBertSpace(self.config), self.config, HEAD)
        supernet.load_state_dict(self.teacher.state_dict())
        return supernet.train()

    def batches(self, count: int, rows: int) -> list[dict[str, Tensor]]:
        """Of an epoch's batches in order of length, the middle ones of `count` equal parts; padded to their longest row."""
        collate = joint(self.tokenizer, LENGTH)
        encoded = collate.encode(self.train.take(range(min(len(self.train), BATCHES * rows))))
        groups = sorted(training_batches(encoded.lengths, rows, 0, 0), key=lambda group: int(encoded.lengths[group].max()))
        return [collate(encoded, groups[(2 * i + 1) * len(groups) // (2 * count)]) for i in range(count)]


def padded(batch: Mapping[str, Tensor], length: int = LENGTH) -> dict[str, Tensor]:
    """The batch with zeros behind its texts (B, `length`): both tokenizers' padding."""
    return {name: torch.nn.functional.pad(t, (0, length - t.shape[1])) if t.ndim == 2 else t for name, t in batch.items()}


def _generated(name: str, rows: int, mean: int) -> Split:
    """Texts with about as many words as SST-2's phrases (`train`) or sentences have."""
    rng = random.Random(0)
    texts = tuple(" ".join(rng.choices(WORDS, k=min(50, 1 + int(rng.expovariate(1 / (mean - 0.5)))))) for _ in range(rows))
    return Split(name, texts, None, np.array([rng.randint(0, 1) for _ in texts]), np.arange(rows))
