"""A task of the experiment: its name, its data and how its texts are cut."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from methods.errors import UserError
from methods.tasks.questions.split import Windows
from methods.tasks.spec import KNOWN, METRICS, TaskSpec, resolve
from methods.tasks.task import Task, load_task
from methods.training.options import Options
from workbench.fields import Count, Seeds

DATA_SEED = 0
"""Row limits, teacher and demo backbone are the same whatever the run's seeds."""
RESERVED = (
    "teacher", "report", "predictions", "archive.db", "archive.db-wal", "archive.db-shm", "backbone", "corpus", "experiment.yaml",
    "environment.json", "optuna.log", "augmented", "tune", ".", "..",
)  # fmt: skip
"""What lies in a run folder beside the tasks' folders."""
QUESTION_LENGTHS = {"max_length": 384, **vars(Windows())}
"""Of questions, where nothing else is said."""


def _folder_name(name: str) -> str:
    """A task has a folder of its name in the run folder."""
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
        raise ValueError("a task's name is also a folder's; letters, digits, '_', '.' and '-' are allowed")
    if name.lower() in RESERVED:
        raise ValueError("the run folder has something else of that name; choose another")
    return name


def asks_questions(name: Any, metric: Any) -> bool:
    """Whether a task of that name or metric is answered by spans."""
    if isinstance(metric, str):
        return METRICS.get(metric) == "span"
    return isinstance(name, str) and name in KNOWN and KNOWN[name].spec.kind == "span"


class TaskOptions(Options):
    """`data`: `hub`, `hub:NAME`, `generated`, or a directory with train.tsv and validation.tsv; for questions train.json and
    validation.json in the layout of SQuAD v1.1.

    `text`, `label`, `labels`, `metric` describe a task that is not known by its name; for questions `metric` (answer_f1 or exact_match)
    is enough. `stride`, `question_length`: of questions alone, whose longer contexts are read in windows of `max_length` word pieces
    that share `stride` of them, and which are themselves cut at `question_length` (by default 384, 128 and 64).

    `rows` limits the training rows (None: all of them); texts are cut at `max_length` word pieces. `seeds`: those of the experiment's
    seeds that this task is run with (None: all).
    """

    name: Annotated[str, AfterValidator(_folder_name)]
    data: str = "hub"
    text: Annotated[tuple[str, ...], Field(min_length=1, max_length=2)] | None = None
    label: str | None = None
    labels: tuple[str, ...] | None = None
    metric: str | None = None
    rows: Count | None = None
    max_length: Annotated[int, Field(ge=4)] = 128
    stride: Annotated[int, Field(ge=0)] | None = None
    question_length: Count | None = None
    seeds: Seeds | None = None

    @model_validator(mode="before")
    @classmethod
    def _one_text(cls, data: Any) -> Any:
        """A single column may be written without brackets."""
        if isinstance(data, Mapping) and isinstance(data.get("text"), str):
            return {**data, "text": (data["text"],)}
        return data

    @model_validator(mode="before")
    @classmethod
    def _lengths_of_questions(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or not asks_questions(data.get("name"), data.get("metric")):
            return data
        return {**data, **{key: value for key, value in QUESTION_LENGTHS.items() if data.get(key) is None}}

    @property
    def spec(self) -> TaskSpec:
        """What the task is, without its data. Raises UserError where the description does not hold together."""
        spec = resolve(self.name, self.text, self.label, self.labels, self.metric)
        if self.windows is None and (self.stride, self.question_length) != (None, None):
            raise UserError(f"task {self.name}: stride and question_length are of questions (metric: answer_f1); take them out")
        if self.windows is not None:
            self.windows.check(self.max_length, f"task {self.name}")
        return spec

    @property
    def windows(self) -> Windows | None:
        """How contexts of questions are read; None of other tasks."""
        if self.stride is None or self.question_length is None or not asks_questions(self.name, self.metric):
            return None
        return Windows(self.stride, self.question_length)

    def load(self) -> Task:
        """The task with its data, its training rows limited; all splits open. Raises UserError."""
        described = {"text": self.text, "label": self.label, "labels": self.labels, "metric": self.metric}
        task = load_task(self.name, self.data, **described, windows=self.windows)  # type: ignore[arg-type]
        return task.limited(self.rows, DATA_SEED)
