"""The row of a method: its winners under a budget."""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING

from analysis.controls import teacher_of
from analysis.rows import Place, Row
from analysis.spending import Cells, Trained, empty, search_cost, training_cost
from analysis.summary import COST_COLUMNS, QUALITY_COLUMNS, architecture_cells, cost_cells, quality_cells, together

if TYPE_CHECKING:
    from analysis.winners import Winner


def method_row(place: Place, method: str, found: list[Winner] | str) -> Row:
    """`found`: one winner per seed, or why there is none."""
    run, task = place.run, place.task
    searched = search_cost(run, task, method, place.budget)
    if isinstance(found, str):
        columns = ("architecture", "architecture_id", "search_quality", *QUALITY_COLUMNS, *COST_COLUMNS)
        spent = training_cost(run, task, method, [Trained(seed) for seed in run.seeds(task, method)])
        cells = together(empty(columns, found), searched, spent)
        return Row(*place.names, method, "method", method, place.metric, **cells.values, why=cells.why)
    finished = [w.finished for w in found if w.finished is not None]
    kinds = "/".join(sorted({w.answer.kind for w in found}))
    cells = together(
        architecture_cells([w.answer.architecture for w in found]),
        Cells({"search_quality": fmean(w.answer.quality for w in found), "chosen_by": kinds}, {}),
        quality_cells(run, finished, teacher_of(run, task)),
        cost_cells([w.answer.costs for w in found]),
        searched,
        training_cost(run, task, method, [Trained(w.seed, w.answer.architecture) for w in found]),
    )
    return Row(*place.names, method, "method", method, place.metric, **cells.values, why=cells.why)
