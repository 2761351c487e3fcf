"""What Ray adds to an evaluation, what a second worker brings, and where the driver saturates.

Overhead: a warm actor answers at once with a measurement and the predictions of 2,000 rows; the driver commits each. Real forwards: one
and two one-thread actors score architectures of a DynaBERT supernet (hidden 128, 4 layers) on 500 texts of 32 tokens. Simulation: up to
1,000 workers that answer after a fixed time; they sleep in few processes, while the driver hands out, collects and commits as ever.
Prints a table, and draws the simulation where a file is named: `python -m benchmarks.ray_overhead docs/ray-scaling.png`.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch

from methods.backbone import BackboneConfig
from methods.dynabert.space import DynaBertSpace
from methods.dynabert.supernet import DynaBertSupernet
from methods.space import Architecture
from methods.tasks.head import Head
from search.archive import Archive
from search.limits import CostFunction
from search.measurement import Measurement
from search.predictions import Predictions
from search.ray_.pool import Pool

HEAD = Head("classification", 2)
BACKBONE = BackboneConfig(vocabulary=1000, positions=64, types=2, hidden=128, layers=4, heads=4, intermediate=512)
ROWS = 2000
WORKERS, SECONDS = (1, 10, 30, 100, 300, 1000), 0.5
Evaluated = tuple[Measurement, Predictions]


def answer(number: int, measurement: Measurement) -> Evaluated:
    """A measurement of its own key."""
    logits = np.zeros((ROWS, 2), dtype=np.float32)
    return replace(measurement, weights_digest=str(number)), Predictions(np.arange(ROWS), logits, np.zeros(ROWS, dtype=np.int64))


def at_once(measurement: Measurement) -> Callable[[int], Evaluated]:
    return partial(answer, measurement=measurement)


def forwards(stored: Any) -> Callable[[Architecture], int]:
    """Scores architectures on the same texts, in one thread."""
    torch.set_num_threads(1)
    supernet = ray.get(stored)
    words = torch.randint(0, 1000, (4, 125, 32), generator=torch.Generator().manual_seed(0))

    @torch.inference_mode()
    def score(architecture: Architecture) -> int:
        batches = [{"input_ids": ids, "attention_mask": torch.ones_like(ids)} for ids in words]
        outputs = [supernet.forward_logits(batch, architecture)["logits"] for batch in batches]
        return int(torch.cat(outputs).argmax(-1).sum())

    return score


@ray.remote
class Sleepers:
    """Many workers in one process, each of which answers after a time."""

    def __init__(self, measurement: Measurement) -> None:
        self.measurement = measurement

    async def evaluate(self, number: int) -> Evaluated:
        await asyncio.sleep(SECONDS)
        return answer(number, self.measurement)


def committed(pool: Pool, asked: Sequence[Any], archive: Archive | None = None) -> float:
    """Seconds from asking to the last commit."""
    started = time.perf_counter()
    for found in pool(asked):
        if archive is not None:
            archive.add(*found)
    return time.perf_counter() - started


def simulated(workers: int, measurement: Measurement, archive: Archive) -> float:
    """Evaluations per second, twice as many evaluations as workers."""
    hosts = [Sleepers.options(max_concurrency=1000, num_cpus=0.1).remote(measurement) for _ in range(2)]  # type: ignore[attr-defined]
    ray.get([host.evaluate.remote(-1) for host in hosts])
    pool = Pool(lambda: at_once, workers)
    pool._idle = [hosts[i % len(hosts)] for i in range(workers)]
    count = max(20, 2 * workers)
    seconds = committed(pool, range(1_000_000 * workers, 1_000_000 * workers + count), archive)
    pool.close()
    return count / seconds


def main() -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(
        address="local", num_cpus=2, object_store_memory=150 * 2**20, include_dashboard=False, log_to_driver=False, logging_level="error"
    )
    space = DynaBertSpace(BACKBONE, (0.25, 0.5, 0.75, 1.0), (0.25, 0.5, 0.75, 1.0))
    architecture = space.largest()
    used = CostFunction(space, BACKBONE, HEAD, 32)(architecture)
    measurement = Measurement(architecture, "toy", "search", "s", "w", "shared", 0, "accuracy", {"accuracy": 0.5}, used)
    options = {"num_cpus": 1}
    with tempfile.TemporaryDirectory() as folder, Archive(Path(folder) / "archive.db") as archive:
        with Pool(lambda: partial(at_once, measurement), 1, "at once", options) as pool:
            committed(pool, range(20), archive)
            both = committed(pool, range(100, 400), archive) / 300
            alone = committed(pool, range(500, 800)) / 300
        made = [answer(n, measurement) for n in range(1000, 1300)]
        started = time.perf_counter()
        for one in made:
            archive.add(*one)
        commit = (time.perf_counter() - started) / 300
        print(
            f"per evaluation: {both * 1e3:.2f} ms with the commit, {alone * 1e3:.2f} ms of Ray; the commit by itself {commit * 1e3:.2f} ms"
        )
        stored = ray.put(DynaBertSupernet(space, BACKBONE, HEAD).eval())
        asked = list(space.enumerate()) * 6
        rates = []
        for workers in (1, 2):
            with Pool(lambda: partial(forwards, stored), workers, "forwards", options) as pool:
                committed(pool, asked[:16])
                rates.append(len(asked) / committed(pool, asked))
        print(f"real forwards: {rates[0]:.1f} evaluations/s with one worker, {rates[1]:.1f} with two: {rates[1] / rates[0]:.2f}x")
        print(f"workers that answer after {SECONDS} s:")
        found = [(workers, simulated(workers, measurement, archive)) for workers in WORKERS]
    for workers, rate in found:
        print(f"{workers:>6} workers {rate:>8.1f} evaluations/s  {rate * SECONDS / workers:>6.0%} of ideal")
    ray.shutdown()
    if len(sys.argv) > 1:
        draw(found, Path(sys.argv[1]))


def draw(found: Sequence[tuple[int, float]], path: Path) -> None:
    """Evaluations per second over workers, and the ideal."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    workers, rates = zip(*found, strict=True)
    figure, axes = pyplot.subplots(figsize=(6, 3.6), layout="constrained")
    axes.plot(workers, [w / SECONDS for w in workers], color="0.6", linestyle="--", label="ideal")
    axes.plot(workers, rates, marker="o", color="#0072b2", label="measured")
    axes.set(xscale="log", yscale="log", xlabel="workers", ylabel="evaluations per second", title=f"Evaluations of {SECONDS} s, one driver")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
