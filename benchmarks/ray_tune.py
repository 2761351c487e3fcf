"""What Ray Tune's `Tuner` adds to a proposal: strategy `ray_tune` beside its `OptunaSearch` asked and told without trials, on the problem
of `benchmarks.search`, in generations of 8. Run with `python -m benchmarks.ray_tune`."""

from __future__ import annotations

import os
import time

import ray

from benchmarks.search import LayerwiseSpace, cost_of, error
from methods.budget import Budget
from search.ray_.optuna_search import OptunaSearchStrategy
from search.ray_.strategy import RayTune
from search.strategies.strategy import Problem, Strategy

GENERATION, GENERATIONS = 8, 12


def seconds(strategy: Strategy) -> tuple[float, float]:
    """Of the first generation, and per proposal of the others."""
    marks = [time.perf_counter()]
    for _ in range(GENERATIONS):
        for architecture in strategy.ask(GENERATION):
            strategy.tell(architecture, -error(architecture), {})
        marks.append(time.perf_counter())
    return marks[1] - marks[0], (marks[-1] - marks[1]) / GENERATION / (GENERATIONS - 1)


def main() -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(address="local", num_cpus=2, object_store_memory=150 * 2**20, include_dashboard=False, logging_level="error")
    problem = Problem(LayerwiseSpace(), Budget(), cost_of, 0, GENERATION * GENERATIONS)
    _, alone = seconds(OptunaSearchStrategy(problem))
    started = time.perf_counter()
    tuned = RayTune(problem)
    try:
        first, each = seconds(tuned)
    finally:
        tuned.close()
    print(f"{first:.1f} s to the first generation, then {each * 1e3:.0f} ms per proposal; without trials {alone * 1e3:.0f} ms")
    print(f"{time.perf_counter() - started:.1f} s for {GENERATION * GENERATIONS} proposals with start and end")
    ray.shutdown()


if __name__ == "__main__":
    main()
