"""What a method cost to train and to search, per seed, from the archive's records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from methods.budget import Budget

if TYPE_CHECKING:
    from analysis.runs import Run

SEARCH_COLUMNS = ("search_evaluations", "search_seconds")
TRAINING_COLUMNS = ("training_steps", "training_examples", "training_flops", "training_seconds")


class Cells(NamedTuple):
    """Some columns of a row, and why others are empty."""

    values: dict[str, Any]
    why: dict[str, str]


def empty(columns: Sequence[str], reason: str) -> Cells:
    """These columns stay empty for one reason."""
    return Cells({}, dict.fromkeys(columns, reason))


def search_cost(run: Run, task: str, method: str, budget: Budget) -> Cells:
    """Mean over seeds of what the search under this budget cost; a search that served every budget is counted whole."""
    rows = [row for row in run.searches if (row.task, row.method) == (task, method)]
    rows = [row for row in rows if row.budget == budget.label()] or [row for row in rows if not row.budget]
    if not rows:
        return empty(SEARCH_COLUMNS, "no search recorded")
    return Cells({f"search_{name}": _per_seed(rows, name) for name in ("evaluations", "seconds")}, {})


def training_cost(run: Run, task: str, method: str, stages: Sequence[str] | None = None) -> Cells:
    """Mean over seeds of what all stages of a method cost, or those named; the teacher's fine-tuning is in no method's sum."""
    rows = [row for row in run.stages if (row.task, row.method) == (task, method) and (stages is None or row.stage in stages)]
    if not rows:
        return empty(TRAINING_COLUMNS, "no training recorded")
    names = [column.removeprefix("training_") for column in TRAINING_COLUMNS]
    return Cells({f"training_{name}": _per_seed(rows, name) for name in names}, {})


def _per_seed(rows: Sequence[Any], name: str) -> float:
    total: float = sum(getattr(row, name) for row in rows)
    return total / len({row.seed for row in rows})
