"""How fast costs are without building a model: one spec, and many architectures in a vectorised call. Target: 100 us, 50,000/s."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch

from methods import registry
from methods.backbone import BERT_BASE
from methods.costs import costs
from methods.space import SearchSpace
from methods.tasks.head import Head

HEAD = Head("classification", 2)


def main() -> None:
    torch.set_num_threads(1)
    print(f"{'method':<10}{'costs(spec)':>14}{'spec + costs':>14}{'vectorised':>18}{'one by one':>16}")
    for name in ("dynabert", "nasbert", "adabert"):
        method = registry.get(name)
        measure(name, method.space(method.options(), BERT_BASE))


def measure(name: str, space: SearchSpace) -> None:
    """One line of the table."""
    architecture = space.largest()
    spec = space.spec(architecture, BERT_BASE, HEAD)
    alone = seconds(lambda: costs(spec), 2000)
    both = seconds(lambda: costs(space.spec(architecture, BERT_BASE, HEAD)), 500)
    rng, n = np.random.default_rng(0), 100_000
    columns = {c.name: rng.integers(0, len(c.values), n) for c in space.choices}
    vectorised = n / seconds(lambda: space.batch_costs(columns, BERT_BASE, HEAD), 3)
    print(f"{name:<10}{alone * 1e6:>11.1f} us{both * 1e6:>11.1f} us{vectorised:>16,.0f}/s{1 / both:>14,.0f}/s")


def seconds(call: Callable[[], object], repeats: int) -> float:
    """Median seconds of a call."""
    found = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        found.append(time.perf_counter() - started)
    return float(np.median(found))


if __name__ == "__main__":
    main()
