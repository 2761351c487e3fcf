"""`Task`: data, splits, head and metric; and `load_task`, which makes one from a name and a place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from methods.errors import UserError
from methods.tasks.carve import carve
from methods.tasks.head import Head
from methods.tasks.questions.split import QuestionSplit, Windows
from methods.tasks.sources import read_directory, read_hub
from methods.tasks.spec import KNOWN, TaskSpec, resolve
from methods.tasks.split import Split, stratified_rows

AUGMENTED = "augmented"
"""The split of the training rows and their copies."""

__all__ = ["AUGMENTED", "ClosedSplit", "Split", "Task", "TaskSpec", "load_task", "task_names"]


class ClosedSplit(PermissionError):  # noqa: N818 (what happened, not that it did)
    """A split was opened by what must not see it, such as `validation` by a training or search stage."""


class Task:
    """A task with its data: `train`, `search`, `validation`, for MNLI `validation_mismatched` too; `augmented` where there are copies."""

    def __init__(self, spec: TaskSpec, splits: Mapping[str, Split], closed: Sequence[str] = ()) -> None:
        self.spec = spec
        self._splits = dict(splits)
        self._closed = frozenset(closed)

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def head(self) -> Head:
        return self.spec.head

    @property
    def split_names(self) -> tuple[str, ...]:
        """The splits that may be opened."""
        return tuple(self._splits)

    def split(self, name: str) -> Split:
        """Raises ClosedSplit where this view does not show the split, UserError where the task has none of that name."""
        if name in self._splits:
            return self._splits[name]
        if name in self._closed:
            raise ClosedSplit(f"task {self.name!r}: split {name!r} is closed here; open are {', '.join(self._splits)}")
        raise UserError(f"task {self.name!r}: no split {name!r}; there are {', '.join(self._splits)}")

    def restricted(self, *names: str) -> Task:
        """A view that opens the named splits alone; it does not hold the others' rows."""
        kept = {name: self.split(name) for name in names}
        return Task(self.spec, kept, sorted((self._closed | set(self._splits)) - set(kept)))

    def limited(self, rows: int | None, seed: int) -> Task:
        """A task with at most `rows` training rows: stratified, by `seed`, in their order; a larger limit contains a smaller one's rows.

        Of `augmented` these rows and their copies stay.
        """
        train = self.split("train")
        if rows is None or rows >= len(train):
            return self
        if rows < 1:
            raise UserError(f"task {self.name!r}: a limit of {rows} training rows; at least 1 is needed")
        chosen = {"train": train.take(stratified_rows(train.labels, rows, seed))}
        if AUGMENTED in self._splits:
            both = self._splits[AUGMENTED]
            chosen[AUGMENTED] = both.take(np.flatnonzero(np.isin(both.ids, chosen["train"].ids)))
        return Task(self.spec, {**self._splits, **chosen}, sorted(self._closed))

    def with_copies(self, copies: Split) -> Task:
        """The task with the split `augmented`: the training rows, then these copies of them; everything else as it is."""
        return Task(self.spec, {**self._splits, AUGMENTED: self.split("train").followed_by(copies, AUGMENTED)}, sorted(self._closed))


def load_task(
    name: str,
    data: str = "hub",
    *,
    text: Sequence[str] | str | None = None,
    label: str | None = None,
    labels: Sequence[str] | None = None,
    metric: Sequence[str] | str | None = None,
    search_rows: int = 2000,
    windows: Windows | None = None,
) -> Task:
    """The task of that name, its `search` split set apart from train (at most a tenth, at most `search_rows`).

    `data`: `hub` (the known data set of that name), `hub:NAME[:CONFIGURATION]` (that data set on the hub, or a local data set
    folder), `generated` (`demo`, `likeness`; `hub` means the same there), or a directory with train.tsv and validation.tsv, for questions
    train.json and validation.json in the layout of SQuAD v1.1. `windows`: how long contexts of questions are read. A name that is not
    known needs `text` (one or two columns), `label`, `labels` (class names in label order; none for regression) and `metric`
    (the main one, or several with the main one first); for questions the metric alone. Raises UserError for whatever is wrong with data
    or description.
    """
    spec = resolve(name, text, label, labels, metric)
    if search_rows < 1:
        raise UserError(f"task {name!r}: search_rows: {search_rows}; at least 1 is needed")
    splits = {key: _windowed(split, windows) for key, split in _splits(spec, str(data)).items()}
    source = f"{data}: train"
    present = np.unique(splits["train"].labels) if spec.kind == "classification" else None
    if present is not None and len(present) == 1:
        raise UserError(f"{source}: every row has the label {spec.labels[int(present[0])]!r}; rows of at least two classes are needed")
    train, search = carve(splits["train"], source, search_rows)
    return Task(spec, {"train": train, "search": search, **{key: split for key, split in splits.items() if key != "train"}})


def _windowed(split: Split, windows: Windows | None) -> Split:
    return replace(split, windows=windows) if isinstance(split, QuestionSplit) and windows else split


def _demo() -> tuple[Split, Split]:
    from methods.tasks.demo import TRAIN_ROWS, VALIDATION_ROWS, generate_demo

    return generate_demo(TRAIN_ROWS, VALIDATION_ROWS, seed=0)


def _likeness() -> tuple[Split, Split]:
    from methods.tasks.demo_likeness import TRAIN_ROWS, VALIDATION_ROWS, generate_likeness

    return generate_likeness(TRAIN_ROWS, VALIDATION_ROWS, seed=0)


_GENERATED: dict[str, Callable[[], tuple[Split, Split]]] = {"demo": _demo, "likeness": _likeness}


def _splits(spec: TaskSpec, data: str) -> dict[str, Split]:
    if data == "generated" or (spec.name in _GENERATED and data == "hub"):
        if spec.name not in _GENERATED or spec != KNOWN[spec.name].spec:
            made = " and ".join(_GENERATED)
            raise UserError(f"task.data: {made} are 'generated', as they are; task {spec.name!r} needs 'hub' or a directory")
        return {split.name: split for split in _GENERATED[spec.name]()}
    if data == "hub" or data.startswith("hub:"):
        return read_hub(spec, data[4:])
    return read_directory(spec, Path(data))


def task_names() -> dict[str, str]:
    """The tasks known by name, each with one line."""
    return {name: known.summary for name, known in KNOWN.items()}
