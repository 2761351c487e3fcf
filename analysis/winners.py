"""The winner of each method under a budget, seed by seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from methods.budget import Budget
from methods.errors import UserError

if TYPE_CHECKING:
    from analysis.runs import Run
    from search.measurement import Measurement
    from search.query import Answer


@dataclass(frozen=True)
class Winner:
    """What the query answers for one seed, and that network on `validation` (None: not measured there)."""

    seed: int
    answer: Answer
    finished: Measurement | None


def winners(run: Run, task: str, method: str, budget: Budget) -> list[Winner] | str:
    """One winner per seed, chosen on `search` by `search.query.best`; or in words why there is none."""
    from search.query import NothingFits, best

    mine = [m for m in run.measurements if (m.task, m.architecture.method) == (task, method)]
    found, reason = [], "nothing measured"
    for seed in run.seeds(task, method):
        try:
            answer = best([m for m in mine if m.seed == seed], budget)
        except UserError as error:
            reason = str(error)
            continue
        if isinstance(answer, NothingFits):
            reason = answer.message()
            continue
        found.append(Winner(seed, answer, run.finished(task, answer.architecture.id, seed)))
    return found or reason
