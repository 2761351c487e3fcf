"""A finished (or unfinished) run, opened for reading: its tasks, budgets, measurements, stages and searches."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from methods.budget import Budget, parse_quantity
from methods.errors import UserError

if TYPE_CHECKING:
    from search.archive import Archive
    from search.measurement import Measurement
    from search.predictions import Predictions
    from search.selections import Selection
    from search.tables import SearchRow, StageRow
    from search.timings import Key, Timed

QUALITY_SPLIT = "validation"
CHOICE_SPLIT = "search"
_NO_OPTIONS = ("name", "tasks", "seeds", "controls")


@dataclass(frozen=True)
class Run:
    """What the analysis reads of a run folder. `name` is what tables call it; `length` and `batch` are those of its FLOPs.

    `planned`: the experiment's tasks, measured yet or not. `corpus`: the name under which work on unlabelled text is kept ('': none);
    `corpus_seed`: the seed of the one supernet that serves all seeds (None: every seed has its own). `options`: of each method, by the
    name that tables call it, as the experiment has them; `kinds`: the registered name of the method by that name. `location`: the URL of
    its archive ('': `archive.db` in the folder).
    """

    path: Path
    name: str
    budgets: tuple[Budget, ...]
    length: int
    batch: int
    planned: tuple[str, ...] = ()
    corpus: str = ""
    corpus_seed: int | None = None
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    kinds: Mapping[str, str] = field(default_factory=dict)
    location: str = ""

    @cached_property
    def archive(self) -> Archive:
        from search.archive import Archive

        return Archive(self.location or self.path / "archive.db", self.path, create=False)

    def close(self) -> None:
        """Gives the archive's connections back, if it was opened."""
        if "archive" in self.__dict__:
            self.archive.close()

    @cached_property
    def measurements(self) -> list[Measurement]:
        """All of the archive, one seed after the other; of what was timed as a whole with that latency."""
        from search.timings import as_measured

        return as_measured(sorted(self.archive.measurements(), key=lambda m: m.seed), self.timed)

    @cached_property
    def _finished(self) -> dict[tuple[str, str], dict[tuple[str, int], Measurement]]:
        return {}

    @cached_property
    def timed(self) -> dict[Key, Timed]:
        """The latencies of winners, as predicted and as measured."""
        from search.timings import timed_in

        return timed_in(self.archive)

    @cached_property
    def stages(self) -> list[StageRow]:
        return self.archive.stages()

    @cached_property
    def searches(self) -> list[SearchRow]:
        return self.archive.searches()

    @cached_property
    def selections(self) -> list[Selection]:
        from search.selections import selections

        return selections(self.archive)

    @cached_property
    def facts(self) -> dict[str, str]:
        """How things were trained, in words, by subject."""
        from search.selections import facts

        return facts(self.archive)

    @property
    def tasks(self) -> list[str]:
        """Tasks in the experiment's order; the corpus is none."""
        return _in_order({m.task: None for m in self.measurements if m.task != self.corpus}, self.planned)

    def methods(self, task: str) -> list[str]:
        """Methods of which something else than a control was measured, in the experiment's order."""
        return _in_order({m.architecture.method: None for m in self.measurements if m.task == task and m.kind != "control"}, self.kinds)

    @property
    def all_methods(self) -> list[str]:
        """Methods of which something else than a control was measured anywhere."""
        return _in_order({m.architecture.method: None for m in self.measurements if m.kind != "control"}, self.kinds)

    @cached_property
    def corpus_methods(self) -> list[str]:
        """Methods that were trained on the corpus."""
        return self.methods(self.corpus) if self.corpus else []

    @property
    def served(self) -> tuple[int, int]:
        """How many tasks and how many budgets work on the corpus serves."""
        return max(len(self.planned or self.tasks), 1), max(len(self.budgets), 1)

    def supernet_seed(self, seed: int) -> int:
        """The seed of the supernet on the corpus that serves a seed."""
        return seed if self.corpus_seed is None else self.corpus_seed

    def metric(self, task: str) -> str:
        """The main metric of networks on a task; '' where none was measured."""
        return next((m.metric for m in self.measurements if m.task == task and m.kind not in ("predicted", "assembled")), "")

    def seeds(self, task: str, method: str) -> list[int]:
        return sorted({m.seed for m in self.measurements if m.task == task and m.architecture.method == method and m.kind != "control"})

    def controls(self, task: str, split: str = QUALITY_SPLIT) -> list[Measurement]:
        return [m for m in self.measurements if m.task == task and m.kind == "control" and m.split == split]

    def finished(self, task: str, architecture_id: str, seed: int, split: str = QUALITY_SPLIT) -> Measurement | None:
        """The network that ships, on a split; one that was finished from a supernet that was trained again since does not count."""
        if (task, split) not in self._finished:
            from search.candidates import candidates

            found = candidates([m for m in self.measurements if m.task == task], "finished", split)
            self._finished[task, split] = {(m.architecture.id, m.seed): m for c in found for m in c.measurements}
        return self._finished[task, split].get((architecture_id, seed))

    def predictions(self, measurement: Measurement) -> Predictions | None:
        return self.archive.predictions(measurement.key)


