"""The statistics of this floor applied to what the archive keeps: per-example predictions of measurements on one split."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from analysis.statistics import (
    PairedTest,
    bootstrap_draws,
    bootstrap_interval,
    bootstrap_mean,
    mcnemar,
    paired_permutation,
    percentiles,
    sign_flips,
)

if TYPE_CHECKING:
    from analysis.runs import Run
    from search.measurement import Measurement

ROUNDS = 500
"""Draws for metrics that are no mean over examples: each draw computes the metric anew for every network."""
PER_TEST = 40
"""So many draws at least for each of the tests that are corrected together: Holm's factor times the smallest p is 1/40 then."""
COUNTED = ("accuracy", "exact_match")
"""Metrics that are the share of examples that are right."""


class NoTestError(Exception):
    """A paired comparison is not possible; the message says why."""


@dataclass(frozen=True)
class Answers:
    """`logits` (n, networks, outputs) of several networks on the same examples (of questions F1 and exact match of their answers); `labels`
    and `ids` of the examples (n,), ids ascending."""

    metric: str
    labels: npt.NDArray[Any]
    logits: npt.NDArray[Any]
    ids: npt.NDArray[Any]

    @property
    def correct(self) -> npt.NDArray[np.float64]:
        """Share of the networks that get each example right, shape (n,); one whose logits are not all finite (it diverged) gets none."""
        right = self.logits[..., 1] if self.metric == "exact_match" else self.logits.argmax(axis=2) == self.labels[:, None]
        share: npt.NDArray[np.float64] = np.where(np.isfinite(self.logits).all(axis=(0, 2)), right, 0.0).mean(axis=1)
        return share

    def quality(self, rows: npt.NDArray[np.int64]) -> float:
        """The mean over networks of the metric on these examples."""
        return mean_metric(self.metric)(self.labels[rows], self.logits[rows])


def mean_metric(metric: str) -> Callable[[npt.NDArray[Any], npt.NDArray[Any]], float]:
    """`f(labels (n,), logits (n, networks, outputs))`: the metric's mean over the networks, 0 for one whose logits are not all finite."""
    from methods.tasks.metrics import compute
    from methods.tasks.spec import METRICS, TaskSpec

    def value(labels: npt.NDArray[Any], logits: npt.NDArray[Any]) -> float:
        networks, outputs = logits.shape[1:]
        if metric in ("matthews", "f1"):
            finite = np.isfinite(logits).all(axis=(0, 2))
            found = [from_confusion(metric, labels, logits[:, i].argmax(axis=1), outputs) for i in range(networks)]
            return float(np.mean(np.where(finite, found, 0.0)))
        classes = tuple(map(str, range(outputs))) if METRICS.get(metric) == "classification" else ()
        spec = TaskSpec("paired", ("text", "text_b"), "label", classes, metric, (metric,))
        return float(np.mean([compute(spec, logits[:, i], labels)[metric] for i in range(networks)]))

    return value


def from_confusion(metric: str, labels: npt.NDArray[Any], predictions: npt.NDArray[Any], classes: int) -> float:
    """Matthews correlation (Gorodkin 2004) or F1 as `methods.tasks.metrics` has them, a hundred times faster than scikit-learn on the few
    hundred examples of one draw: resampling calls it thousands of times."""
    table = (
        np.bincount(labels.astype(np.int64) * classes + predictions, minlength=classes * classes).reshape(classes, classes).astype(float)
    )
    true, predicted, right = table.sum(axis=1), table.sum(axis=0), table.diagonal()
    if metric == "matthews":
        n = table.sum()
        scale = np.sqrt((n**2 - (true**2).sum()) * (n**2 - (predicted**2).sum()))
        return float((right.sum() * n - true @ predicted) / scale) if scale > 0 else 0.0
    both = true + predicted
    f1 = np.divide(2 * right, both, out=np.zeros(classes), where=both > 0)
    return float(f1[1] if classes == 2 else f1.mean())


def answers(run: Run, measured: Sequence[Measurement]) -> Answers:
    """The predictions of several measurements, example by example. Raises NoTestError where they are not to be had."""
    kept = [run.predictions(m) for m in measured]
    if not kept or any(p is None for p in kept):
        raise NoTestError("per-example predictions were not kept")
    found = [p for p in kept if p is not None]
    if found[0].labels is None:
        raise NoTestError("the predictions were kept without labels")
    orders = [np.argsort(p.ids) for p in found]
    if any(not np.array_equal(p.ids[order], found[0].ids[orders[0]]) for p, order in zip(found, orders, strict=True)):
        raise NoTestError("the predictions are of different examples")
    logits = np.stack([p.logits[order].reshape(len(order), -1) for p, order in zip(found, orders, strict=True)], axis=1)
    return Answers(measured[0].metric, found[0].labels[orders[0]], logits, found[0].ids[orders[0]])


