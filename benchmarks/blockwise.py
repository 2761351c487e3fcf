"""Steps per second of NAS-BERT's block-wise training against the same paths trained as whole networks in an undivided supernet.

Both have one teacher pass per batch and train the same operations; the undivided one keeps the graph of the whole network alive and has
one loss at the end. Measured in turns in one process.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from methods.backbone import Backbone, BackboneConfig
from methods.nasbert.block_training import BlockwiseStep
from methods.nasbert.encoding import architecture_of
from methods.nasbert.networks import teacher_spec
from methods.nasbert.options import NasBertOptions
from methods.nasbert.paths import Paths
from methods.nasbert.ranking import block_error, teacher_states
from methods.nasbert.space import space_of
from methods.nasbert.supernet import NasBertSupernet
from methods.nasbert.survivors import Survivors, bins_of
from methods.network import Network
from methods.tasks.head import Head
from methods.training.initialisation import initialise, load_backbone

MINILM = Path("backbones/minilm-l6")
SHAPE = BackboneConfig(vocabulary=30522, positions=512, types=2, hidden=384, layers=6, heads=12, intermediate=1536)
BATCH, LENGTH, ROUNDS, STEPS = 32, 64, 5, 6


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    backbone = Backbone.load(str(MINILM)) if MINILM.is_dir() else None
    config = backbone.config if backbone else SHAPE
    teacher = Network(teacher_spec(config, Head("mlm")))
    initialise(teacher)
    if backbone:
        load_backbone(teacher, backbone.weights())
    sizes: dict[str, Any] = {"sublayers": 12, "blocks": 3, "hidden_sizes": (128, 192, 256), "embedding_sizes": (384,)}
    options = NasBertOptions(**sizes)
    space = space_of(options, config)
    supernet = NasBertSupernet(space, config, Head("mlm"))
    supernet.load_teacher(teacher.eval())
    paths = Paths(space)
    survivors = Survivors(paths, bins_of(options.shrinking, space, config, paths), options.shrinking.bins, space.blocks)
    step = BlockwiseStep(supernet, teacher, lambda batch: batch, survivors, tuple(range(space.blocks)), options, 0)
    batch = {"input_ids": torch.randint(1000, 20000, (BATCH, LENGTH)), "attention_mask": torch.ones(BATCH, LENGTH, dtype=torch.long)}

    def whole() -> None:
        """The paths that block-wise training would draw at this step, as one network."""
        chosen = [paths[step.path_number(block)] for block in step.blocks]
        architecture = architecture_of(config.hidden, chosen)
        with torch.no_grad():
            target = teacher_states(teacher, batch, space.blocks)[-1]
        _backward(block_error(supernet.encode(batch, architecture)[-1], target, batch["attention_mask"]))

    def blockwise() -> None:
        step(batch, _backward)

    print(f"{'precision':<12}{'block-wise':>14}{'undivided':>14}{'ratio':>8}   steps/s, {BATCH} x {LENGTH} tokens, one thread")
    for precision in ("fp32", "bf16"):
        rates = _in_turns((blockwise, whole), supernet, step, precision)
        print(f"{precision:<12}{rates[0]:>14.2f}{rates[1]:>14.2f}{rates[0] / rates[1]:>8.2f}")


def _backward(loss: Tensor) -> None:
    loss.backward()  # type: ignore[no-untyped-call]


def _in_turns(runs: tuple[Callable[[], None], ...], supernet: NasBertSupernet, step: BlockwiseStep, precision: str) -> list[float]:
    """Steps per second of each, the same paths in both, rounds interleaved."""
    optimizer = torch.optim.AdamW(supernet.parameters(), lr=1e-4)
    seconds: list[list[float]] = [[] for _ in runs]
    supernet.train()
    for round_ in range(ROUNDS + 1):
        for place, run in enumerate(runs):
            started = time.perf_counter()
            for i in range(STEPS):
                step.step = round_ * STEPS + i
                with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                    run()
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            if round_:
                seconds[place].append(time.perf_counter() - started)
    return [STEPS / sorted(found)[len(found) // 2] for found in seconds]


if __name__ == "__main__":
    main()
