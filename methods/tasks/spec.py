"""What a task is, without data; and the tasks that are known by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from methods.errors import UserError
from methods.tasks.head import Head

SPAN_METRICS = ("answer_f1", "exact_match")
"""SQuAD's F1 over the words of an answer, and the share of answers that are right word by word; means over questions."""
METRICS = {
    **dict.fromkeys(("accuracy", "f1", "matthews"), "classification"),
    **dict.fromkeys(("spearman", "pearson"), "regression"),
    **dict.fromkeys(SPAN_METRICS, "span"),
}
"""Every metric, and the kind of task that it measures; for each of them larger is better."""


@dataclass(frozen=True)
class TaskSpec:
    """A task without its data.

    `text`: one or two column names; `label`: the label's column; `labels`: class names in label order, empty for regression and for
    questions (`span`), whose texts are question and context and whose label column holds the answers;
    `metric`: the main metric, the one that ranks; `metrics`: all that are reported, the main one first.
    """

    name: str
    text: tuple[str, ...]
    label: str
    labels: tuple[str, ...]
    metric: str
    metrics: tuple[str, ...]

    def __post_init__(self) -> None:
        place = f"task {self.name!r}"
        if len(self.text) not in (1, 2):
            raise UserError(f"{place}: text: {list(self.text)}; one or two column names are needed")
        if len({*self.text, self.label}) != len(self.text) + 1:
            raise UserError(f"{place}: text {list(self.text)} and label {self.label!r} name a column twice")
        if len(self.labels) == 1 or len(set(self.labels)) != len(self.labels):
            raise UserError(f"{place}: labels: {list(self.labels)}; at least two different class names are needed, or none for regression")
        if self.kind == "span" and len(self.text) != 2:
            raise UserError(f"{place}: text: {list(self.text)}; the columns of question and context are needed, in this order")
        for metric in self.metrics:
            if METRICS.get(metric) != self.kind:
                fitting = ", ".join(name for name, kind in METRICS.items() if kind == self.kind)
                why = f"with {len(self.labels)} labels" if self.labels else "without labels"
                raise UserError(f"{place}: metric: {metric!r} does not fit {self.kind} ({why}); possible: {fitting}")

    @property
    def kind(self) -> Literal["classification", "regression", "span"]:
        if self.labels:
            return "classification"
        return "span" if METRICS.get(self.metric) == "span" else "regression"

    @property
    def head(self) -> Head:
        """What the task asks of a network."""
        return Head(self.kind, len(self.labels) or 1, pair=len(self.text) == 2)


@dataclass(frozen=True)
class Known:
    """A task known by name: its spec, where the hub has it, and which of its splits are reported."""

    summary: str
    spec: TaskSpec
    hub: tuple[str, str] | None = None
    validation: str = "validation"
    extra: tuple[str, ...] = ()


def _glue(
    name: str, summary: str, text: str, labels: str, *metrics: str, validation: str = "validation", extra: tuple[str, ...] = ()
) -> tuple[str, Known]:
    spec = TaskSpec(name, tuple(text.split()), "label", tuple(labels.split()), metrics[0], metrics)
    return name, Known(summary, spec, ("nyu-mll/glue", name), validation, extra)


KNOWN: dict[str, Known] = dict(
    (
        _glue("cola", "GLUE: is the sentence acceptable English", "sentence", "unacceptable acceptable", "matthews", "accuracy"),
        _glue("sst2", "GLUE: sentiment of film reviews", "sentence", "negative positive", "accuracy"),
        _glue("mrpc", "GLUE: do two sentences say the same", "sentence1 sentence2", "not_equivalent equivalent", "accuracy", "f1"),
        _glue("stsb", "GLUE: how alike are two sentences, 0 to 5 (regression)", "sentence1 sentence2", "", "spearman", "pearson"),
        _glue("qqp", "GLUE: do two questions ask the same", "question1 question2", "not_duplicate duplicate", "accuracy", "f1"),
        _glue(
            "mnli",
            "GLUE: does the premise entail or contradict the hypothesis",
            "premise hypothesis",
            "entailment neutral contradiction",
            "accuracy",
            validation="validation_matched",
            extra=("validation_mismatched",),
        ),
        _glue("qnli", "GLUE: does the sentence answer the question", "question sentence", "entailment not_entailment", "accuracy"),
        _glue("rte", "GLUE: does the first text entail the second", "sentence1 sentence2", "entailment not_entailment", "accuracy"),
        _glue("wnli", "GLUE: what the pronoun refers to", "sentence1 sentence2", "not_entailment entailment", "accuracy"),
    )
)
KNOWN["squad"] = Known(
    "SQuAD v1.1: the span of a paragraph that answers a question (a directory holds train.json, validation.json)",
    TaskSpec("squad", ("question", "context"), "answers", (), SPAN_METRICS[0], SPAN_METRICS),
    ("rajpurkar/squad", ""),
)
KNOWN["trec6"] = Known(
    "TREC: what a question asks for, six classes (data: a directory)",
    TaskSpec("trec6", ("text",), "coarse_label", ("ABBR", "ENTY", "DESC", "HUM", "LOC", "NUM"), "accuracy", ("accuracy",)),
)
KNOWN["demo"] = Known(
    "generated opinions whose verdict needs negation, contrast and scope (data: generated)",
    TaskSpec("demo", ("sentence",), "label", ("negative", "positive"), "accuracy", ("accuracy",)),
)
KNOWN["likeness"] = Known(
    "generated pairs of opinions: how alike they are, 0 to 5 (regression; data: generated)",
    TaskSpec("likeness", ("first", "second"), "score", (), "spearman", ("spearman", "pearson")),
)


def resolve(
    name: str,
    text: Sequence[str] | str | None = None,
    label: str | None = None,
    labels: Sequence[str] | None = None,
    metric: Sequence[str] | str | None = None,
) -> TaskSpec:
    """The spec of a known name, changed where an argument is given; another name must bring all of them. Raises UserError.

    Of a task whose metric is one of questions, both are reported, and the columns are SQuAD's unless they are given.
    """
    metrics = None if metric is None else _tuple(metric)
    if metrics and METRICS.get(metrics[0]) == "span":
        metrics = tuple(dict.fromkeys((*metrics, *SPAN_METRICS)))
    changes: dict[str, Any] = {
        "text": None if text is None else _tuple(text),
        "label": label,
        "labels": None if labels is None else tuple(str(entry) for entry in labels),
        "metric": metrics and metrics[0],
        "metrics": metrics,
    }
    changes = {key: value for key, value in changes.items() if value is not None}
    if name in KNOWN:
        return replace(KNOWN[name].spec, **changes)
    if metrics and METRICS.get(metrics[0]) == "regression":
        changes.setdefault("labels", ())
    if metrics and METRICS.get(metrics[0]) == "span":
        changes = {"text": ("question", "context"), "label": "answers", "labels": (), **changes}
    missing = [f"task.{key}" for key in ("text", "label", "labels", "metric") if key not in changes]
    if missing:
        raise UserError(
            f"task.name: {name!r} is none of the known tasks ({', '.join(KNOWN)}), so its data must be described; "
            f"missing: {', '.join(missing)} (labels: class names in label order; leave it out for regression with spearman or pearson; "
            "questions in the layout of SQuAD need metric: answer_f1 alone)"
        )
    return TaskSpec(name, **changes)


def _tuple(value: Sequence[str] | str) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)
