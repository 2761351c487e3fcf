"""The controls that were measured: teacher, truncated teacher, random and hand-made networks, the winners' shapes in other weights."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from analysis.rows import WINDOW
from methods.budget import Budget
from search.measurement import INT8

if TYPE_CHECKING:
    from analysis.runs import Run
    from search.measurement import Measurement

TEACHER, RANDOM, TRUNCATED, HAND_MADE = "teacher", "random", "truncated-kd", "hand-made"
AUGMENTATION = "augmentation"
"""What stages are recorded under that make copies of training rows."""
FLOORS, FLOOR = ("bag-of-embeddings", "fixed-cnn"), "floor"
"""What a method has to beat; their stages are recorded as another way to finish."""
UNTRAINED = ("untrained", "rewired-cut", "teacher-cut")
"""What recipes call architectures cut from the weights before the first trained stage."""


def measured_controls(run: Run, task: str, name: str, split: str = "validation", method: str | None = None) -> list[Measurement]:
    """The controls of that name (and method), the last measurement of each architecture and seed."""
    found = [m for m in run.controls(task, split) if m.control == name and method in (None, m.architecture.method)]
    return list({(m.architecture, m.seed): m for m in found}.values())


def other_controls(run: Run, task: str, method: str) -> list[str]:
    """The names of a method's controls other than random ones and those with weights of 8 bit, in order of first appearance."""
    found = dict.fromkeys(m.control for m in run.controls(task) if m.architecture.method == method)
    return [name for name in found if name not in (TEACHER, RANDOM, TRUNCATED, INT8, *FLOORS)]


def int8_name(method: str) -> str:
    """The row of a method's winners with weights of 8 bit."""
    return f"{INT8} ({method})"


def way_of(control: str) -> str:
    """How the networks of a control were finished, where not as the winner was: `scratch` of `scratch` and of `hand-made scratch`."""
    return "" if control == RANDOM else control.removeprefix(HAND_MADE).strip()


def teacher_of(run: Run, task: str) -> Measurement | None:
    """The task's teacher on `validation`."""
    return next(reversed(measured_controls(run, task, TEACHER)), None)


def used_share(budget: Budget, measurement: Measurement) -> float:
    """The largest share of any limit that the costs use up: that of the binding limit; infinite where a cost is not known."""
    used = measurement.costs.measured_against()
    return max((used.get(name, math.inf) / limit for name, limit in budget.limits().items()), default=0.0)


def random_in_window(run: Run, task: str, method: str, budget: Budget) -> list[Measurement]:
    """The method's random architectures on `validation` whose binding limit is used to 90-100 %; where the method has a rule of its
    own, those that cost 90-100 % of what that found with their seed."""
    found, own = measured_controls(run, task, RANDOM, method=method), found_by_rule(run, task, method, budget)
    return [m for m in found if in_window(used_share(own.get(m.seed, budget), m))]


def in_window(share: float) -> bool:
    return WINDOW[0] - 1e-9 <= share <= WINDOW[1]


def found_by_rule(run: Run, task: str, method: str, budget: Budget) -> dict[int, Budget]:
    """By seed the costs, as limits, of what the method's own rule found under a budget."""
    from search.strategies.registry import names

    costs = {m.architecture: m.costs for m in run.measurements if m.task == task and m.kind in ("shared", "finished")}
    mine = [s for s in run.selections if (s.task, s.method, dict(s.limits)) == (task, method, budget.limits()) and s.by not in names()]
    return {s.seed: budget.used_by(costs[s.architecture]) for s in mine if s.architecture in costs}


def window_words(run: Run, task: str, method: str, budget: Budget) -> str:
    """What random architectures cost that a method's are set against."""
    share = f"{WINDOW[0]:.0%} to {WINDOW[1]:.0%}".replace("%", " %")
    return f"{share} of {'its cost' if found_by_rule(run, task, method, budget) else 'the limit'}"


def costliest_within(run: Run, task: str, name: str, budget: Budget, method: str | None = None) -> dict[int, Measurement]:
    """By seed: of the controls of that name on `validation` that meet the budget the one of most FLOPs, then parameters.

    A run makes one for each budget by that rule; those made for smaller budgets meet a larger one too.
    """
    chosen: dict[int, Measurement] = {}
    for m in measured_controls(run, task, name, method=method):
        if used_share(budget, m) <= 1 and (m.seed not in chosen or _size(m) > _size(chosen[m.seed])):
            chosen[m.seed] = m
    return dict(sorted(chosen.items()))


def _size(m: Measurement) -> tuple[int, int, str]:
    return m.costs.flops, m.costs.parameters, m.architecture.id
