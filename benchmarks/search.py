"""Which search strategy finds the best front, on a problem without training: `python -m benchmarks.search`, or with names behind it.

The problem: BERT-base cut to 3 to 12 first layers, each with heads and neurons of its own, under 0.6 of the encoder's weights. The error
is made up: a layer gives what the scarcer of its heads and neurons allows, with falling returns, and later layers weigh more. A strategy
is worth the hypervolume of (error, share of the weights) below (1, 0.6) of its 300 measurements, relative to 0.357, which a run of 20,000
reached (the best possible is 0.374). Beside ours, Optuna's own samplers with integer parameters and named constraints.

`search` is the whole loop with an archive on disk; its speed leaves out what the strategy takes to propose and the problem to evaluate.
The Gaussian process takes an hour and more, so it is measured only where it is named.
"""

from __future__ import annotations

import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import optuna
from optuna.samplers import BaseSampler, NSGAIISampler, TPESampler

from methods.backbone import BackboneConfig
from methods.budget import Budget
from methods.costs import Costs
from methods.dynabert.space import encoder_spec, transformer_layer
from methods.network import NetworkSpec
from methods.space import Architecture, Assignment, Choice, Form, SearchSpace, Value
from methods.tasks.head import Head
from search.archive import Archive
from search.loop import search
from search.measurement import Measurement
from search.strategies.registry import AUTO, Entry, entry, register, resolve
from search.strategies.strategy import Problem, Strategy

LAYERS, LEAST = 12, 3
HEADS, NEURONS = (2, 4, 6, 8, 10, 12), (512, 1024, 2048, 3072)
LIMIT, LONG_RUN = 0.6, 0.357
EVALUATIONS, SEEDS = 300, range(5)
NAMES = ("random", "tpe", "nsga2", "evolution", "predictor")
OPTUNA: dict[str, Callable[[int], BaseSampler]] = {
    "Optuna's TPE": lambda seed: TPESampler(seed=seed),
    "Optuna's NSGA-II (50)": lambda seed: NSGAIISampler(population_size=50, seed=seed),
}
IMPORTANCE = np.sort(np.random.default_rng(7).uniform(0.3, 1.7, LAYERS))


class LayerwiseSpace(SearchSpace):
    """Depth, and heads and neurons of each layer; genes of layers beyond the depth do not exist."""

    method = "layerwise"
    choices = (
        Choice("depth", tuple(range(LEAST, LAYERS + 1)), ordered=True, monotone=True),
        *(Choice(f"heads.{i}", HEADS, ordered=True, monotone=True) for i in range(LAYERS)),
        *(Choice(f"neurons.{i}", NEURONS, ordered=True, monotone=True) for i in range(LAYERS)),
    )

    def decode(self, assignment: Assignment) -> Architecture:
        kept = range(int(assignment["depth"]))
        return Architecture.of(self.method, {name: [assignment[f"{name}.{i}"] for i in kept] for name in ("heads", "neurons")})

    def encode(self, architecture: Architecture) -> dict[str, Value]:
        genes = architecture.choices
        depth = len(genes["heads"])
        assignment: dict[str, Value] = {choice.name: choice.values[0] for choice in self.choices}
        layers = {f"{name}.{i}": value for name, values in genes.items() for i, value in enumerate(values)}
        return {**assignment, **layers, "depth": depth}

    def size(self) -> int:
        return sum((len(HEADS) * len(NEURONS)) ** depth for depth in range(LEAST, LAYERS + 1))

    def anchors(self) -> list[Architecture]:
        """All layers alike: every depth by two widths."""
        widths = ((12, 3072), (6, 1024))
        return [
            Architecture.of(self.method, {"heads": [a] * depth, "neurons": [f] * depth})
            for depth in range(LEAST, LAYERS + 1)
            for a, f in widths
        ]

    def spec(self, architecture: Architecture, backbone: BackboneConfig, head: Head, form: Form = "deployed") -> NetworkSpec:  # noqa: ARG002
        genes = architecture.choices
        pairs = enumerate(zip(genes["heads"], genes["neurons"], strict=True))
        return encoder_spec(backbone, head, [transformer_layer(backbone, i, a, f) for i, (a, f) in pairs])


def weights(architecture: Architecture) -> int:
    """Entries of the matrices of the layers: four of 64 a by 768 and two of f by 768."""
    genes = architecture.choices
    return sum(256 * 768 * a for a in genes["heads"]) + sum(2 * 768 * f for f in genes["neurons"])


FULL = weights(LayerwiseSpace().largest())


@cache
def cost_of(architecture: Architecture) -> Costs:
    """Weights of the layers alone, and their products with a text of 128 tokens."""
    return Costs(0, weights(architecture), 2 * 128 * weights(architecture))


def error(architecture: Architecture) -> float:
    """Between 0 and 1, the smaller the better."""
    genes = architecture.choices
    heads, neurons = np.array(genes["heads"]), np.array(genes["neurons"])
    worth = np.minimum(np.sqrt(heads / 12), 1.15 * (neurons / 3072) ** 0.35)
    return float(1 - (IMPORTANCE[: len(heads)] @ worth / IMPORTANCE.sum()) ** 0.8)


BUDGET, COST = Budget(max_params_non_embedding=LIMIT * FULL), "max_params_non_embedding"


