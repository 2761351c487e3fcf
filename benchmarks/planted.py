"""Does the search find an operation that is known to be the best? `python -m benchmarks.planted`, a few seconds per seed.

The answer is whether one word stands exactly six places before another. Both words are in every text, at other distances where the
answer is no. Of the operations only the convolution with dilation 3 sees both at once; two narrow ones in a row reach five places.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import BertConfig, BertModel, BertTokenizer

from methods.adabert.derivation import derive
from methods.adabert.options import AdaBertOptions
from methods.adabert.probes import train_probes
from methods.adabert.search_stage import search
from methods.adabert.space import AdaBertSpace
from methods.adabert.supernet import AdaBertSupernet
from methods.adabert.teacher_signals import teacher_signals
from methods.backbone import Backbone
from methods.dynabert.space import full_spec
from methods.network import Network
from methods.recipe import Context
from methods.tasks.spec import TaskSpec
from methods.tasks.split import Split
from methods.tasks.task import Task
from methods.training.initialisation import initialise

PLANTED, DISTANCE, LENGTH = "dilated_conv_3", 6, 9
FIRST, SECOND, OTHERS = "good", "bad", ("film", "plot", "cast", "song")
SEEDS = 10


def planted_task(seed: int, rows: int = 2000) -> Task:
    """`rows` texts to train on and 300 for `search`."""
    spec = TaskSpec("planted", ("text",), "label", ("no", "yes"), "accuracy", ("accuracy",))
    return Task(spec, {name: _split(name, count, 10 * seed + i) for i, (name, count) in enumerate((("train", rows), ("search", 300)))})


def _split(name: str, rows: int, seed: int) -> Split:
    rng = np.random.default_rng(seed)
    labels = rng.integers(2, size=rows)
    texts = []
    for label in labels:
        words = rng.choice(OTHERS, size=LENGTH)
        while True:
            first, second = rng.choice(LENGTH, size=2, replace=False)
            if (second - first == DISTANCE) == bool(label):
                break
        words[first], words[second] = FIRST, SECOND
        texts.append(" ".join(words))
    return Split(name, tuple(texts), None, labels, np.arange(rows))


def planted_options(**search: Any) -> AdaBertOptions:
    """One cell of two nodes and four operations; labels alone, no price."""
    schedule = {"name": "adam", "learning_rate": 2e-2, "final_learning_rate": 2e-3, "weight_decay": 0.0}
    return AdaBertOptions(
        cells=1,
        nodes=2,
        width=8,
        dilation=3,
        dropout=0.0,
        operations=("conv_3", PLANTED, "max_pool_3", "identity"),
        probes={"epochs": 1},
        search={
            "steps": 150,
            "batch_size": 32,
            "weights": schedule,
            "architecture": {"learning_rate": 0.05, "weight_decay": 0.0},
            "temperature": {"rate": None},
            "loss": {"gamma": 0.0, "efficiency": "off", "distillation": "final"},
            **search,
        },
    )


def small_backbone(folder: Path) -> Backbone:
    """A random BERT that knows the task's words."""
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", FIRST, SECOND, *OTHERS]
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": 16}
    BertModel(BertConfig(vocab_size=len(vocabulary), **shape)).save_pretrained(folder)
    BertTokenizer(vocab={word: i for i, word in enumerate(vocabulary)}).save_pretrained(folder)
    return Backbone.load(str(folder))


def kept_operations(folder: Path, backbone: Backbone, seed: int, options: AdaBertOptions) -> list[str]:
    """The operations on the edges of the network that one search derives."""
    task = planted_task(seed)
    teacher = Network(full_spec(backbone.config, task.head))
    torch.manual_seed(seed)
    initialise(teacher)
    context = Context(folder, backbone, task, seed, teacher.eval(), max_length=16)
    signals = teacher_signals(context, options.probes, train_probes(context, options.probes))
    supernet = AdaBertSupernet(AdaBertSpace(options), backbone.config, task.head)
    search(context, options, supernet, signals)
    nodes = derive(supernet.space, supernet.edge_logits, supernet.depth_logits).choices["nodes"]
    return [name for node in nodes for _, name in node]


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, found = Path(name), 0
        backbone, options = small_backbone(folder / "backbone"), planted_options()
        for seed in range(SEEDS):
            kept = kept_operations(folder / str(seed), backbone, seed, options)
            found += kept.count(PLANTED) >= len(kept) / 2
            print(f"seed {seed}: {', '.join(kept)}")
    share = 1 - 0.75**4 - 4 * 0.25 * 0.75**3
    print(f"{PLANTED} on half of the edges or more in {found} of {SEEDS} searches; by chance in {share * SEEDS:.1f}")


if __name__ == "__main__":
    main()
