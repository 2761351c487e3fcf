"""How long a query takes in an archive of many measurements: `python -m benchmarks.query [--sizes 100000 1000000]`.

The measurements are made up: three seeds of one method scored with shared weights, some winners finished, latency on two devices. A query
(`search.query.best`) gets the columns of an archive that are loaded, and puts out the answer with its measurements read from the database.
Told apart: loading, which gathers the rows by architecture (once per process; every call of the command line pays it), the first query,
and later ones: the median of 20 different budgets of parameters, FLOPs and latency. Targets: 50 ms at 100,000 measurements and 300 ms at
1,000,000, for every query. Times are the processor's.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import insert

from methods.budget import Budget
from methods.costs import Costs
from methods.space import Architecture
from search.archive import Archive
from search.measurement import Measurement
from search.query import Answer, best
from search.tables import MEASUREMENTS, to_row

SEEDS, QUERIES, CHUNK, FINISHED_EVERY = 3, 20, 20_000, 10_000


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.query")
    parser.add_argument("--sizes", type=int, nargs="+", default=[100_000, 1_000_000])
    for size in parser.parse_args().sizes:
        with tempfile.TemporaryDirectory() as folder:
            measure(size, Path(folder) / "archive.db")


def measure(size: int, path: Path) -> None:
    """The figures of one archive."""
    with Archive(path) as archive:
        fill(archive, size)
        columns, loading = clocked(lambda: archive.columns(task="made up"))
        budgets = list(drawn())
        taken = []
        for budget in budgets:
            answer, seconds = clocked(lambda b=budget: best(columns, b))
            assert isinstance(answer, Answer) and budget.met_by(answer.costs)
            taken.append(seconds)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    later = np.median(taken[1:]) * 1e3
    print(
        f"{len(columns):>9,} measurements: loading {loading:.2f} s; first query {taken[0] * 1e3:.1f} ms, later ones {later:.1f} ms", end=""
    )
    print(f" (slowest {max(taken[1:]) * 1e3:.1f} ms); {memory:,.0f} MiB of memory at most", flush=True)


def clocked(call: Any) -> tuple[Any, float]:
    """What it gives, and seconds of processor time."""
    started = time.process_time()
    found = call()
    return found, time.process_time() - started


def fill(archive: Archive, size: int) -> None:
    """Writes rows in large transactions, which an archive itself never does."""
    rng, rows = np.random.default_rng(0), []
    with archive._transaction() as connection:
        for i in range(size):
            rows.append(row(i // SEEDS, i % SEEDS, rng.random(4), "finished" if i // SEEDS % FINISHED_EVERY == 0 else "shared"))
            if len(rows) == CHUNK or i == size - 1:
                connection.execute(insert(MEASUREMENTS), rows)
                rows.clear()


def row(number: int, seed: int, draws: np.ndarray, kind: Any) -> dict[str, Any]:
    """A network is the better the larger it is, but for noise."""
    share = (number * 7919 % 10_007) / 10_007
    cost = Costs(
        12_000_000, int(1e6 + 1e7 * share), int(1e8 + 1.3e9 * share), latency={"phone": 0.1 + share, "laptop": 0.01 + 0.1 * draws[0]}
    )
    architecture = Architecture("made up", json.dumps({"number": number}))
    accuracy = {"accuracy": float(0.7 + 0.2 * share + 0.05 * draws[1])}
    return to_row(
        Measurement(architecture, "made up", "search", "-", f"weights {seed}", kind, seed, "accuracy", accuracy, cost, created="-")
    )


def drawn() -> Iterator[Budget]:
    rng = np.random.default_rng(1)
    for _ in range(QUERIES):
        params, flops, phone, laptop = rng.uniform(0.3, 1.0, 4)
        yield Budget(13e6 + 1e7 * params, None, 1e8 + 1.3e9 * flops, {"phone": 0.1 + phone, "laptop": 0.01 + 0.1 * laptop})


if __name__ == "__main__":
    main()
