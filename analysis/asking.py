"""What a page needs to answer budget queries by itself, as `search.query.best` would: every candidate with its costs and quality."""

from __future__ import annotations

import math
from shlex import quote
from typing import TYPE_CHECKING, Any

from analysis.description import describe
from analysis.runs import here
from search.candidates import Candidate, candidates, rankable
from search.columns import RANKED
from search.query import SHOWN

if TYPE_CHECKING:
    from analysis.runs import Run

WIDTH = 160


def questions(run: Run) -> list[dict[str, Any]]:
    """For each task: its metric, the run's folder as a shell reads it, the budgets of the experiment, and the candidates of both kinds
    that a query ranks, as plain JSON data."""
    found = []
    for task in run.tasks:
        mine = [m for m in run.measurements if m.task == task]
        ranked: dict[str, list[dict[str, Any]]] = {kind: [_plain(c) for c in candidates(mine, kind)] for kind in RANKED}
        if not any(ranked.values()):
            continue
        shown = {c.architecture.id: (kind, c.quality) for kind in reversed(SHOWN) for c in candidates(mine, kind, "validation")}
        for entry in (entry for some in ranked.values() for entry in some):
            kind, quality = shown.get(entry["id"], (None, math.nan))
            entry |= {"validation": _finite(quality), "validation_kind": kind}
        limits = [budget.limits() for budget in run.budgets]
        found.append(
            {"run": run.name, "folder": quote(here(run.path)), "task": task, "metric": run.metric(task), "budgets": limits, **ranked}
        )
    return found


def _plain(c: Candidate) -> dict[str, Any]:
    """`scores`: the quality in each seed; None: no finite number."""
    return {
        "id": c.architecture.id,
        "method": c.architecture.method,
        "text": describe(c.architecture, WIDTH),
        "quality": _finite(rankable(c.quality)),
        "scores": {str(m.seed): _finite(m.quality) for m in c.measurements},
        "costs": c.costs.measured_against(),
        "flops": c.costs.flops,
        "parameters": c.costs.parameters,
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
