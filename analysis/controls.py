"""The control rows of a table: teacher, random architectures, the winner's shape in untrained weights, the truncated teacher."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from analysis.rows import WINDOW, Row
from analysis.spending import SEARCH_COLUMNS, TRAINING_COLUMNS, Cells, empty, training_cost
from analysis.summary import COST_COLUMNS, QUALITY_COLUMNS, architecture_cells, cost_cells, quality_cells, together
from methods.budget import Budget, format_quantity

if TYPE_CHECKING:
    from analysis.runs import Run
    from analysis.winners import Winner
    from search.measurement import Measurement

TEACHER, RANDOM, TRUNCATED = "teacher", "random", "truncated-kd"

_NO_SEARCH = empty(SEARCH_COLUMNS, "not searched")
_OF_THE_SUPERNET = "the method's supernet, trained once for all rows"


def measured_controls(run: Run, task: str, name: str, split: str = "validation") -> list[Measurement]:
    """The controls of that name, the last measurement of each architecture and seed."""
    last = {(m.architecture, m.seed): m for m in run.controls(task, split) if m.control == name}
    return list(last.values())


def teacher_of(run: Run, task: str) -> Measurement | None:
    """The task's teacher on `validation`."""
    return next(reversed(measured_controls(run, task, TEACHER)), None)


def used_share(budget: Budget, measurement: Measurement) -> float:
    """The largest share of any limit that the costs use up: that of the binding limit; infinite where a cost is not known."""
    used = measurement.costs.measured_against()
    return max((used.get(name, math.inf) / limit for name, limit in budget.limits().items()), default=0.0)


def random_in_window(run: Run, task: str, method: str, budget: Budget) -> list[Measurement]:
    """The method's random architectures on `validation` whose binding limit is used to 90-100 %."""
    found = [m for m in measured_controls(run, task, RANDOM) if m.architecture.method == method]
    return [m for m in found if WINDOW[0] - 1e-9 <= used_share(budget, m) <= WINDOW[1]]


def teacher_row(run: Run, task: str, budget: Budget, metric: str) -> Row:
    """The untouched teacher, whatever the limit."""
    teacher = teacher_of(run, task)
    cost = training_cost(run, task, TEACHER)
    if teacher is None:
        return _row(run, task, budget, TEACHER, "", metric, _nothing("not measured on validation"), cost)
    return _row(run, task, budget, TEACHER, "", metric, _cells(run, [teacher], teacher), cost)


def random_row(run: Run, task: str, method: str, budget: Budget, metric: str) -> Row:
    """Mean and range over random architectures of the same size."""
    found = random_in_window(run, task, method, budget)
    name = f"{RANDOM} ({method})"
    cost = empty(TRAINING_COLUMNS, _OF_THE_SUPERNET)
    if not found:
        return _row(run, task, budget, name, method, metric, _nothing("none measured in 90-100 % of the limit"), cost)
    cells = _cells(run, found, teacher_of(run, task))
    count = len({m.architecture for m in found})
    qualities = [m.quality for m in found]
    spanned = f", {min(qualities):.4f} to {max(qualities):.4f}" if len(found) > 1 else ""
    values = {**cells.values, "architecture": f"{count} architecture{'s' * (count > 1)}{spanned}"}
    return _row(run, task, budget, name, method, metric, Cells(values, cells.why), cost)


def untrained_row(run: Run, task: str, method: str, budget: Budget, metric: str, winners: Sequence[Winner]) -> Row:
    """The winners' shapes cut from the weights before the first trained stage, winner by winner.

    Such weights need not depend on the seed, and are measured once then: that one measurement stands for every seed without its own.
    """
    last = {
        (m.control, m.architecture, m.seed): m
        for m in run.controls(task)
        if m.control not in (TEACHER, RANDOM, TRUNCATED) and m.architecture.method == method
    }
    of_any_seed = {(name, architecture): m for (name, architecture, _), m in last.items()}
    of_winners = [
        last.get((name, w.answer.architecture, w.seed)) or of_any_seed.get((name, w.answer.architecture))
        for name in sorted({name for name, _ in of_any_seed})
        for w in winners
    ]
    found = [m for m in of_winners if m is not None]
    networks = list({m.key: m for m in found}.values())
    names = sorted({m.control for m in last.values()}) or ["untrained"]
    reason = "not measured for this winner" if last else "not measured"
    found = networks if len(networks) == 1 else found
    cells = _cells(run, found, teacher_of(run, task)) if found else _nothing(reason if winners else "there is no winner")
    cells = Cells({**cells.values, "networks": len(networks)}, cells.why)
    return _row(run, task, budget, f"{'/'.join(names)} ({method})", method, metric, cells, empty(TRAINING_COLUMNS, "not trained"))


def truncated_row(run: Run, task: str, budget: Budget, metric: str) -> Row:
    """The best evenly cut and distilled teacher that fits, chosen on `search` seed by seed (where not measured there: the costliest)."""
    known = measured_controls(run, task, TRUNCATED)
    fitting = [m for m in known if used_share(budget, m) <= 1]
    if not fitting:
        reason = f"none fits: smallest {_smallest(known, budget)}" if known else "not measured"
        return _row(run, task, budget, TRUNCATED, "", metric, _nothing(reason), empty(TRAINING_COLUMNS, reason))
    on_search = {(m.architecture, m.seed): m.quality for m in measured_controls(run, task, TRUNCATED, "search")}

    def rank(m: Measurement) -> tuple[float, float]:
        return on_search.get((m.architecture, m.seed), float("-inf")), m.costs.flops

    chosen = [max((m for m in fitting if m.seed == seed), key=rank) for seed in sorted({m.seed for m in fitting})]
    cells = _cells(run, chosen, teacher_of(run, task))
    scores = [on_search[m.architecture, m.seed] for m in chosen if (m.architecture, m.seed) in on_search]
    if len(scores) == len(chosen):
        cells = Cells({**cells.values, "search_quality": sum(scores) / len(scores)}, _without(cells.why, "search_quality"))
    stages = {f"{TRUNCATED}-{len(m.architecture.choices.get('layers', ()))}" for m in chosen}
    return _row(run, task, budget, TRUNCATED, "", metric, cells, training_cost(run, task, TRUNCATED, sorted(stages)))


def _smallest(known: Sequence[Measurement], budget: Budget) -> str:
    """The cost of the cheapest, in the limits that it breaks."""
    used = min(known, key=lambda m: used_share(budget, m)).costs.measured_against()
    over = {name: used.get(name) for name, limit in budget.limits().items() if used.get(name, math.inf) > limit}
    return ", ".join(f"{name} {'not known' if value is None else format_quantity(value)}" for name, value in over.items())


def _cells(run: Run, measured: Sequence[Measurement], teacher: Measurement | None) -> Cells:
    chosen_without = Cells({}, {"search_quality": "not chosen on search"})
    shape = architecture_cells([m.architecture for m in measured])
    return together(shape, chosen_without, quality_cells(run, measured, teacher), cost_cells([m.costs for m in measured]))


def _nothing(reason: str) -> Cells:
    return empty(("architecture", "architecture_id", "search_quality", *QUALITY_COLUMNS, *COST_COLUMNS), reason)


def _row(run: Run, task: str, budget: Budget, name: str, method: str, metric: str, cells: Cells, training: Cells) -> Row:
    all_cells = together(cells, _NO_SEARCH, training)
    return Row(run.name, task, budget.label(), name, "control", method, metric, **all_cells.values, why=all_cells.why)


def _without(why: dict[str, str], name: str) -> dict[str, str]:
    return {column: reason for column, reason in why.items() if column != name}
