"""`head_to_head`: per task and budget the winner of each method beside the controls, from the archives of one or several runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Literal

from analysis.controls import random_row, teacher_of, teacher_row, truncated_row, untrained_row
from analysis.rows import Block, Row, joined
from analysis.runs import Run, open_runs
from analysis.spending import Cells, empty, search_cost, training_cost
from analysis.summary import COST_COLUMNS, QUALITY_COLUMNS, architecture_cells, cost_cells, quality_cells, together
from analysis.verdict import verdict
from analysis.winners import Winner, winners
from methods.budget import Budget
from methods.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

Format = Literal["table", "md", "tex", "csv", "json"]


@dataclass(frozen=True)
class HeadToHead:
    """The comparison: a block for each task and budget. `runs` are the names of the runs that were read."""

    blocks: tuple[Block, ...]
    runs: tuple[str, ...]

    @property
    def rows(self) -> list[Row]:
        return [row for block in self.blocks for row in block.rows]

    @property
    def frame(self) -> pd.DataFrame:
        """One line per row, all columns, missing numbers as NaN, `why_empty` in words, and the limits and the FLOPs' length and batch."""
        from analysis.rendering import frame

        return frame(self)

    def render(self, format: Format = "table") -> str:
        """`table` (plain text within 120 columns), `md`, `tex` (booktabs), `csv` or `json`."""
        from analysis.rendering import render

        return render(self, format)

    def __str__(self) -> str:
        return self.render("table")


def head_to_head(runs: Sequence[Path | str] | Path | str, budgets: Sequence[Budget] | None = None) -> HeadToHead:
    """Reads the archives of these run folders and sets their methods side by side.

    `budgets` default to those of each run's own experiment. Winners are chosen on `search` (finished networks before shared weights) and
    reported on `validation`. Raises UserError where a folder is no run, its archive can't be read, or nothing was measured in any.
    """
    opened = open_runs([runs] if isinstance(runs, str | Path) else runs)
    try:
        blocks = [
            _block(run, task, budget, named=len(opened) > 1)
            for run in opened
            for task in run.tasks
            for budget in (run.budgets if budgets is None else budgets)
        ]
        if not blocks:
            places = ", ".join(str(run.path) for run in opened)
            missing = "no budget is given" if any(run.tasks for run in opened) else "nothing was measured yet; go on with `elastibench run`"
            raise UserError(f"{places}: {missing}")
    finally:
        for run in opened:
            run.close()
    return HeadToHead(joined(blocks), tuple(run.name for run in opened))


def _block(run: Run, task: str, budget: Budget, named: bool) -> Block:
    """`named`: sentences name their run."""
    metric = next(m.metric for m in run.measurements if m.task == task)
    found = {method: winners(run, task, method, budget) for method in run.methods(task)}
    rows = [_method_row(run, task, method, budget, metric, result) for method, result in found.items()]
    for method, result in found.items():
        rows.append(random_row(run, task, method, budget, metric))
        rows.append(untrained_row(run, task, method, budget, metric, [] if isinstance(result, str) else result))
    rows += [truncated_row(run, task, budget, metric), teacher_row(run, task, budget, metric)]
    head = f"{run.name}, " if named else ""
    sentences = tuple(head + verdict(run, task, method, budget, result) for method, result in found.items())
    return Block(task, budget, run.length, run.batch, tuple(rows), sentences)


def _method_row(run: Run, task: str, method: str, budget: Budget, metric: str, found: list[Winner] | str) -> Row:
    spent = together(search_cost(run, task, method, budget), training_cost(run, task, method))
    if isinstance(found, str):
        columns = ("architecture", "architecture_id", "search_quality", *QUALITY_COLUMNS, *COST_COLUMNS)
        cells = together(empty(columns, found), spent)
        return Row(run.name, task, budget.label(), method, "method", method, metric, **cells.values, why=cells.why)
    finished = [w.finished for w in found if w.finished is not None]
    kinds = "/".join(sorted({w.answer.kind for w in found}))
    cells = together(
        architecture_cells([w.answer.architecture for w in found]),
        Cells({"search_quality": fmean(w.answer.quality for w in found), "chosen_by": kinds}, {}),
        quality_cells(run, finished, teacher_of(run, task)),
        cost_cells([w.answer.costs for w in found]),
        spent,
    )
    return Row(run.name, task, budget.label(), method, "method", method, metric, **cells.values, why=cells.why)
