"""`best`: the sub-network to ship under a budget, or why there is none."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from methods.budget import Budget
from methods.costs import Costs
from methods.errors import UserError
from methods.space import Architecture
from search.candidates import Candidate, candidates, rankable
from search.measurement import Kind, Measurement

if TYPE_CHECKING:
    Floats = npt.NDArray[np.float64]

RANKED: tuple[Kind, ...] = ("finished", "shared")
SHOWN: tuple[Kind, ...] = ("finished", "assembled", "shared")


class Source(Protocol):
    """An archive, as far as a query needs one."""

    def measurements(self, task: str | None = None, method: str | None = None) -> list[Measurement]: ...


@dataclass(frozen=True)
class Answer:
    """The best architecture under a budget.

    `kind`: what it was ranked by, on the split `search`; `metrics` are the means over `seeds` of that, `spread` the standard deviation
    of the main metric. `validation`: means on `validation` in `validation_kind`, None where it was not measured; never ranked by.
    `seed`: the seed that did best. `slack`: what is left of each limit, in its own unit.
    """

    architecture: Architecture
    task: str
    kind: Kind
    metric: str
    metrics: dict[str, float]
    spread: float
    seed: int
    seeds: tuple[int, ...]
    validation: dict[str, float] | None
    validation_kind: Kind | None
    costs: Costs
    slack: dict[str, float]

    @property
    def quality(self) -> float:
        return self.metrics[self.metric]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        same = ("task", "kind", "metric", "metrics", "spread", "seed", "validation", "validation_kind", "slack")
        return {
            "id": self.architecture.id,
            "method": self.architecture.method,
            "choices": self.architecture.choices,
            **{name: getattr(self, name) for name in same},
            "seeds": list(self.seeds),
            "costs": _plain(self.costs),
        }


@dataclass(frozen=True)
class NothingFits:
    """No candidate meets the budget.

    `binding`: the limits that nothing meets alone; where each can be met alone (`jointly`), those that stand in the way of the
    rest (without one of them something would fit), or all. `smallest`: the smallest value that exists for each limit.
    """

    budget: Budget
    binding: tuple[str, ...]
    smallest: dict[str, float]
    jointly: bool

    def message(self) -> str:
        """Which limits bind and what would do, in one line."""
        there = ", ".join(f"{name} {_amount(name, self.smallest[name])}" for name in self.binding)
        if not self.jointly:
            return f"nothing fits {self.budget.label()}: the smallest that exists is {there}"
        return f"nothing fits {self.budget.label()}: each limit can be met alone (the smallest that exists is {there}), but not all at once"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        facts = {"binding": list(self.binding), "smallest": self.smallest, "jointly": self.jointly}
        return {"limits": self.budget.limits(), **facts, "message": self.message()}


def best(
    source: Source | Iterable[Measurement], budget: Budget, method: str | None = None, task: str | None = None
) -> Answer | NothingFits:
    """The architecture of the highest quality on `search` that meets the budget; of equals the one with fewer FLOPs, then fewer
    parameters, then the smaller id.

    Kinds are never mixed: the `finished` ones are ranked where the best with `shared` weights that meets the budget is among them and
    all of them were finished in its seeds, else those with `shared` weights. (Under a budget that nobody finished networks for, the
    finished ones are other budgets' winners, and the best of those may be far from the best there is; and a mean over lucky seeds is no
    better than one over all.) An architecture measured in several seeds counts with its mean. Controls and `validation` are not ranked by.
    Raises UserError where nothing was measured, where several tasks were and none is named, or where a limited cost is not known.
    """
    found = _measurements(source, method, task)
    by_kind = {kind: candidates(found, kind) for kind in RANKED}
    everything = [c for some in by_kind.values() for c in some]
    _check(everything, budget, method, task)
    fitting = {kind: [some[i] for i in np.flatnonzero((_excess(some, budget) <= 0).all(axis=1))] for kind, some in by_kind.items()}
    finished, shared = fitting["finished"], fitting["shared"]
    if finished and (not shared or _stand_for(finished, _first(shared))):
        return _answer(_first(finished), "finished", budget, found)
    if shared:
        return _answer(_first(shared), "shared", budget, found)
    return _nothing_fits(everything, budget)


def _stand_for(finished: Sequence[Candidate], first: Candidate) -> bool:
    """Whether the best by shared weights is among the finished ones and all of them have its seeds."""
    return first.architecture in {c.architecture for c in finished} and all(c.seeds == first.seeds for c in finished)


def _measurements(source: Source | Iterable[Measurement], method: str | None, task: str | None) -> list[Measurement]:
    if not isinstance(source, Iterable):
        return source.measurements(task=task, method=method)
    return [m for m in source if task in (None, m.task) and method in (None, m.architecture.method)]


def _check(found: Sequence[Candidate], budget: Budget, method: str | None, task: str | None) -> None:
    tasks = sorted({c.measurements[0].task for c in found})
    if not found:
        of = "".join(f" of {word} {name}" for word, name in (("method", method), ("task", task)) if name)
        raise UserError(f"nothing{of} was measured on the split search; run the search first, or name another")
    if len(tasks) > 1:
        raise UserError(f"there are measurements of the tasks {', '.join(tasks)}; name one of them")
    if "max_flops" in budget.limits() and len({(c.costs.length, c.costs.batch) for c in found}) > 1:
        raise UserError("the FLOPs of these measurements are of different lengths or batches; query one run at a time")
    for name in budget.limits():
        if not any(name in c.costs.measured_against() for c in found):
            raise UserError(f"budget {budget.label()}: no cost is known for {name}")


def _used(found: Sequence[Candidate], budget: Budget) -> Floats:
    """(n, limits): the cost that each limit speaks of; infinite where it is not known of a candidate."""
    rows = [c.costs.measured_against() for c in found]
    names = budget.limits()
    return np.array([[row.get(name, np.inf) for name in names] for row in rows], dtype=np.float64).reshape(len(found), len(names))


def _excess(found: Sequence[Candidate], budget: Budget) -> Floats:
    return _used(found, budget) - np.array(list(budget.limits().values()), dtype=np.float64)


def _first(fitting: Sequence[Candidate]) -> Candidate:
    return min(fitting, key=lambda c: (-rankable(c.quality), c.costs.flops, c.costs.parameters, c.architecture.id))


def _answer(winner: Candidate, kind: Kind, budget: Budget, found: Iterable[Measurement]) -> Answer:
    found = list(found)
    shown = next(((k, c) for k in SHOWN for c in candidates(found, k, "validation") if c.architecture == winner.architecture), None)
    first = winner.measurements[0]
    return Answer(
        architecture=winner.architecture,
        task=first.task,
        kind=kind,
        metric=first.metric,
        metrics=winner.metrics,
        spread=winner.spread,
        seed=winner.best_seed,
        seeds=winner.seeds,
        validation=shown[1].metrics if shown else None,
        validation_kind=shown[0] if shown else None,
        costs=winner.costs,
        slack=budget.slack(winner.costs),
    )


def _nothing_fits(found: Sequence[Candidate], budget: Budget) -> NothingFits:
    names = list(budget.limits())
    smallest = dict(zip(names, _used(found, budget).min(axis=0).tolist(), strict=True))
    over = _excess(found, budget) > 0
    alone = [names[i] for i in np.flatnonzero(over.all(axis=0))]
    in_the_way = [names[i] for i in np.flatnonzero(over[over.sum(axis=1) == 1].any(axis=0))]
    return NothingFits(budget, tuple(alone or in_the_way or names), smallest, jointly=not alone)


def _amount(name: str, value: float) -> str:
    return f"{value:.6g} s" if name.startswith("max_latency") else f"{value:,.0f}"


def _plain(costs: Costs) -> dict[str, Any]:
    same = ("embedding_parameters", "other_parameters", "parameters", "flops", "length", "batch")
    return {**{name: getattr(costs, name) for name in same}, "latency": dict(costs.latency)}
