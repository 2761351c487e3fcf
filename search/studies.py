"""A run's searches as Optuna studies, written in one batch, for whoever opens them: optuna-dashboard or Optuna itself."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from methods.budget import Budget
from methods.space import Choice, SearchSpace
from search.measurement import Measurement
from search.selections import Selection
from search.strategies import registry
from search.tables import SearchRow


@dataclass(frozen=True)
class SearchStudy:
    """What a search of a run becomes. `budget`: its own, without a limit where it serves several; `budgets`: all of the experiment.

    Every measurement of the supernet on `search` is a trial, in the order of measuring, whichever search asked for it: what is measured
    once is known to all of them. Of a method's own rule only what the rule found.
    """

    row: SearchRow
    space: SearchSpace
    budget: Budget
    budgets: Sequence[Budget]
    measurements: tuple[Measurement, ...]
    objectives: tuple[str, ...] = ()

    def name(self, run: str) -> str:
        """Of a run's study: what is told apart."""
        row = self.row
        parts = (run, row.task, row.method, f"seed {row.seed}", row.strategy, row.budget or "all budgets")
        return " / ".join(parts)

    def write(self, storage: BaseStorage, run: str) -> None:
        """In the place of a study of that name, where there is one."""
        name = self.name(run)
        if name in (study.study_name for study in optuna.get_all_study_summaries(storage)):
            optuna.delete_study(study_name=name, storage=storage)
        directions = [StudyDirection.MAXIMIZE, *(StudyDirection.MINIMIZE for _ in self.objectives)]
        study = optuna.create_study(storage=storage, study_name=name, directions=directions)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            study.set_metric_names([self.measurements[0].metric if self.measurements else "quality", *self.objectives])
        about = {"task": self.row.task, "method": self.row.method, "seed": self.row.seed, "strategy": self.row.strategy}
        for key, value in {**about, "budget": self.row.budget, "limits": self.budget.limits(), "evaluations": self.row.evaluations}.items():
            study.set_user_attr(key, value)
        study.add_trials([self.trial(measurement) for measurement in self.measurements])

    def trial(self, m: Measurement) -> FrozenTrial:
        """A measurement, finished when it was made; a quality that is no number makes it one that failed.

        The limits are named constraints; they and all costs are user attributes too, which optuna-dashboard shows.
        """
        used, quality = m.costs.measured_against(), float(m.quality)
        limits = {name: limit for name, limit in self.budget.limits().items() if name in used}
        constraints = {name: (used[name] - limit) / limit for name, limit in limits.items()}
        met = {f"meets {budget.label()}": _met(budget, used) for budget in self.budgets}
        feasible = {"feasible": all(value <= 0 for value in constraints.values())}
        facts = {"architecture": m.architecture.id, "choices": m.architecture.canonical, "kind": m.kind, "seconds": m.seconds}
        metrics = {f"metric {name}": float(value) for name, value in m.metrics.items()}
        values = [quality, *(used[name] for name in self.objectives)]
        trial = create_trial(
            state=TrialState.FAIL if math.isnan(quality) else TrialState.COMPLETE,
            values=None if math.isnan(quality) else values,
            params=self.space.encode(m.architecture),
            distributions={choice.name: _distribution(choice) for choice in self.space.choices},
            user_attrs={**facts, **metrics, **used, **feasible, **met},
            constraints=constraints,
        )
        if m.created[:1].isdigit():
            trial.datetime_complete = datetime.fromisoformat(m.created).astimezone().replace(tzinfo=None)
            trial.datetime_start = trial.datetime_complete - timedelta(seconds=m.seconds)
        return trial


def studies(
    rows: Iterable[SearchRow],
    spaces: Mapping[str, SearchSpace],
    budgets: Sequence[Budget],
    measured: Sequence[Measurement],
    found: Sequence[Selection],
    objectives: Sequence[str] = (),
) -> list[SearchStudy]:
    """A study for each recorded search of a method that `spaces` has; `measured`: all of the archive, `found`: its selections."""
    by_label = {budget.label(): budget for budget in budgets}
    made = []
    for row in rows:
        if row.method in spaces:
            space, budget = spaces[row.method], by_label.get(row.budget, Budget())
            trials = [m for m in _scored(row, measured) if space.contains(m.architecture)]
            if row.strategy not in registry.names():
                of_rule = {s.architecture for s in found if (s.task, s.method, s.seed, s.by) == _whose(row)}
                trials = [m for m in trials if m.architecture in of_rule or not of_rule]
            made.append(SearchStudy(row, space, budget, budgets, tuple(trials), tuple(objectives)))
    return made


def _scored(row: SearchRow, measured: Sequence[Measurement]) -> list[Measurement]:
    """What the search could rank by: scores with shared weights, else those of the tables; of the supernet that was scored last."""
    mine = [m for m in measured if (m.task, m.architecture.method, m.seed, m.split) == (row.task, row.method, row.seed, "search")]
    of_kind = [m for m in mine if m.kind == "shared"] or [m for m in mine if m.kind == "predicted"]
    return [m for m in of_kind if m.weights_digest == of_kind[-1].weights_digest]


def _whose(row: SearchRow) -> tuple[str, str, int, str]:
    return row.task, row.method, row.seed, row.strategy


def _met(budget: Budget, used: Mapping[str, float]) -> bool:
    return all(used.get(name, math.inf) <= limit for name, limit in budget.limits().items())


def _distribution(choice: Choice) -> BaseDistribution:
    """The values themselves; numbers in their order on one axis."""
    values = choice.values
    if choice.ordered and all(type(value) is int for value in values):
        return IntDistribution(int(min(values)), int(max(values)))
    if choice.ordered and all(type(value) in (int, float) for value in values):
        return FloatDistribution(float(min(values)), float(max(values)))
    return CategoricalDistribution(values)
