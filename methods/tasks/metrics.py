"""The metrics of a task, by scikit-learn and scipy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from methods.tasks.spec import SPAN_METRICS, TaskSpec


def compute(spec: TaskSpec, logits: NDArray[Any], labels: NDArray[Any]) -> dict[str, float]:
    """Every metric of the task, the main one first; larger is better, and where one is undefined it is 0.

    `logits`: (rows, classes), for regression (rows,) or (rows, 1), for questions F1 and exact match of each answer, (rows, 2); `labels`:
    (rows,). F1 is that of class 1 for two classes, the
    macro average for more. Constant predictions have no correlation: 0. Logits that are not finite (a network that diverged) have
    no quality: 0 throughout. Raises ValueError where the shapes don't fit.
    """
    outputs = len(SPAN_METRICS) if spec.kind == "span" else len(spec.labels)
    expected = {(len(labels), outputs)} if outputs else {(len(labels),), (len(labels), 1)}
    if logits.shape not in expected or not len(labels):
        raise ValueError(f"logits {logits.shape} for {len(labels)} labels of {spec.kind} task {spec.name!r}; expected {sorted(expected)}")
    scores = np.asarray(logits, dtype=np.float64)
    if not np.isfinite(scores).all():
        return dict.fromkeys(spec.metrics, 0.0)
    if spec.kind == "span":
        return {metric: float(scores[:, SPAN_METRICS.index(metric)].mean()) for metric in spec.metrics}
    predictions = scores.argmax(axis=1) if spec.labels else scores.reshape(-1)
    return {metric: _defined(_metric(metric, predictions, labels, len(spec.labels))) for metric in spec.metrics}


def _metric(metric: str, predictions: NDArray[Any], labels: NDArray[Any], classes: int) -> float:
    if metric in ("spearman", "pearson"):
        return _correlation(metric, predictions, labels)
    from sklearn import metrics

    if metric == "accuracy":
        return float(metrics.accuracy_score(labels, predictions))
    if metric == "matthews":
        return float(metrics.matthews_corrcoef(labels, predictions))
    average = "binary" if classes == 2 else "macro"
    return float(metrics.f1_score(labels, predictions, labels=range(classes), average=average, zero_division=0))


def _correlation(metric: str, predictions: NDArray[Any], labels: NDArray[Any]) -> float:
    from scipy import stats

    if len(labels) < 2 or np.ptp(predictions) == 0 or np.ptp(labels) == 0:
        return 0.0
    result = stats.spearmanr(predictions, labels) if metric == "spearman" else stats.pearsonr(predictions, labels)
    return float(result.statistic)


def _defined(value: float) -> float:
    return value if math.isfinite(value) else 0.0
