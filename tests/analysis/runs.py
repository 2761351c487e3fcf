"""Run folders made by hand: every number in them is chosen, so that what the analysis makes of them can be computed on paper."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import yaml

from methods.costs import Costs
from methods.recipe import StageRecord
from methods.space import Architecture
from search.archive import Archive
from search.measurement import Kind, Measurement
from search.predictions import Predictions
from search.tables import SearchRow

EXAMPLES = 100
LABELS = np.arange(EXAMPLES) % 2


def architecture(heads: int, method: str = "dynabert") -> Architecture:
    return Architecture.of(method, {"layers": [0, 1], "heads": [heads, heads], "neurons": [4 * heads, 4 * heads]})


def costs(gigaflops: float, other: int | None = None) -> Costs:
    return Costs(1_000_000, int(gigaflops * 2e6) if other is None else other, int(gigaflops * 1e9))


class Folder:
    """Writes a run folder through `Archive`, measurement by measurement."""

    def __init__(
        self, path: Path, budgets: Sequence[dict[str, object]], task: str = "sst2", metric: str = "accuracy", **experiment: object
    ) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self.path, self.task, self.metric = path, task, metric
        written = {"budgets": list(budgets), "cost": {"length": 64, "batch": 1}, "seeds": [0], **experiment}
        (path / "experiment.yaml").write_text(yaml.safe_dump(written))
        self.archive = Archive(path / "archive.db")
        self._count = 0
        self.trained = 0
        """How often the supernets were trained again."""

    def measure(
        self,
        which: Architecture,
        quality: float,
        split: str,
        kind: Kind = "shared",
        cost: Costs | None = None,
        control: str = "",
        seed: int = 0,
        correct: np.ndarray | None = None,
        logits: np.ndarray | None = None,
        labels: np.ndarray | None = None,
        also: dict[str, float] | None = None,
    ) -> None:
        """`also`: further metrics. `correct`: kept as predictions that are right there and wrong elsewhere (two classes)."""
        self._count += 1
        of_supernet = kind in ("shared", "predicted", "assembled")
        weights = f"supernet {self.trained} of {which.method} {seed}" if of_supernet else f"weights {self._count}"
        found = Measurement(
            which, self.task, split, f"digest of {split}", weights, kind, seed, self.metric, {self.metric: quality, **(also or {})},
            cost or costs(1.0), control,
        )  # fmt: skip
        labels = LABELS if labels is None else labels
        if correct is not None:
            answers = np.where(correct, labels, 1 - labels)
            logits = np.eye(2, dtype=np.float32)[answers]
        kept = None if logits is None else Predictions(np.arange(len(labels)), logits, labels)
        assert self.archive.add(found, kept)

    @contextmanager
    def on(self, task: str, metric: str = "accuracy") -> Iterator[None]:
        """What is written within the block is of this task."""
        before = self.task, self.metric
        self.task, self.metric = task, metric
        yield
        self.task, self.metric = before

    def control(self, name: str, which: Architecture, quality: float, cost: Costs, split: str = "validation", **more: object) -> None:
        self.measure(which, quality, split, "control", cost, name, **more)  # type: ignore[arg-type]

    def stage(self, method: str, stage: str, steps: int, flops: float, seed: int = 0, subnetworks: int | None = 3) -> None:
        """`subnetworks`: so many of them are trained in each step; None: nobody counted."""
        counted = None if subnetworks is None else subnetworks * steps
        self.archive.record_stage(self.task, method, seed, StageRecord(stage, steps, 10 * steps, flops, steps / 2, counted))

    def searched(self, method: str, budget: str, evaluations: int, seconds: float, seed: int = 0, strategy: str = "random") -> None:
        self.archive.record_search(SearchRow(self.task, method, seed, strategy, budget, evaluations, seconds, 1e12))


def right(*wrong: int, n: int = EXAMPLES) -> np.ndarray:
    """Right everywhere but in these rows."""
    correct = np.ones(n, dtype=bool)
    correct[list(wrong)] = False
    return correct


def small_run(path: Path) -> Path:
    """Budget `small`: 1 GFLOPs. dynabert's best on search within it is heads 3; one random architecture is in the window, one is not."""
    run = Folder(path, [{"name": "small", "max_flops": "1G"}, {"name": "tiny", "max_flops": 1e8}])
    for heads, gigaflops, on_search in ((1, 0.3, 0.70), (2, 0.6, 0.80), (3, 1.0, 0.86), (4, 1.2, 0.95)):
        run.measure(architecture(heads), on_search, "search", cost=costs(gigaflops))
    run.measure(architecture(3), 0.90, "validation", "finished", costs(1.0), correct=right(*range(10)))
    run.measure(architecture(4), 0.97, "validation", "finished", costs(1.2), correct=right(0, 1, 2))
    run.control("teacher", Architecture.of("teacher", {"layers": 2}), 0.96, costs(1.5), correct=right(0, 1, 2, 3))
    run.control("random", architecture(5), 0.84, costs(0.95), correct=right(*range(16)))
    run.control("random", architecture(6), 0.80, costs(0.90), correct=right(*range(20)))
    run.control("random", architecture(2), 0.60, costs(0.6), correct=right(*range(40)))
    run.control("rewired-cut", architecture(3), 0.55, costs(1.0), correct=right(*range(45)))
    run.control("rewired-cut", architecture(2), 0.50, costs(0.6), correct=right(*range(50)))
    run.control("truncated-kd", Architecture.of("truncated-kd", {"layers": [0]}), 0.82, costs(0.75), correct=right(*range(18)))
    run.control("truncated-kd", Architecture.of("truncated-kd", {"layers": [0, 1]}), 0.91, costs(1.5), correct=right(*range(9)))
    run.stage("dynabert", "width", 100, 2e12)
    run.stage("dynabert", "width-and-depth", 300, 4e12)
    run.stage("teacher", "fine-tune", 50, 1e12)
    run.stage("truncated-kd", "truncated-kd-1", 40, 5e11)
    run.stage("truncated-kd", "truncated-kd-2", 40, 9e11)
    run.searched("dynabert", "small", 4, 12.0)
    run.archive.close()
    return path
