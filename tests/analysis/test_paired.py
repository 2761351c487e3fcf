"""The fast metrics of the resampling are those of the tasks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.paired import from_confusion, mean_metric
from methods.tasks.metrics import compute
from methods.tasks.spec import TaskSpec


@pytest.mark.filterwarnings("ignore:A single label")
@given(st.integers(2, 4), st.integers(1, 30), st.integers(0, 10_000), st.sampled_from(["matthews", "f1"]))
@settings(max_examples=60, deadline=None)
def test_confusion_metrics_are_the_tasks_metrics(classes: int, rows: int, seed: int, metric: str) -> None:
    rng = np.random.default_rng(seed)
    labels, logits = rng.integers(0, rng.integers(1, classes + 1), rows), rng.normal(size=(rows, classes))
    spec = TaskSpec("t", ("text",), "label", tuple("abcd"[:classes]), metric, (metric,))
    assert from_confusion(metric, labels, logits.argmax(axis=1), classes) == pytest.approx(compute(spec, logits, labels)[metric])


@pytest.mark.parametrize("metric", ["accuracy", "matthews", "f1", "spearman", "pearson"])
def test_the_mean_is_over_networks(metric: str) -> None:
    rng = np.random.default_rng(1)
    outputs = 1 if metric in ("spearman", "pearson") else 2
    labels = rng.normal(size=20) if outputs == 1 else rng.integers(0, 2, 20)
    logits = rng.normal(size=(20, 3, outputs))
    one_by_one = [mean_metric(metric)(labels, logits[:, [i]]) for i in range(3)]
    assert len(set(one_by_one)) == 3
    assert mean_metric(metric)(labels, logits) == pytest.approx(np.mean(one_by_one))
