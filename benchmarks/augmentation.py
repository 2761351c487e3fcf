"""How many rows word replacement makes in a second: short film reviews (as in SST-2), neighbours of word embeddings, 2 copies each.

`python -m benchmarks.augmentation [--backbone DIRECTORY] [--rows N] [--source embeddings|masked_words]`
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from methods.backbone import Backbone
from methods.dynabert.space import full_spec
from methods.network import Network
from methods.recipe import Context, Hardware, StageRecord
from methods.tasks.spec import TaskSpec
from methods.tasks.split import Split
from methods.tasks.task import Task
from methods.training.augmentation.building import augment
from methods.training.augmentation.options import AugmentationOptions
from methods.training.augmentation.words import whole_words
from methods.training.initialisation import load_backbone

ROOT = Path(__file__).parents[1]
_FRAME = "the a of and is it in that with as this an film movie story but characters so more its by one for to be not funny"
FRAME = _FRAME.split()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.augmentation")
    parser.add_argument("--backbone", type=Path, default=ROOT / "backbones" / "minilm-l6")
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--source", choices=("embeddings", "masked_words"), default="embeddings")
    asked = parser.parse_args()
    if not asked.backbone.is_dir():
        print(f"augmentation: no backbone at {asked.backbone}; name one with --backbone")
        return
    backbone = Backbone.load(str(asked.backbone))
    task = reviews(backbone, asked.rows)
    teacher = Network(full_spec(backbone.config, task.head)).eval()
    load_backbone(teacher, backbone.weights())
    torch.set_num_threads(1)
    records: list[StageRecord] = []
    with tempfile.TemporaryDirectory() as folder:
        context = Context(Path(folder), backbone, task, 0, teacher, Hardware(), records.append)
        started = time.perf_counter()
        copies = augment(context, AugmentationOptions(copies=2, source=asked.source))
        built = time.perf_counter() - started
        started = time.perf_counter()
        augment(context, AugmentationOptions(copies=2, source=asked.source))
        read = time.perf_counter() - started
    words = sum(len(text.split()) for text in task.split("train").text) / asked.rows
    print(f"{asked.rows:,} rows of {words:.1f} words, source {asked.source}, one thread: {len(copies):,} copies in {built:.1f} s")
    print(f"  {len(copies) / built:,.0f} rows a second, the neighbours of all words looked up first; without that look-up")
    print(f"  {len(copies) / records[0].seconds:,.0f} rows a second; read back in {read:.2f} s")


def reviews(backbone: Backbone, rows: int) -> Task:
    """Texts of 2 to 18 words: half function words, half words of the vocabulary, a tenth of these with an ending that makes two pieces."""
    rng = random.Random(0)
    known = [word for word in whole_words(backbone.tokenizer).values() if word.isascii() and len(word) > 3]

    def word() -> str:
        if rng.random() < 0.5:
            return rng.choice(FRAME)
        return rng.choice(known) + ("ness" if rng.random() < 0.1 else "")

    def split(name: str, count: int) -> Split:
        texts = tuple(" ".join(word() for _ in range(rng.randint(2, 18))) for _ in range(count))
        return Split(name, texts, None, np.array([rng.randint(0, 1) for _ in texts]), np.arange(count))

    spec = TaskSpec("reviews", ("text",), "label", ("negative", "positive"), "accuracy", ("accuracy",))
    return Task(spec, {"train": split("train", rows), "search": split("search", max(1, rows // 10))})


if __name__ == "__main__":
    main()