def open_runs(paths: Iterable[Path | str]) -> list[Run]:
    """The runs of these folders. Raises UserError where one is no run folder; damage of an archive shows when it is read."""
    folders = [Path(path) for path in paths]
    if not folders:
        raise UserError("no run folder is named; give at least one")
    last = [folder.resolve().name for folder in folders]
    return [_open(f, name if last.count(name) == 1 else str(f)) for f, name in zip(folders, last, strict=True)]


def _open(folder: Path, name: str) -> Run:
    file = folder / "experiment.yaml"
    try:
        experiment = yaml.safe_load(file.read_text())
    except FileNotFoundError:
        raise UserError(f"{folder}: no run folder (it has no experiment.yaml); `elastibench run` makes one") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{file}: can't be read ({str(error).splitlines()[0]})") from error
    try:
        cost = experiment.get("cost") or {}
        budgets = _budgets(experiment.get("budgets") or [], file)
        task, corpus = experiment.get("task"), experiment.get("corpus") or {}
        planned = tuple(str(entry["name"]) for entry in ([task] if task else experiment.get("tasks") or []))
        size = int(cost.get("length", 128)), int(cost.get("batch", 1))
        entries = {str(e.get("label") or e["name"]): e for e in experiment.get("methods") or []}
        options = {label: {key: e[key] for key in e if key not in _NO_OPTIONS} for label, e in entries.items()}
        kinds = {label: str(e["name"]) for label, e in entries.items()}
        of_corpus = str(corpus.get("name", "")), corpus.get("seed")
        return Run(folder, name, budgets, *size, planned, *of_corpus, options, kinds, experiment.get("archive") or "")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{file}: is no experiment (a mapping with `budgets`, a list of limits, and `cost`: length and batch)") from error


def _budgets(entries: Sequence[Mapping[str, Any]], file: Path) -> tuple[Budget, ...]:
    budgets = []
    for place, entry in enumerate(entries):
        limits = {
            name: parse_quantity(entry[name], f"{file}: budgets[{place}].{name}")
            for name in ("max_params", "max_params_non_embedding", "max_flops")
            if entry.get(name) is not None
        }
        latency = entry.get("max_latency") or {}
        if not isinstance(latency, Mapping):
            raise UserError(f"{file}: budgets[{place}].max_latency: {latency!r} is no mapping; write DEVICE: SECONDS")
        budgets.append(Budget(**limits, max_latency=latency, name=entry.get("name") or ""))
    return tuple(budgets)


def _in_order(found: Iterable[str], known: Iterable[str]) -> list[str]:
    """As they stand in the experiment, whatever was measured first; what is not in it comes last."""
    places = {name: place for place, name in enumerate(known)}
    return sorted(found, key=lambda name: places.get(name, len(places)))


def here(path: Path | str) -> str:
    """A path from the working directory on: what is shown to others names no folders of this machine."""
    return os.path.relpath(path)
