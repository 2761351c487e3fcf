"""`best`: the sub-network to ship under a budget, or why there is none; `fronts`: all that no other beats."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from methods.budget import Budget
from methods.costs import Costs
from methods.errors import UserError
from methods.space import Architecture
from search.candidates import Candidate, unbeaten_on_common_seeds
from search.columns import RANKED, Bools, Columns, Floats, Groups, Ints, ranks
from search.measurement import Kind, Measurement

SHOWN: tuple[Kind, ...] = ("finished", "assembled", "shared")


class Source(Protocol):
    """An archive, as far as a query needs one."""

    def columns(self, task: str | None = None, method: str | None = None) -> Columns: ...


@dataclass(frozen=True)
class Answer:
    """The best architecture under a budget.

    `kind`: what it was ranked by, on the split `search`; `metrics` are the means over `seeds` of that, `spread` the standard deviation
    of the main metric. `validation`: means on `validation` in `validation_kind`, None where it was not measured; never ranked by.
    `seed`: the seed that did best. `slack`: what is left of each limit, in its own unit. `run`: whose measurements, where several runs
    were asked.
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
    run: str = ""

    @property
    def quality(self) -> float:
        return self.metrics[self.metric]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data; what is no finite number is None."""
        same = ("task", "kind", "metric", "metrics", "spread", "seed", "validation", "validation_kind", "slack")
        return {
            "id": self.architecture.id,
            "method": self.architecture.method,
            "choices": self.architecture.choices,
            **{name: _finite(getattr(self, name)) for name in same},
            "seeds": list(self.seeds),
            "costs": plain(self.costs),
            **({"run": self.run} if self.run else {}),
        }


@dataclass(frozen=True)
class Nearest:
    """What comes closest to a budget that nothing meets. `excess`: for each limit that it breaks (cost - limit) / limit."""

    architecture: Architecture
    costs: Costs
    excess: dict[str, float]

    def text(self) -> str:
        over = ", ".join(f"{name} {_over(share)}" for name, share in self.excess.items())
        return f"{self.architecture.id[:12]} of {self.architecture.method} ({over})"


@dataclass(frozen=True)
class NothingFits:
    """No candidate meets the budget.

    `binding`: the limits that nothing meets alone; where each can be met alone (`jointly`), those that stand in the way of the
    rest (without one of them something would fit), or all. `smallest`: the smallest value that exists for each limit. `nearest`: the
    architecture whose worst relative excess is least; None where each lacks a cost.
    """

    budget: Budget
    binding: tuple[str, ...]
    smallest: dict[str, float]
    jointly: bool
    nearest: Nearest | None = None

    def message(self) -> str:
        """Which limits bind, what would do, and what comes closest, in one line."""
        there = ", ".join(f"{name} {_amount(name, self.smallest[name])}" for name in self.binding)
        why = f"the smallest that exists is {there}"
        if self.jointly:
            why = f"each limit can be met alone ({why}), but not all at once"
        closest = f"; nearest is {self.nearest.text()}" if self.nearest else ""
        return f"nothing fits {self.budget.label()}: {why}{closest}"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        facts = {"binding": list(self.binding), "smallest": self.smallest, "jointly": self.jointly}
        n = self.nearest
        near = n and {"id": n.architecture.id, "method": n.architecture.method, "costs": plain(n.costs), "excess": n.excess}
        return {"limits": self.budget.limits(), **facts, "nearest": near, "message": self.message()}


def best(
    source: Source | Columns | Iterable[Measurement], budget: Budget, method: str | None = None, task: str | None = None
) -> Answer | NothingFits:
    """The architecture of the highest quality on `search` that meets the budget; of equals the one with fewer FLOPs, then fewer
    parameters, then more seeds, then the smaller id.

    Kinds are never mixed: where in each method of each run the `finished` networks stand for all (`_stands`), the best of them is the
    answer, else the best with `shared` weights. Architectures are compared by their means over the seeds that they have in common
    (`_Field.first`). Controls and `validation` are not ranked by.
    Raises UserError where nothing was measured, where several tasks were and none is named, where a limited cost is not known, or where
    several runs were searched on different rows or rank by different metrics.
    """
    found = _columns(source, task, method)
    finished, shared = (_Field(found, found.groups(kind), budget) for kind in RANKED)
    _check([finished, shared], budget.limits(), budget.label(), method, task)
    units = np.union1d(finished.units[finished.fits], shared.units[shared.fits])
    if not len(units):
        return _nothing_fits(finished, shared)
    kind: Kind = "finished" if all(_stands(finished, shared, int(unit)) for unit in units) else "shared"
    field = finished if kind == "finished" else shared
    return _answer(field, field.first(np.flatnonzero(field.fits)), kind)


@dataclass(frozen=True)
class Front:
    """What no other beats in quality on `search` and in a cost (the name of its limit), cost ascending; `kind`: ranked by what.

    Qualities are compared on the seeds that both were measured in (`search.candidates.unbeaten_on_common_seeds`).
    """

    kind: Kind
    cost: str
    points: tuple[Candidate, ...]
    runs: tuple[str, ...]


def fronts(
    source: Source | Columns | Iterable[Measurement], cost: str, budget: Budget, method: str | None = None, task: str | None = None
) -> list[Front]:
    """A front for each kind that has something within the budget, since kinds are never mixed. Raises UserError as `best` does."""
    found = _columns(source, task, method)
    both = [_Field(found, found.groups(kind), budget) for kind in RANKED]
    _check(both, {**budget.limits(), cost: np.inf}, budget.label(), method, task)
    made = []
    for kind, some in zip(RANKED, both, strict=True):
        spent = found.used(cost, some.groups.last)
        places = np.flatnonzero(some.fits & np.isfinite(spent))
        scores = some.groups.scores[:, places].T
        chosen = places[unbeaten_on_common_seeds(spent[places], scores, some.seeds_of(places), some.order(places))]
        if len(chosen):
            points = tuple(some.candidate(place) for place in chosen)
            made.append(Front(kind, cost, points, tuple(some.run(place) for place in chosen)))
    return made


def _columns(source: Source | Columns | Iterable[Measurement], task: str | None, method: str | None) -> Columns:
    if isinstance(source, Columns):
        return source.only(task, method)
    if isinstance(source, Iterable):
        return Columns.of(m for m in source if task in (None, m.task) and method in (None, m.architecture.method))
    return source.columns(task, method)


class _Field:
    """The candidates of one kind: `used` (m, limits), their costs; `fits`, `units`, `architecture` (m,)."""

    def __init__(self, columns: Columns, groups: Groups, budget: Budget) -> None:
        self.columns, self.groups, self.budget = columns, groups, budget
        self.limits = budget.limits()
        self.fits = self._within(groups.last)
        self.units, self.architecture = columns.unit[groups.last], columns.architecture[groups.last]

    def _within(self, rows: Ints) -> Bools:
        within = np.ones(len(rows), dtype=bool)
        for name, limit in self.limits.items():
            within &= self.columns.used(name, rows) <= limit
        return within

    @cached_property
    def used(self) -> Floats:
        costs = [self.columns.used(name, self.groups.last) for name in self.limits]
        return np.stack(costs, axis=1) if costs else np.zeros((len(self.groups), 0))

    def knows(self, name: str) -> bool:
        """Whether one of the candidates has the cost that a limit speaks of."""
        if np.isfinite(self.limits.get(name, np.inf)) and self.fits.any():
            return True
        return bool(np.isfinite(self.columns.used(name, self.groups.last)).any())

    def first(self, places: Ints) -> int:
        """The best of these candidates.

        One beats another where it was measured in all of the other's seeds and is better in the mean over these, as on a front: a lucky
        seed does not beat a mean over several. What nothing beats is left, at most one for each set of seeds; each seed names the best of
        these in it. The answer is what most seeds name, of those what was measured in most seeds, of those the one with the best mean.
        """
        groups = self.groups
        sets = groups.sets[places]
        if (sets == sets[0]).all():
            return self._top(places, groups.quality[places])
        there, number = np.unique(sets, return_inverse=True)
        of_set = np.split(places[np.argsort(number, kind="stable")], np.cumsum(np.bincount(number))[:-1])
        unbeaten = []
        for seeds, own in zip(groups.seed_sets[there], of_set, strict=True):
            holding = np.flatnonzero((groups.seed_sets[there] | ~seeds).all(axis=1))
            rivals = np.concatenate([of_set[i] for i in holding])
            top = self._top(rivals, groups.over(rivals, seeds))
            if groups.sets[top] == groups.sets[own[0]]:
                unbeaten.append(top)
        named = Counter(self.first_in(np.array(unbeaten), seed) for seed in _one_by_one(groups.seed_sets[there]))
        most = np.array([place for place in named if named[place] == max(named.values())])
        most = most[groups.counts[most] == groups.counts[most].max()]
        return self._top(most, groups.quality[most])

    def first_in(self, places: Ints, seeds: Bools) -> int:
        """The best in the mean over these seeds (s,), of those measured in all of them."""
        there = self.groups.measured_in(places, seeds)
        return self._top(there, self.groups.over(there, seeds))

    def _top(self, places: Ints, quality: Floats) -> int:
        return int(places[_first(self.columns, quality, self.groups.last[places], self.groups.counts[places])])

    def seeds_of(self, places: Ints) -> Bools:
        """(k, s): the seeds that each of these was measured in."""
        found: Bools = self.groups.seed_sets[self.groups.sets[places]]
        return found

    def order(self, places: Ints) -> Ints:
        """Of equals the one with the smallest of these numbers (k,) is preferred, as `best` does."""
        rows, columns = self.groups.last[places], self.columns
        costs = columns.numbers["flops"][rows], columns.parameters[rows]
        return ranks(*costs, -self.groups.counts[places], columns.architecture[rows], columns.unit[rows])

    def candidate(self, place: int) -> Candidate:
        return Candidate(tuple(self.columns.fetch(self.groups.rows_of(place))))

    def run(self, place: int) -> str:
        return str(self.columns.words["run"][self.columns.texts["run"][self.groups.last[place]]])


def _first(columns: Columns, quality: Floats, rows: Ints, seeds: Ints) -> int:
    """The place of the best of these rows (n,), whose qualities as ranked, and numbers of seeds, are given."""
    left = np.arange(len(rows))
    costs = columns.numbers["flops"][rows], columns.parameters[rows]
    for values in (-quality, *costs, -seeds, columns.architecture[rows], columns.unit[rows]):
        left = left[values[left] == values[left].min()]
    return int(left[0])


def _stands(finished: _Field, shared: _Field, unit: int) -> bool:
    """Whether the networks that a run's method finished within the budget stand for all that it measured there.

    They do where nothing was scored with shared weights; where all of them have the same seeds, and the best with shared weights is among
    them and has these seeds too; and where each seed has finished its own best with shared weights. (Under a budget that nobody finished
    networks for, the finished ones are other budgets' winners, and the best of those may be far from the best there is.)
    """
    mine, others = (np.flatnonzero(some.fits & (some.units == unit)) for some in (finished, shared))
    if not len(mine) or not len(others):
        return bool(len(mine))
    first = shared.first(others)
    alike = finished.seeds_of(mine) == shared.seeds_of(np.array([first]))
    if alike.all() and shared.architecture[first] in finished.architecture[mine]:
        return True
    return all(
        shared.architecture[shared.first_in(others, seed)] in finished.architecture[finished.groups.measured_in(mine, seed)]
        for seed in _one_by_one(shared.seeds_of(others))
    )


def _one_by_one(measured: Bools) -> Iterator[Bools]:
    """Each seed (s,) alone that any of these (k, s) was measured in."""
    return iter(np.eye(measured.shape[1], dtype=bool)[np.flatnonzero(np.any(measured, axis=0))])


def _check(both: Sequence[_Field], costs: Iterable[str], budget: str, method: str | None, task: str | None) -> None:
    columns = both[0].columns
    last = np.concatenate([some.groups.last for some in both])
    if not len(last):
        of = "".join(f" of {word} {name}" for word, name in (("method", method), ("task", task)) if name)
        raise UserError(f"nothing{of} was measured on the split search; run the search first, or name another")
    tasks = sorted(columns.words["task"][code] for code in np.unique(columns.texts["task"][last]))
    if len(tasks) > 1:
        raise UserError(f"there are measurements of the tasks {', '.join(tasks)}; name one of them")
    runs, first = np.unique(columns.texts["run"][last], return_index=True)
    if len(runs) > 1 and len(np.unique(columns.texts["split_digest"][last])) > 1:
        raise UserError("these runs were searched on different rows; query one run at a time")
    metrics = sorted({m.metric for m in columns.fetch(last[first])}) if len(runs) > 1 else []
    if len(metrics) > 1:
        raise UserError(f"these runs rank by different metrics, {' and '.join(metrics)}; query one run at a time")
    if "max_flops" in costs and any(len(np.unique(columns.numbers[name][last])) > 1 for name in ("length", "batch")):
        raise UserError("the FLOPs of these measurements are of different lengths or batches; query one run at a time")
    for name in costs:
        if not any(some.knows(name) for some in both):
            raise UserError(f"budget {budget}: no cost is known for {name}")


def _answer(field: _Field, place: int, kind: Kind) -> Answer:
    columns, row = field.columns, field.groups.last[place]
    winner = field.candidate(place)
    shown = next(((k, found) for k in SHOWN if (found := _validated(columns, row, k)) is not None), None)
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
        slack=field.budget.slack(winner.costs),
        run=field.run(place),
    )


def _validated(columns: Columns, row: int, kind: Kind) -> Candidate | None:
    """The architecture of that row, in that run, in a kind on `validation`."""
    rows = columns.current(kind, "validation")
    for codes in (columns.architecture, columns.texts["run"]):
        rows = rows[codes[rows] == codes[row]]
    by_seed = {m.seed: m for m in columns.fetch(rows)}
    return Candidate(tuple(by_seed[seed] for seed in sorted(by_seed))) if by_seed else None


def _nothing_fits(finished: _Field, shared: _Field) -> NothingFits:
    budget, names = finished.budget, list(finished.limits)
    used = np.concatenate([finished.used, shared.used])
    smallest = dict(zip(names, used.min(axis=0).tolist(), strict=True))
    limits = np.array(list(finished.limits.values()))
    over = used > limits
    alone = [names[i] for i in np.flatnonzero(over.all(axis=0))]
    in_the_way = [names[i] for i in np.flatnonzero(over[over.sum(axis=1) == 1].any(axis=0))]
    rows = np.concatenate([finished.groups.last, shared.groups.last])
    excess = (used - limits) / limits
    seeds = np.concatenate([finished.groups.counts, shared.groups.counts])
    closest = rows[_first(finished.columns, -excess.max(axis=1), rows, seeds)]
    return NothingFits(budget, tuple(alone or in_the_way or names), smallest, not alone, _nearest(finished.columns, closest, budget))


def _nearest(columns: Columns, row: int, budget: Budget) -> Nearest | None:
    m = columns.fetch(np.array([row]))[0]
    if not set(budget.limits()) <= set(m.costs.measured_against()):
        return None
    return Nearest(m.architecture, m.costs, {name: share for name, share in budget.violations(m.costs).items() if share > 0})


def _over(share: float) -> str:
    """A relative excess in words."""
    if share < 9:
        return f"{share:.2%} over"
    factor, unit = ((1 + share) / 1e6, " million") if share >= 999_499 else (1 + share, "")
    return f"{float(f'{factor:.3g}'):,.10g}{unit} times the limit"


def _amount(name: str, value: float) -> str:
    return f"{value:.6g} s" if name.startswith("max_latency") else f"{value:,.0f}"


def _finite(value: Any) -> Any:
    """With None for what is no finite number."""
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def plain(costs: Costs) -> dict[str, Any]:
    """Costs as plain JSON data."""
    same = ("embedding_parameters", "other_parameters", "parameters", "flops", "length", "batch")
    return {
        **{name: getattr(costs, name) for name in same},
        "latency": dict(costs.latency),
        "latency_measured": dict(costs.latency_measured),
    }
