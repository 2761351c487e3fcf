"""Searches as Optuna studies: a trial for every measurement that the search could rank by, and nothing else."""

from __future__ import annotations

import math
from dataclasses import replace

import optuna
import pytest
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from methods.budget import Budget
from search.measurement import Measurement
from search.selections import Selection
from search.studies import SearchStudy, studies
from search.tables import SearchRow
from tests.search.toy import LayerSpace, measured

SPACE = LayerSpace(2)
ALL = list(SPACE.enumerate())


def scored(place: int, **changes: object) -> Measurement:
    return replace(measured(ALL[place], SPACE, weights="new"), created=f"2026-01-01T00:00:0{place}+00:00", seconds=1.5, **changes)


def row(strategy: str = "tpe", budget: str = "") -> SearchRow:
    m = scored(0)
    return SearchRow(m.task, m.architecture.method, m.seed, strategy, budget, 3, 1.0, 2.0)


def made(rows: list[SearchRow], budgets: list[Budget], found: list[Measurement], *rule: Selection, **more: object) -> list[SearchStudy]:
    return studies(rows, {SPACE.method: SPACE}, budgets, found, rule, **more)


def written(study: SearchStudy) -> optuna.Study:
    storage = InMemoryStorage()
    study.write(storage, "run")
    return optuna.load_study(study_name=study.name("run"), storage=storage)


def test_a_study_holds_every_score_of_the_present_supernet() -> None:
    found = [scored(place) for place in range(4)]
    others = [replace(scored(5), weights_digest="old"), replace(scored(6), seed=7), replace(scored(7), split="validation"),
              replace(scored(8), kind="finished")]  # fmt: skip
    flops = [m.costs.flops for m in found]
    budget = Budget(max_flops=sorted(flops)[1], name="small")
    study = written(*made([row(budget="small")], [budget], [*others, *found]))
    assert study.study_name.split(" / ") == ["run", found[0].task, SPACE.method, "seed 0", "tpe", "small"]
    assert [t.value for t in study.trials] == [m.quality for m in found]
    assert [SPACE.decode(t.params) for t in study.trials] == [m.architecture for m in found]
    assert [t.user_attrs["max_flops"] for t in study.trials] == flops
    relative = [(spent - budget.limits()["max_flops"]) / budget.limits()["max_flops"] for spent in flops]
    assert [t.constraints for t in study.trials] == [{"max_flops": pytest.approx(value)} for value in relative]
    assert [t.user_attrs["feasible"] for t in study.trials] == [spent <= budget.limits()["max_flops"] for spent in flops]
    best = max((m for m in found if budget.met_by(m.costs)), key=lambda m: m.quality)
    assert study.best_trial.user_attrs["architecture"] == best.architecture.id
    assert study.trials[1].datetime_complete is not None and study.trials[1].duration is not None
    assert study.trials[1].duration.total_seconds() == 1.5


def test_a_search_of_a_front_has_its_costs_beside_the_quality() -> None:
    budgets = [Budget(max_flops=1e12, name="wide"), Budget(max_flops=1, name="none")]
    study = written(*made([row("nsga2")], budgets, [scored(2)], objectives=("max_flops",)))
    [trial] = study.trials
    assert trial.values == [scored(2).quality, scored(2).costs.flops] and trial.constraints == {}
    assert (trial.user_attrs["meets wide"], trial.user_attrs["meets none"], trial.user_attrs["feasible"]) == (True, False, True)
    assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE"]


def test_of_a_rule_only_what_it_found() -> None:
    m = scored(1)
    selection = Selection(m.task, SPACE.method, m.seed, "alpha", {}, m.architecture)
    by_rule, by_tpe = made([row("alpha"), row()], [], [scored(0), m], selection)
    assert ([x.architecture for x in by_rule.measurements], len(by_tpe.measurements)) == ([m.architecture], 2)


def test_tables_and_what_is_no_number() -> None:
    [study] = made([row("tables")], [], [scored(0, kind="predicted"), scored(1, kind="predicted"), scored(2, kind="assembled")])
    assert [m.kind for m in study.measurements] == ["predicted", "predicted"]
    broken = scored(3, metrics={scored(3).metric: math.nan})
    [trial] = written(*made([row()], [], [broken])).trials
    assert trial.state == TrialState.FAIL and trial.values is None
    assert made([replace(row(), method="unknown")], [], [scored(0)]) == []
