"""Where a method can be searched in several ways (its own rule, a strategy): what each of them found alone, beside random networks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from analysis.controls import found_by_rule, in_window, random_in_window, used_share
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
    """On `validation`: what this way of searching found (one per seed), and random networks of equal cost, all seeds.

    Random networks are drawn at the cost of what the method's own rule found: seeds in which another way found something that costs
    more, or less than 90 % of it, are left out.
    """
    found, own = selected(run, task, method, budget, by), found_by_rule(run, task, method, budget)
    winners = [] if isinstance(found, str) else [w for w in found if w.finished is not None]
    if own:
        winners = [w for w in winners if w.seed in own and w.finished and in_window(used_share(own[w.seed], w.finished))]
    seeds = {w.seed for w in winners}
    randoms = [m.quality for m in random_in_window(run, task, method, budget) if m.seed in seeds]
    return [w.finished.quality for w in winners if w.finished is not None], randoms
