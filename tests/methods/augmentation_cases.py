"""A tiny backbone with an output layer for masked words and with words of two pieces, and tasks on its words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from methods.backbone import Backbone
from methods.dynabert.space import full_spec
from methods.network import Network
from methods.recipe import Context
from methods.tasks.spec import TaskSpec
from methods.tasks.split import Split
from methods.tasks.task import Task
from tests.conftest import WORDS

SINGLE = ("good", "bad", "fine", "poor", "film", "plot", "cast", "song", "red", "blue", "green", "grey", "cat", "dog", "fox", "owl")
DOUBLE = ("goodly", "badly", "finely", "poorly", "dogged")
STOPPED = ("the", "a", "is", "not", "very")
VOCABULARY = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *dict.fromkeys((*WORDS, *SINGLE)), "##ly", "##ged", ",", ".", "7")


def make_backbone(folder: Path, masked_words: bool = True) -> Backbone:
    """Two layers of 16; every parameter random, the output layer's too."""
    from transformers import BertConfig, BertForMaskedLM, BertTokenizer

    torch.manual_seed(3)
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 64}
    model = BertForMaskedLM(BertConfig(vocab_size=len(VOCABULARY), **shape))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.5)
    (model if masked_words else model.bert).save_pretrained(folder)
    BertTokenizer(vocab={word: i for i, word in enumerate(VOCABULARY)}).save_pretrained(folder)
    return Backbone.load(str(folder))


def split(name: str, rows: int, seed: int, pair: bool = False) -> Split:
    rng = np.random.default_rng(seed)

    def texts() -> tuple[str, ...]:
        return tuple(" ".join(rng.choice((*SINGLE, *DOUBLE, *STOPPED), size=rng.integers(4, 9))) for _ in range(rows))

    return Split(name, texts(), texts() if pair else None, rng.integers(0, 2, rows), 3 * np.arange(rows, dtype=np.int64) + 1)


def make_task(rows: int = 40, pair: bool = False) -> Task:
    spec = TaskSpec("tiny", ("a", "b") if pair else ("a",), "label", ("no", "yes"), "accuracy", ("accuracy",))
    return Task(spec, {name: split(name, rows, i, pair) for i, name in enumerate(("train", "search", "validation"))})


def make_teacher(backbone: Backbone, task: Task, seed: int = 0) -> Network:
    torch.manual_seed(seed)
    teacher = Network(full_spec(backbone.config, task.head))
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter.normal_(0.0, 0.5)
    return teacher.eval()


def context(folder: Path, backbone: Backbone, task: Task, teacher: Network | None = None) -> Context:
    view = task.restricted("train", "search")
    return Context(folder, backbone, view, 0, teacher or make_teacher(backbone, task), max_length=32)
