"""Where a method can be searched in several ways (its own rule, a strategy): what each of them found alone, beside random networks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from analysis.controls import random_in_window
from analysis.method_row import method_row
from analysis.rows import Place, Row
from analysis.winners import Winner

if TYPE_CHECKING:
    from analysis.runs import Run
    from methods.budget import Budget


def ways(run: Run, task: str, method: str) -> list[str]:
    """What selected: the method's own rule first, then strategies."""
    from search.strategies.registry import names

    found = dict.fromkeys(s.by for s in run.selections if (s.task, s.method) == (task, method))
    return sorted(found, key=lambda by: (by in names(), by))


def row_name(method: str, by: str) -> str:
    """`adabert (alpha)`, `adabert (tpe search)`."""
    from search.strategies.registry import names

    return f"{method} ({by} search)" if by in names() else f"{method} ({by})"


def selected(run: Run, task: str, method: str, budget: Budget, by: str) -> list[Winner] | str:
    """What was found under a budget, one per seed; or in words why there is nothing."""
    from search.query import Answer, best

    found = []
    for s in run.selections:
        if (s.task, s.method, s.by, dict(s.limits)) == (task, method, by, budget.limits()) and s.architecture is not None:
            mine = [m for m in run.measurements if (m.task, m.seed, m.architecture) == (task, s.seed, s.architecture)]
            answer = best(mine, budget) if any(m.kind in ("shared", "finished") for m in mine) else None
            if isinstance(answer, Answer):
                found.append(Winner(s.seed, answer, run.finished(task, s.architecture.id, s.seed)))
    return sorted(found, key=lambda winner: winner.seed) or "it found nothing that meets the budget"


def selection_rows(place: Place, method: str) -> list[Row]:
    """A row for each way of searching."""
    run, task = place.run, place.task
    return [
        method_row(place, method, selected(run, task, method, place.budget, by), by, row_name(method, by)) for by in ways(run, task, method)
    ]


def scores(run: Run, task: str, method: str, budget: Budget, by: str) -> tuple[list[float], list[float]]:
    """On `validation`: what this way of searching found (one per seed), and the random networks of the budget's window, all seeds."""
    found = selected(run, task, method, budget, by)
    ours = [] if isinstance(found, str) else [w.finished.quality for w in found if w.finished is not None]
    return ours, [m.quality for m in random_in_window(run, task, method, budget)]
