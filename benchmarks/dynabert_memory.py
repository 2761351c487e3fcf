"""How much memory a step of DynaBERT's width-and-depth stage takes at its peak, against plain fine-tuning of the whole network.

`python -m benchmarks.dynabert_memory [--backbone DIRECTORY] [--data DIRECTORY] [--rows N]`

Each in a fresh process: the largest resident memory of the process after two steps (Adam's moments are there in the second), less what was
resident before the model was made (interpreter, libraries, data); `of all`: with it. Target: at most 1.6 times. A batch at its texts'
own length, and a quarter of the rows padded to 128.
"""

from __future__ import annotations

import argparse
import copy
import json
import subprocess
import sys

import psutil
import torch

from benchmarks.corpus_memory import peak
from benchmarks.dynabert_step import optimiser_of, plain, step_of, training_step
from benchmarks.setting import LENGTH, ROOT, Setting, padded, parser

WAYS = ("fine-tuning", "stage 2")


def main() -> None:
    options = parser("dynabert_memory")
    options.add_argument("--rows", type=int, default=32, help="of a batch")
    options.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)  # way and length: what the child does
    asked = options.parse_args()
    if asked.measure:
        print(json.dumps(measure(asked, *asked.measure)))
        return
    print("peak memory in MiB over that before the model was made")
    for length in ("own", "padded"):
        found = {way: run_apart(asked, way, length) for way in WAYS}
        more = found["stage 2"]["peak"] / found["fine-tuning"]["peak"]
        whole = sum(found["stage 2"].values()) / sum(found["fine-tuning"].values())
        said = ", ".join(f"{way} {memory['peak']:.0f}" for way, memory in found.items())
        batch = f"{asked.rows} texts" if length == "own" else f"{asked.rows // 4} texts padded to {LENGTH}"
        print(f"  {batch}: {said}: {more:.2f} times ({whole:.2f} of all)")


def run_apart(asked: argparse.Namespace, way: str, length: str) -> dict[str, float]:
    options = ["--backbone", asked.backbone, "--data", asked.data, "--rows", str(asked.rows), "--measure", way, length]
    command = [sys.executable, "-m", "benchmarks.dynabert_memory", *options]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(asked: argparse.Namespace, way: str, length: str) -> dict[str, float]:
    """MiB resident before the model is made, and what the peak of two steps adds."""
    setting = Setting.of(asked)
    (batch,) = setting.batches(1, asked.rows if length == "own" else asked.rows // 4)
    batch = padded(batch) if length == "padded" else batch
    before = psutil.Process().memory_info().rss / 2**20
    if way == "fine-tuning":
        network = setting.teacher.train()
        trained = training_step(network, lambda: plain([network], batch), optimiser_of(network))
    else:
        student = setting.supernet()
        del setting.__dict__["teacher"]
        teacher = copy.deepcopy(student).eval().requires_grad_(False)
        step = step_of(student, teacher)
        trained = training_step(student, lambda: step(batch), optimiser_of(student))
    for _ in range(2):
        trained()
    return {"before": before, "peak": peak() - before}


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
