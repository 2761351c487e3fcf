"""What n tasks x b budgets cost with each method: its recorded work, split by what it has to be done anew for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from analysis.controls import AUGMENTATION, TEACHER
from analysis.spending import common, of_seed, own
from analysis.winners import winners
from methods.budget import Budget, format_quantity

if TYPE_CHECKING:
    from analysis.runs import Run
    from search.tables import SearchRow, StageRow

COUNTS = (1, 3, 8)
WHAT = (
    "Cost of n tasks x b budgets: FLOPs of training and search for one seed, extrapolated from the recorded means: a + b x (per budget) + "
    "n x (per task) + n x b x (per task and budget). The teacher's row is needed by every method and is in no other row; so is that of "
    "augmentation, where there is one, by those that read its copies. Tuning is done once for all tasks."
)
NO_METHODS = (TEACHER, AUGMENTATION)
TUNING = "tune"
"""The stage that every task has whole."""

Work = tuple[float, float]
"""FLOPs and seconds."""


@dataclass(frozen=True)
class Price:
    """The work of a method for one seed, in (FLOPs, seconds): `once` for everything, and per budget, per task, and per task and budget."""

    run: str
    method: str
    once: Work
    per_budget: Work
    per_task: Work
    per_both: Work

    def of(self, tasks: int, budgets: int) -> Work:
        """All of it."""
        parts = np.array([self.once, self.per_budget, self.per_task, self.per_both])
        flops, seconds = np.array([1, budgets, tasks, tasks * budgets]) @ parts
        return float(flops), float(seconds)

    def data(self) -> dict[str, Any]:
        """Plain JSON data, the table's cells among them."""
        cells = [{"tasks": n, "budgets": b, "flops": self.of(n, b)[0], "seconds": self.of(n, b)[1]} for n in COUNTS for b in COUNTS]
        return {**asdict(self), "cells": cells}


def prices(run: Run, budgets: Sequence[Budget] | None = None) -> list[Price]:
    """Of every method that left a record of its training, then of the teacher and of augmentation."""
    found = [_price(run, method, run.budgets if budgets is None else budgets) for method in run.all_methods]
    for who in NO_METHODS:
        tasks = dict.fromkeys(row.task for row in run.stages if row.method == who)
        of_tasks = [_works(row for row in run.stages if (row.method, row.task) == (who, task)) for task in tasks]
        found.append(Price(run.name, who, (0, 0), (0, 0), _mean(of_tasks), (0, 0)))
    return [price for price in found if price.of(1, 1) != (0, 0)]


def prices_table(found: Sequence[Price], named: bool) -> tuple[list[str], list[list[str]]]:
    """Headings and cells: FLOPs. `named`: with the run's name."""
    sizes = [(n, b) for n in COUNTS for b in COUNTS]
    headings = [*(["run"] if named else []), "method", *(f"{n}x{b}" for n, b in sizes)]
    body = [[*([p.run] if named else []), p.method, *(format_quantity(p.of(n, b)[0]) for n, b in sizes)] for p in found]
    return headings, body


def _price(run: Run, method: str, budgets: Sequence[Budget]) -> Price:
    once, on_corpus_once, per_budget, per_task, per_both = [], [], [], [], []
    for task in run.tasks:
        chosen = {budget.label(): winners(run, task, method, budget) for budget in budgets}
        for seed in run.seeds(task, method):
            rows = [row for row in run.stages if (row.task, row.method, row.seed) == (task, method, seed)]
            searched = [row for row in run.searches if (row.task, row.method, row.seed) == (task, method, seed)]
            once.append(_works(row for row in rows if row.stage == TUNING))
            per_task.append(_works([*(row for row in common(rows) if row.stage != TUNING), *(row for row in searched if not row.budget)]))
            for label, found in chosen.items():
                mine = [w.answer.architecture for w in found if w.seed == seed] if not isinstance(found, str) else []
                stages = [row for architecture in mine for row in own(rows, architecture)]
                if mine:
                    per_both.append(_works([*stages, *(row for row in searched if row.budget == label)]))
    if method in run.corpus_methods:
        on_corpus = [row for row in run.stages if (row.task, row.method) == (run.corpus, method)]
        for seed in run.seeds(run.corpus, method):
            rows = of_seed(on_corpus, seed)
            searched = [row for row in run.searches if (row.task, row.method, row.seed) == (run.corpus, method, seed)]
            on_corpus_once.append(_works([*common(rows), *(row for row in searched if not row.budget)]))
            for budget in budgets:
                found = winners(run, run.corpus, method, budget)
                mine = [w.answer.architecture for w in found if w.seed == seed] if not isinstance(found, str) else []
                stages = [row for architecture in mine for row in own(rows, architecture)]
                if mine:
                    per_budget.append(_works([*stages, *(row for row in searched if row.budget == budget.label())]))
    (flops, seconds), (more_flops, more_seconds) = _mean(once), _mean(on_corpus_once)
    all_once = (flops + more_flops, seconds + more_seconds)
    return Price(run.name, method, all_once, _mean(per_budget), _mean(per_task), _mean(per_both))


def _works(rows: Iterable[StageRow | SearchRow]) -> npt.NDArray[np.float64]:
    total: npt.NDArray[np.float64] = np.array([(row.flops, row.seconds) for row in rows], dtype=np.float64).reshape(-1, 2).sum(axis=0)
    return total


def _mean(works: Sequence[npt.NDArray[np.float64]]) -> Work:
    if not works:
        return 0.0, 0.0
    flops, seconds = np.mean(works, axis=0)
    return float(flops), float(seconds)
