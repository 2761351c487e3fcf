"""`best`: the sub-network to ship under a budget, or why there is none; `fronts`: all that no other beats."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from methods.budget import Budget
from methods.costs import Costs
from methods.errors import UserError
from methods.space import Architecture
from search.candidates import Candidate, unbeaten_on_common_seeds
from search.columns import RANKED, Bools, Columns, Floats, Groups, Ints, rankable
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
        """Plain JSON data."""
        same = ("task", "kind", "metric", "metrics", "spread", "seed", "validation", "validation_kind", "slack")
        return {
            "id": self.architecture.id,
            "method": self.architecture.method,
            "choices": self.architecture.choices,
            **{name: getattr(self, name) for name in same},
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
    parameters, then the smaller id.

    Kinds are never mixed, and each method of each run decides for itself what it is ranked by (`_by_finished`): where all decide for the
    `finished` networks, the best of theirs is the answer, else the best with `shared` weights. An architecture measured in several seeds
    counts with its mean. Controls and `validation` are not ranked by.
    Raises UserError where nothing was measured, where several tasks were and none is named, where a limited cost is not known, or where
    several runs were searched on different rows.
    """
    found = _columns(source, task, method)
    finished, shared = (_Field(found, found.groups(kind), budget) for kind in RANKED)
    _check([finished, shared], budget.limits(), budget.label(), method, task)
    units = np.union1d(finished.units[finished.fits], shared.units[shared.fits])
    if not len(units):
        return _nothing_fits(finished, shared)
    winners = [_by_finished(finished, shared, int(unit)) for unit in units]
    if all(winner is not None for winner in winners):
        return _answer(finished, finished.first(np.array(winners)), "finished")
    return _answer(shared, shared.first(np.flatnonzero(shared.fits)), "shared")


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
        by_seed = some.groups.by_seed(found, places)
        chosen = places[unbeaten_on_common_seeds(spent[places], *by_seed, some.architecture[places])]
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
        """The best of these candidates."""
        return int(places[_first(self.columns, self.groups.quality[places], self.groups.last[places])])

    def rows(self, unit: int) -> Ints:
        """The rows of a run and method that meet the budget, each seed by itself."""
        rows: Ints = self.groups.rows[self.columns.unit[self.groups.rows] == unit]
        return rows[self._within(rows)]

    def all_have(self, places: Ints, seeds: Ints) -> bool:
        """Whether each of these candidates was measured in these seeds and no others."""
        inside = np.add.reduceat(np.isin(self.columns.numbers["seed"][self.groups.rows], seeds), self.groups.starts)
        return bool(((inside == len(seeds)) & (self.groups.counts == len(seeds)))[places].all())

    def seeds(self, place: int) -> Ints:
        found: Ints = self.columns.numbers["seed"][self.groups.rows_of(place)]
        return found

    def candidate(self, place: int) -> Candidate:
        return Candidate(tuple(self.columns.fetch(self.groups.rows_of(place))))

    def run(self, place: int) -> str:
        return str(self.columns.words["run"][self.columns.texts["run"][self.groups.last[place]]])


def _first(columns: Columns, quality: Floats, rows: Ints) -> int:
    """The place of the best of these rows (n,), whose qualities as ranked are given."""
    left = np.arange(len(rows))
    for values in (-quality, columns.numbers["flops"][rows], columns.parameters[rows], columns.architecture[rows], columns.unit[rows]):
        left = left[values[left] == values[left].min()]
    return int(left[0])


def _by_finished(finished: _Field, shared: _Field, unit: int) -> int | None:
    """The finished network that a run's method answers with; None where it is to be ranked by shared weights.

    Where all that were finished have the same seeds, the finished ones are ranked by their means, if the best with shared weights that
    meets the budget is among them and has these seeds too, or nothing was scored with shared weights. (Under a budget that nobody
    finished networks for, the finished ones are other budgets' winners, and the best of those may be far from the best there is.)

    Else each seed decides by itself, since each finishes what it found: a seed whose best with shared weights was finished in it names
    the best that it finished. What most seeds name is the answer, of those what was finished in most seeds (a mean over lucky seeds is no
    better than one over all), of those the one with the best mean. One seed that has not finished its best is enough for shared weights.
    """
    mine, others = (np.flatnonzero(some.fits & (some.units == unit)) for some in (finished, shared))
    if not len(mine):
        return None
    first = shared.first(others) if len(others) else None
    seeds = finished.seeds(int(mine[0])) if first is None else shared.seeds(first)
    there = first is None or shared.architecture[first] in finished.architecture[mine]
    if there and finished.all_have(mine, seeds):
        return finished.first(mine)
    named = _named(finished.columns, finished.rows(unit), shared.rows(unit))
    votes = np.array([named[architecture] for architecture in finished.architecture[mine].tolist()])
    if not votes.any():
        return None
    mine = mine[votes == votes.max()]
    counts = finished.groups.counts[mine]
    return finished.first(mine[counts == counts.max()])


def _named(columns: Columns, finished: Ints, shared: Ints) -> Counter[int]:
    """How many seeds name an architecture; none at all where a seed's best with shared weights was not finished in it."""
    named: Counter[int] = Counter()
    seed, quality = columns.numbers["seed"], rankable(columns.quality)
    for one in np.union1d(seed[finished], seed[shared]):
        mine, others = finished[seed[finished] == one], shared[seed[shared] == one]
        if len(others):
            first = columns.architecture[others[_first(columns, quality[others], others)]]
            if first not in columns.architecture[mine]:
                return Counter()
        named[int(columns.architecture[mine[_first(columns, quality[mine], mine)]])] += 1
    return named


def _check(both: Sequence[_Field], costs: Iterable[str], budget: str, method: str | None, task: str | None) -> None:
    columns = both[0].columns
    last = np.concatenate([some.groups.last for some in both])
    if not len(last):
        of = "".join(f" of {word} {name}" for word, name in (("method", method), ("task", task)) if name)
        raise UserError(f"nothing{of} was measured on the split search; run the search first, or name another")
    tasks = sorted(columns.words["task"][code] for code in np.unique(columns.texts["task"][last]))
    if len(tasks) > 1:
        raise UserError(f"there are measurements of the tasks {', '.join(tasks)}; name one of them")
    if len(np.unique(columns.texts["run"][last])) > 1 and len(np.unique(columns.texts["split_digest"][last])) > 1:
        raise UserError("these runs were searched on different rows; query one run at a time")
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
    closest = rows[_first(finished.columns, -excess.max(axis=1), rows)]
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


def plain(costs: Costs) -> dict[str, Any]:
    """Costs as plain JSON data."""
    same = ("embedding_parameters", "other_parameters", "parameters", "flops", "length", "batch")
    return {
        **{name: getattr(costs, name) for name in same},
        "latency": dict(costs.latency),
        "latency_measured": dict(costs.latency_measured),
    }
