"""How many sub-networks a second a trained supernet scores, beside two plain ways that extract each network first.

`python -m benchmarks.evaluation [--backbone DIRECTORY] [--data DIRECTORY] [--rounds N] [--ways ...]`, on SST-2's `validation`, one thread.

- `supernet`: what a search does. The shared weights stay where they are; texts are tokenised once, batched by length and by tokens; the
  last layer computes the first token alone, where the output layer reads no other.
- `padded`: each network is extracted, the texts are tokenised, padded to 128 and read in batches of 128 rows.
- `bucketed`: each network is extracted and reads cached tokens in batches of 128 rows by length.

The ways take turns, network by network. Targets, in processor time: 5 times `padded`, 1.3 times `bucketed`. All must give the same metrics.
"""

from __future__ import annotations

import argparse
import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import torch

from methods.backbone import Backbone
from methods.dynabert.space import DynaBertSpace
from methods.dynabert.supernet import DynaBertSupernet
from methods.evaluation import evaluate
from methods.space import Architecture
from methods.supernet import Batch, inputs
from methods.tasks.batches import Collate, Encoded, evaluation_batches, joint
from methods.tasks.metrics import compute
from methods.tasks.split import Split
from methods.tasks.task import Task, load_task
from methods.training.initialisation import load_backbone

ROOT = Path(__file__).parents[1]
ROWS, LENGTH = 128, 128
Way = Callable[[Architecture], dict[str, float]]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evaluation")
    parser.add_argument("--backbone", type=Path, default=ROOT / "backbones" / "minilm-l6")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("ELASTIBENCH_DATA", ROOT.parent / "shared" / "data")) / "sst2")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--ways", nargs="+", default=["supernet", "padded", "bucketed"], help="supernet is always among them")
    asked = parser.parse_args()
    if not asked.backbone.is_dir():
        print(f"evaluation: no backbone at {asked.backbone}; name one with --backbone")
        return
    torch.set_num_threads(1)
    real = asked.data.is_dir()
    task = load_task("sst2", str(asked.data)) if real else load_task("demo", "generated")
    supernet, collate = trained_on(Backbone.load(str(asked.backbone)), task)
    ways = the_ways(supernet, collate, task.split("validation"), task)
    of = f"SST-2 from {asked.data}" if real else f"generated texts, since there is no {asked.data}"
    ways = {name: way for name, way in ways.items() if name in {"supernet", *asked.ways}}
    architectures = list(supernet.space.enumerate())
    print(f"{len(architectures)} DynaBERT sub-networks of {asked.backbone.name}, {len(task.split('validation'))} texts: {of}")
    taken = measured(ways, architectures, asked.rounds)
    for name, seconds in taken.items():
        print(f"  {name:<9}{asked.rounds * len(architectures) / seconds:7.3f} a second{seconds / taken['supernet']:8.2f} x supernet's time")


def trained_on(backbone: Backbone, task: Task) -> tuple[DynaBertSupernet, Collate]:
    """A supernet with the backbone's weights whose output layer answers one class for half of the texts: so metrics tell networks apart."""
    torch.manual_seed(0)
    space = DynaBertSpace(backbone.config)
    supernet = DynaBertSupernet(space, backbone.config, task.head).eval()
    load_backbone(supernet, backbone.weights())
    collate = joint(backbone.tokenizer, LENGTH)
    classifier = supernet.get_parameter("head.classifier.weight")
    classifier.data.normal_()
    whole = evaluate(lambda batch: supernet(batch, space.largest()), collate, task.split("validation"), task.spec)
    supernet.get_parameter("head.classifier.bias").data -= torch.from_numpy(whole.logits).median(dim=0).values
    return supernet, collate


def the_ways(supernet: DynaBertSupernet, collate: Collate, split: Split, task: Task) -> dict[str, Way]:
    cached = batches(collate, collate.encode(split))

    def shared(architecture: Architecture) -> dict[str, float]:
        return evaluate(lambda batch: supernet.forward_logits(batch, architecture), collate, split, task.spec).metrics

    def padded(architecture: Architecture) -> dict[str, float]:
        whole = joint(collate.tokenizer, LENGTH, pad_to=LENGTH)  # type: ignore[attr-defined]
        return scored(architecture, batches(whole, whole.encode(split), by_length=False))

    def bucketed(architecture: Architecture) -> dict[str, float]:
        return scored(architecture, cached)

    def scored(architecture: Architecture, made: list[tuple[list[int], Batch]]) -> dict[str, float]:
        network = supernet.extract(architecture).eval()
        with torch.inference_mode():
            logits = torch.cat([network(**inputs(batch))["logits"] for _, batch in made])
        order = [row for rows, _ in made for row in rows]
        return compute(task.spec, logits.numpy(), split.labels[order])

    return {"supernet": shared, "padded": padded, "bucketed": bucketed}


def batches(collate: Collate, encoded: Encoded, by_length: bool = True) -> list[tuple[list[int], Batch]]:
    lengths = encoded.lengths if by_length else [LENGTH] * len(encoded)
    return [(rows, collate(encoded, rows)) for rows in evaluation_batches(lengths, ROWS)]


def measured(ways: dict[str, Way], architectures: list[Architecture], rounds: int) -> dict[str, float]:
    """Seconds of processor time of each way over all; raises AssertionError where metrics differ."""
    taken, rng = dict.fromkeys(ways, 0.0), random.Random(0)
    for architecture in architectures * rounds:
        found = {}
        for name in rng.sample(list(ways), len(ways)):
            started = time.process_time()
            found[name] = ways[name](architecture)
            taken[name] += time.process_time() - started
        assert len({tuple(metrics.items()) for metrics in found.values()}) == 1, found
    return taken


if __name__ == "__main__":
    main()