def interval(run: Run, measured: Sequence[Measurement]) -> tuple[float, float] | None:
    """95 % bootstrap interval, over examples, of the networks' mean quality; None where predictions were not kept."""
    try:
        given = answers(run, measured)
    except NoTestError:
        return None
    if given.metric in COUNTED:
        return bootstrap_mean(given.correct)
    rows = np.arange(len(given.labels))
    return bootstrap_interval(lambda _, drawn: given.quality(drawn), rows, rows, rounds=ROUNDS)


def against_mean(run: Run, ours: Sequence[Measurement], theirs: Sequence[Measurement]) -> PairedTest | tuple[float, float]:
    """Our networks' mean against theirs, the example being the unit: a permutation test for accuracy, else the 95 % bootstrap interval
    of the difference (groups of different sizes can't be exchanged under a metric that is no mean over examples)."""
    a, b = _same_examples(run, ours, theirs)
    if a.metric in COUNTED:
        return sign_flips(a.correct - b.correct)
    rows = np.arange(len(a.labels))
    return bootstrap_interval(lambda _, drawn: a.quality(drawn) - b.quality(drawn), rows, rows, rounds=ROUNDS)


def one_by_one(run: Run, ours: Sequence[Measurement], theirs: Sequence[Measurement]) -> PairedTest:
    """Network i of ours against network i of theirs: McNemar for the accuracy of one pair, else a paired permutation that exchanges an
    example's predictions in all pairs (seeds) at once."""
    a, b = _same_examples(run, ours, theirs)
    if a.metric not in COUNTED:
        return paired_permutation(mean_metric(a.metric), a.labels, a.logits, b.logits, rounds=ROUNDS)
    if len(ours) == 1:
        return mcnemar(a.correct == 1, b.correct == 1)
    return sign_flips(a.correct - b.correct)


def _same_examples(run: Run, ours: Sequence[Measurement], theirs: Sequence[Measurement]) -> tuple[Answers, Answers]:
    both = answers(run, [*ours, *theirs])
    n = len(ours)
    a, b = (Answers(both.metric, both.labels, part, both.ids) for part in (both.logits[:, :n], both.logits[:, n:]))
    return a, b


@dataclass(frozen=True)
class Comparison:
    """A paired test of two groups of networks, and the 95 % bootstrap interval of their difference over examples."""

    test: PairedTest
    low: float
    high: float


def compared(ours: Answers, theirs: Answers, tests: int = 1) -> Comparison:
    """The mean of our networks against the mean of theirs, of whatever run, the example being the unit; one of so many `tests`, for whose
    correction the smallest p-value that can be drawn is to be small enough.

    Accuracy: McNemar's test of one network against one, else a permutation of each example's shares. Other metrics: predictions
    exchanged example by example, network by network; groups of different sizes can't be exchanged, there the bootstrap's own test stands
    (Efron and Tibshirani 1993, section 16.4). Raises NoTestError where the examples are not the same.
    """
    if not (np.array_equal(ours.ids, theirs.ids) and np.array_equal(ours.labels, theirs.labels)):
        raise NoTestError("the predictions are of different examples")
    if ours.metric in COUNTED:
        apart = ours.correct - theirs.correct
        one = ours.logits.shape[1] == theirs.logits.shape[1] == 1
        test = mcnemar(ours.correct == 1, theirs.correct == 1) if one else sign_flips(apart, max(2000, PER_TEST * tests))
        return Comparison(test, *bootstrap_mean(apart))
    rows, rounds = np.arange(len(ours.labels)), max(ROUNDS, PER_TEST * tests)
    drawn = bootstrap_draws(lambda _, some: ours.quality(some) - theirs.quality(some), rows, rows, rounds)
    between = percentiles(drawn, 0.95)
    if ours.logits.shape == theirs.logits.shape:
        test = paired_permutation(mean_metric(ours.metric), ours.labels, ours.logits, theirs.logits, rounds=rounds)
        return Comparison(test, *between)
    seen = ours.quality(rows) - theirs.quality(rows)
    hits = int((np.abs(drawn[~np.isnan(drawn)] - seen) >= abs(seen) - 1e-12).sum())
    return Comparison(PairedTest("paired bootstrap", seen, (hits + 1) / (rounds + 1), len(rows)), *between)