@dataclass(frozen=True)
class Run:
    """What one run found; seconds of processor time of the strategy, and of wall clock and processor of everything else."""

    found: Sequence[Architecture]
    proposing: float = math.nan
    rest: float = math.nan
    rest_processor: float = math.nan

    @property
    def worth(self) -> float:
        return hypervolume(self.found) / LONG_RUN

    @property
    def distinct(self) -> float:
        return len(set(self.found)) / len(self.found)


def main(names: Sequence[str] = NAMES) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space = LayerwiseSpace()
    print(f"{EVALUATIONS} evaluations, seeds 0 to {SEEDS[-1]}; `auto` is {resolve(AUTO, space.size())}")
    print(f"{'strategy':<24}{'worth':>7}{'spread':>8}{'least':>7}{'distinct':>10}{'proposing':>16}{'search':>30}")
    for name in names:
        show(name, [ours(name, seed) for seed in SEEDS])
    for name, sampler in OPTUNA.items():
        show(name, [theirs(sampler, seed) for seed in SEEDS])


def show(name: str, runs: Sequence[Run]) -> None:
    """One line of the table."""
    worth = np.array([run.worth for run in runs])
    proposing, rest, processor = (np.mean([getattr(run, part) for run in runs]) for part in ("proposing", "rest", "rest_processor"))
    figures = f"{worth.mean():>7.3f}{worth.std(ddof=1):>8.3f}{worth.min():>7.3f}{np.mean([run.distinct for run in runs]):>10.1%}"
    took = "" if math.isnan(rest) else f"{proposing / EVALUATIONS * 1e3:>10.2f} ms each{EVALUATIONS / rest:>10,.0f}/s"
    print(f"{name:<24}{figures}{took}{f' ({EVALUATIONS / processor:,.0f} per processor second)' if took else ''}", flush=True)


def hypervolume(found: Sequence[Architecture]) -> float:
    """Of (error, share of the weights) below (1, `LIMIT`)."""
    from optuna._hypervolume import compute_hypervolume

    reference = np.array([1.0, LIMIT])
    losses = np.array([(error(architecture), weights(architecture) / FULL) for architecture in found])
    return float(compute_hypervolume(np.minimum(losses, reference), reference))


@dataclass
class Clock:
    """Seconds spent inside, of wall clock and of the processor."""

    wall: float = 0.0
    processor: float = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        wall, processor = time.perf_counter(), time.process_time()
        yield
        self.wall += time.perf_counter() - wall
        self.processor += time.process_time() - processor


class Clocked(Strategy):
    """Another strategy, on a clock from its making on."""

    def __init__(self, name: str, problem: Problem, clock: Clock) -> None:
        self.clock = clock
        with clock.running():
            self.inner = entry(name).make(problem)

    def ask(self, count: int) -> list[Architecture]:
        with self.clock.running():
            return self.inner.ask(count)

    def tell(self, architecture: Architecture, score: float | None, violations: Mapping[str, float]) -> None:
        with self.clock.running():
            self.inner.tell(architecture, score, violations)


def ours(name: str, seed: int) -> Run:
    """A strategy in the search loop, with an archive on disk."""
    whole, proposing, evaluating = Clock(), Clock(), Clock()

    def evaluate(architectures: Sequence[Architecture]) -> list[tuple[Measurement, None]]:
        with evaluating.running():
            return [(_measurement(architecture), None) for architecture in architectures]

    clocked = f"{name}, clocked, seed {seed}"
    register(clocked, Entry(lambda problem: Clocked(name, problem, proposing), EVALUATIONS, entry(name).reads_budget))
    with tempfile.TemporaryDirectory() as folder, Archive(Path(folder) / "archive.db") as archive, whole.running():
        result = search(
            LayerwiseSpace(), evaluate, [BUDGET], clocked, EVALUATIONS, seed, cost_of,
            lambda a: archive.find(a.id, "made up", "-", "-", "shared"), archive.add, objectives=(COST,),
        )  # fmt: skip
    found = [measurement.architecture for measurement in result.measurements]
    wall, processor = whole.wall - proposing.wall - evaluating.wall, whole.processor - proposing.processor - evaluating.processor
    return Run(found, proposing.processor, wall, processor)


def _measurement(architecture: Architecture) -> Measurement:
    score = {"accuracy": 1 - error(architecture)}
    return Measurement(architecture, "made up", "search", "-", "-", "shared", 0, "accuracy", score, cost_of(architecture))


def theirs(sampler: Callable[[int], BaseSampler], seed: int) -> Run:
    """A sampler of Optuna as it is: every trial counts, repeated and over the limit or not."""
    space = LayerwiseSpace()
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=sampler(seed))
    found = []
    for _ in range(EVALUATIONS):
        trial = study.ask()
        places = {choice.name: trial.suggest_int(choice.name, 0, len(choice.values) - 1) for choice in space.choices}
        found.append(space.decode({choice.name: choice.values[places[choice.name]] for choice in space.choices}))
        trial.set_constraint(COST, BUDGET.violations(cost_of(found[-1]))[COST])
        study.tell(trial, (error(found[-1]), weights(found[-1]) / FULL))
    return Run(found)


if __name__ == "__main__":
    main(sys.argv[1:] or NAMES)
