"""`Columns`: measurements as arrays, in the order in which they were added; what a query looks at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from search.measurement import Kind, Measurement
from search.timings import Key, Timed, as_measured

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
TEXTS = ("run", "task", "method", "split", "split_digest", "weights_digest", "kind")
COSTS = ("embedding_parameters", "other_parameters", "flops")
NUMBERS = ("seed", *COSTS, "length", "batch")
RANKED: tuple[Kind, ...] = ("finished", "shared")
"""The kinds that a query ranks by."""


@dataclass(frozen=True, eq=False)
class Columns:
    """Arrays of n rows. `architecture`: places in `ids`, which are sorted; `texts`: per name of `TEXTS` places in `words`; `numbers`: per
    name of `NUMBERS`; `quality`: the main metric; `latency`: per device seconds, infinite where not known.

    `fetch` makes measurements of row numbers. What is worked out of the arrays is kept with them.
    """

    ids: npt.NDArray[np.bytes_]
    architecture: Ints
    texts: Mapping[str, Ints]
    words: Mapping[str, Sequence[str]]
    numbers: Mapping[str, Ints]
    quality: Floats
    latency: Mapping[str, Floats]
    fetch: Callable[[Ints], list[Measurement]]
    _kept: dict[Any, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.quality)

    @classmethod
    def of(cls, measurements: Iterable[Measurement]) -> Columns:
        """Of measurements at hand."""
        found = list(measurements)
        gathered = Gathered(lambda rows: [found[row] for row in rows])
        gathered.add(
            [m.architecture.id for m in found],
            {name: [getattr(m, name) for m in found] for name in TEXTS if name not in ("run", "method")}
            | {"run": [""] * len(found), "method": [m.architecture.method for m in found]},
            {name: [getattr(m.costs, name) for m in found] for name in NUMBERS if name != "seed"} | {"seed": [m.seed for m in found]},
            [m.quality for m in found],
            [{**m.costs.latency, **m.costs.latency_measured} for m in found],
        )
        return gathered.columns()

    @classmethod
    def joined(cls, runs: Mapping[str, Columns]) -> Columns:
        """Those of several runs, one after the other."""
        parts = list(runs.values())
        borders = np.cumsum([0, *(len(part) for part in parts)])

        def fetch(rows: Ints) -> list[Measurement]:
            inside = [(i, rows[(rows >= borders[i]) & (rows < borders[i + 1])]) for i in range(len(parts))]
            found = {int(row): m for i, some in inside for row, m in zip(some, parts[i].fetch(some - borders[i]), strict=True)}
            return [found[int(row)] for row in rows]

        gathered = Gathered(fetch)
        for name, part in runs.items():
            words: dict[str, Sequence[str]] = {key: [part.words[key][i] for i in part.texts[key].tolist()] for key in TEXTS if key != "run"}
            latency = [{device: float(seconds[row]) for device, seconds in part.latency.items() if np.isfinite(seconds[row])}
                       for row in range(len(part))] if part.latency else [{}] * len(part)  # fmt: skip
            gathered.add(part.ids[part.architecture], {**words, "run": [name] * len(part)}, part.numbers, part.quality, latency)
        return gathered.columns().grouped()

    def timed(self, known: Mapping[Key, Timed]) -> Columns:
        """The same with the measured latency of whole networks, where it is known (`search.timings.as_measured`)."""
        latency = dict(self.latency)
        for one in known.values():
            place = int(np.searchsorted(self.ids, one.architecture.encode()))
            if one.measured is not None and place < len(self.ids) and self.ids[place] == one.architecture.encode():
                rows = (self.architecture == place) & self.are("task", one.task) & self.are("method", one.method)
                latency[one.device] = np.where(rows, one.measured, latency.get(one.device, np.inf))
        kept = {key: value for key, value in self._kept.items() if "only" not in key}  # of these latency is no part
        return replace(self, latency=latency, fetch=lambda rows: as_measured(self.fetch(rows), known), _kept=kept)

    def grouped(self) -> Columns:
        """The same, with its rows gathered by architecture, so that the first query takes no longer than those to come."""
        for kind in RANKED:
            self.groups(kind)
        return self

    def where(self, keep: Bools) -> Columns:
        """Those rows alone."""
        rows = np.flatnonzero(keep)
        if len(rows) == len(self):
            return self
        return Columns(
            self.ids,
            self.architecture[rows],
            {name: codes[rows] for name, codes in self.texts.items()},
            self.words,
            {name: values[rows] for name, values in self.numbers.items()},
            self.quality[rows],
            {device: seconds[rows] for device, seconds in self.latency.items()},
            lambda places: self.fetch(rows[places]),
        )

    def only(self, task: str | None = None, method: str | None = None) -> Columns:
        """Those of a task and a method."""
        if ("only", task, method) not in self._kept:
            keep = np.ones(len(self), dtype=bool)
            for name, value in (("task", task), ("method", method)):
                if value is not None:
                    keep &= self.are(name, value)
            self._kept["only", task, method] = self.where(keep)
        part: Columns = self._kept["only", task, method]
        return part

    def are(self, name: str, value: str) -> Bools:
        """(n,): where this text has this value."""
        words = self.words[name]
        found: Bools = self.texts[name] == (words.index(value) if value in words else -1)
        return found

    @property
    def parameters(self) -> Ints:
        if "parameters" not in self._kept:
            self._kept["parameters"] = self.numbers["embedding_parameters"] + self.numbers["other_parameters"]
        found: Ints = self._kept["parameters"]
        return found

    def used(self, name: str, rows: Ints) -> Floats:
        """The cost that a limit of a `Budget` speaks of; infinite where it is not known."""
        if name.startswith("max_latency."):
            unknown = np.full(len(rows), np.inf)
            seconds = self.latency.get(name.removeprefix("max_latency."))
            return unknown if seconds is None else seconds[rows]
        plain = {"max_params_non_embedding": "other_parameters", "max_flops": "flops"}
        values = self.parameters if name == "max_params" else self.numbers[plain[name]]
        return values[rows].astype(np.float64)

    def current(self, kind: Kind, split: str) -> Ints:
        """The rows whose measurements of this kind on this split count.

        Where a seed's supernet was trained again, scores of the weights before do not count, neither with `shared` weights nor
        `finished` from them: with shared weights those of the supernet measured last, others those added since the present one was
        first searched.
        """
        if ("current", kind, split) not in self._kept:
            mine = np.flatnonzero(self.are("kind", kind) & self.are("split", split))
            self._kept["current", kind, split] = self._current(mine, kind, split) if len(mine) else mine
        rows: Ints = self._kept["current", kind, split]
        return rows

    def _current(self, mine: Ints, kind: Kind, split: str) -> Ints:
        digests, who = self.texts["weights_digest"], self._whose
        searched = np.flatnonzero(self.are("kind", "shared") & self.are("split", split if kind == "shared" else "search"))
        last = np.full(int(who.max(initial=-1)) + 1, -1)
        last[who[searched]] = digests[searched]
        if kind == "shared":
            of_last: Ints = mine[digests[mine] == last[who[mine]]]
            return of_last
        again = np.zeros(len(last), dtype=bool)
        again[who[searched[digests[searched] != last[who[searched]]]]] = True
        present = searched[digests[searched] == last[who[searched]]][::-1]
        since = np.zeros(len(last), dtype=np.int64)
        since[who[present]] = present
        return mine[~again[who[mine]] | (mine >= since[who[mine]])]

    @property
    def unit(self) -> Ints:
        """(n,): a number for each run and method."""
        if "unit" not in self._kept:
            self._kept["unit"] = self.texts["run"] * len(self.words["method"]) + self.texts["method"]
        found: Ints = self._kept["unit"]
        return found

    @property
    def seeds(self) -> tuple[Ints, Ints]:
        """The seeds that there are, and (n,) places in them."""
        if "seeds" not in self._kept:
            self._kept["seeds"] = np.unique(self.numbers["seed"], return_inverse=True)
        found: tuple[Ints, Ints] = self._kept["seeds"]
        return found

    @property
    def _whose(self) -> Ints:
        """(n,): a number for each run, task, method and seed."""
        seeds, seed = self.seeds
        whose: Ints = (self.unit * len(self.words["task"]) + self.texts["task"]) * len(seeds) + seed
        return whose

    def groups(self, kind: Kind, split: str = "search") -> Groups:
        """The architectures measured in this kind on this split, each with its rows, the last one of each seed."""
        if ("groups", kind, split) not in self._kept:
            self._kept["groups", kind, split] = self._groups(self.current(kind, split))
        found: Groups = self._kept["groups", kind, split]
        return found

    def _groups(self, rows: Ints) -> Groups:
        seeds, seed = self.seeds
        whose = self.architecture[rows] * max(1, len(self.words["run"])) + self.texts["run"][rows]
        key = whose * max(1, len(seeds)) + seed[rows]
        order = np.argsort(key, kind="stable")
        key, ends = key[order], np.ones(len(order), dtype=bool)
        ends[:-1] = key[1:] != key[:-1]
        rows, whose = rows[order][ends], key[ends] // max(1, len(seeds))
        starts = np.flatnonzero(np.diff(whose, prepend=-1))
        counts = np.diff(np.append(starts, len(rows)))
        mean = np.add.reduceat(self.quality[rows], starts) / counts if len(rows) else np.zeros(0)
        of = np.repeat(np.arange(len(starts)), counts)
        scores, measured = np.full((len(seeds), len(starts)), -np.inf), np.zeros((len(starts), len(seeds)), dtype=bool)
        scores[seed[rows], of], measured[of, seed[rows]] = rankable(self.quality[rows]), True
        last = rows[starts + counts - 1] if len(rows) else rows
        return Groups(rows, starts, counts, rankable(mean), last, scores, *_sets(measured))


def _sets(measured: Bools) -> tuple[Ints, Bools]:
    """Which set of seeds each of m architectures was measured in (m,), and these sets (q, s); `measured` (m, s)."""
    if measured.all():
        return np.zeros(len(measured), dtype=np.int64), measured[:1]
    packed = np.packbits(measured, axis=1)
    _, first, sets = np.unique(packed.view(f"S{packed.shape[1]}").ravel(), return_index=True, return_inverse=True)
    return sets.astype(np.int64), measured[first]


@dataclass(frozen=True, eq=False)
class Groups:
    """m architectures, each of one run. `rows`: the rows of all of them, seeds ascending; `starts`, `counts` (m,): whose they are;
    `quality` (m,): means over seeds as they are ranked by; `last` (m,): the row of the highest seed, whose costs count; `scores` (s, m):
    the quality in each seed, minus infinity where there is none; `sets` (m,): the place in `seed_sets` (q, s) of the seeds that it was
    measured in."""

    rows: Ints
    starts: Ints
    counts: Ints
    quality: Floats
    last: Ints
    scores: Floats
    sets: Ints
    seed_sets: Bools

    def __len__(self) -> int:
        return len(self.starts)

    def measured_in(self, places: Ints, seeds: Bools) -> Ints:
        """Those of them that were measured in all of these seeds (s,)."""
        holding: Bools = np.all(self.seed_sets | ~seeds, axis=1)
        return places[holding[self.sets[places]]]

    def over(self, places: Ints, seeds: Bools) -> Floats:
        """Of some of them the means over these seeds (s,) as they are ranked by (k,)."""
        total = np.zeros(len(places))
        for seed in np.flatnonzero(seeds):
            total += self.scores[seed, places]
        return rankable(total / seeds.sum())

    def rows_of(self, place: int) -> Ints:
        start = self.starts[place]
        return self.rows[start : start + self.counts[place]]


def rankable(quality: Floats) -> Floats:
    """Qualities as they are ranked by: 12 decimals, so that means that differ by rounding alone tie; what is no finite number is the
    worst."""
    return np.where(np.isfinite(quality), np.round(quality, 12), -np.inf)


def ranks(*keys: npt.NDArray[Any]) -> Ints:
    """The place of each (n,) in their order by the first of these keys, of equals by the next."""
    found = np.empty(len(keys[0]), dtype=np.int64)
    found[np.lexsort(keys[::-1])] = np.arange(len(found))
    return found


class Gathered:
    """Columns in the making, a part at a time."""

    def __init__(self, fetch: Callable[[Ints], list[Measurement]]) -> None:
        self._fetch = fetch
        self._words: dict[str, dict[str, int]] = {name: {} for name in TEXTS}
        self._parts: list[tuple[Any, dict[str, Ints], dict[str, Ints], Floats]] = []
        self._latency: list[tuple[int, Mapping[str, float]]] = []
        self._rows = 0

    def add(
        self,
        ids: Sequence[str] | npt.NDArray[np.bytes_],
        texts: Mapping[str, Sequence[str]],
        numbers: Mapping[str, Any],
        quality: Sequence[float | None] | Floats,
        latency: Sequence[Mapping[str, float]],
    ) -> None:
        """So many rows more."""
        codes = {}
        for name in TEXTS:
            words = self._words[name]
            codes[name] = np.array([words.setdefault(word, len(words)) for word in texts[name]], dtype=np.int64)
        values = {name: np.asarray(numbers[name], dtype=np.int64) for name in NUMBERS}
        self._parts.append((np.asarray(ids, dtype="S64"), codes, values, np.array(quality, dtype=np.float64)))
        self._latency += [(self._rows + row, known) for row, known in enumerate(latency) if known]
        self._rows += len(ids)

    def columns(self) -> Columns:
        parts = self._parts
        ids, architecture = np.unique(np.concatenate([part[0] for part in parts] or [np.zeros(0, "S64")]), return_inverse=True)
        latency: dict[str, Floats] = {}
        for row, known in self._latency:
            for device, seconds in known.items():
                if device not in latency:
                    latency[device] = np.full(self._rows, np.inf)
                latency[device][row] = seconds
        none = np.zeros(0, dtype=np.int64)
        return Columns(
            ids,
            architecture.astype(np.int64),
            {name: np.concatenate([none, *(part[1][name] for part in parts)]) for name in TEXTS},
            {name: tuple(words) for name, words in self._words.items()},
            {name: np.concatenate([none, *(part[2][name] for part in parts)]) for name in NUMBERS},
            np.concatenate([np.zeros(0), *(part[3] for part in parts)]),
            latency,
            self._fetch,
        )
