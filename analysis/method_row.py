"""The row of a method: its winners under a budget, or what one way of searching found."""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING

from analysis.controls import teacher_of
from analysis.latency import why_not_timed
from analysis.rows import Place, Row
from analysis.spending import Cells, Trained, empty, search_cost, training_cost
from analysis.summary import COST_COLUMNS, QUALITY_COLUMNS, architecture_cells, cost_cells, quality_cells, together

if TYPE_CHECKING:
    from analysis.winners import Winner


def method_row(place: Place, method: str, found: list[Winner] | str, by: str = "", name: str = "") -> Row:
    """`found`: one winner per seed, or why there is none. `by`: what found them, where the row is of that alone; `name`: the row's then."""
    run, task = place.run, place.task
    searched = search_cost(run, task, method, place.budget, by or None)
    head = (*place.names, name or method, "selection" if by else "method", method, place.metric)
    if isinstance(found, str):
        columns = ("architecture", "architecture_id", "search_quality", *QUALITY_COLUMNS, *COST_COLUMNS)
        spent = training_cost(run, task, method, [Trained(seed) for seed in run.seeds(task, method)])
        cells = together(empty(columns, found), searched, spent)
        return Row(*head, **cells.values, why=cells.why)
    finished = [w.finished for w in found if w.finished is not None]
    kinds = sorted({w.answer.kind for w in found})
    score = {"search_quality": fmean(w.answer.quality for w in found)} if len(kinds) == 1 else {}
    why = {} if score else {"search_quality": f"some seeds were chosen by {kinds[0]} networks, others by {kinds[1]} weights"}
    cells = together(
        architecture_cells([w.answer.architecture for w in found]),
        Cells({**score, "chosen_by": "/".join(kinds)}, why),
        quality_cells(run, finished, teacher_of(run, task)),
        cost_cells([w.answer.costs for w in found]),
        Cells({}, why_not_timed(run, task, [w.answer.architecture for w in found])),
        searched,
        training_cost(run, task, method, [Trained(w.seed, w.answer.architecture) for w in found]),
    )
    return Row(*head, **cells.values, why=cells.why)
