"""The generated regression task: its scores, its pairs, and its place among the tasks."""

import numpy as np
import pytest

from methods.errors import UserError
from methods.tasks.demo_grammar import Clause, Opinion
from methods.tasks.demo_likeness import generate_likeness, likeness
from methods.tasks.task import load_task


def opinion(frame: str, flips: int, noun: str, adjective: str) -> Opinion:
    return Opinion("{0}", 0, (Clause(frame, flips, noun, "music", adjective),))


def test_scores_by_hand() -> None:
    plot = opinion("the {noun} is {adjective}", 0, "plot", "superb")
    assert likeness(plot, plot) == 5.0
    # the verdict differs, four of five words are shared
    assert likeness(plot, opinion("the {noun} is not {adjective}", 1, "plot", "superb")) == pytest.approx(2 + 4 / 5)
    # same verdict about another thing: three of five words
    assert likeness(plot, opinion("the {noun} is {adjective}", 0, "camera", "superb")) == pytest.approx(2 + 3 / 5)


def test_every_kind_of_pair_occurs_and_no_text_is_on_both_sides() -> None:
    train, validation = generate_likeness(600, 200, seed=0)
    assert train.labels.dtype == np.float32 and train.labels.min() >= 0 and train.labels.max() <= 5
    for low, high in ((0, 1), (2, 3), (4, 5)):
        assert np.mean((train.labels >= low) & (train.labels <= high)) > 0.1
    assert train.text_b is not None and validation.text_b is not None
    ours, theirs = {*train.text, *train.text_b}, {*validation.text, *validation.text_b}
    assert not ours & theirs and len(ours) == 2 * len(train)
    assert np.array_equal(validation.labels, generate_likeness(10, 200, seed=0)[1].labels)


def test_is_a_regression_task_of_two_texts_that_needs_no_data() -> None:
    task = load_task("likeness")
    assert (task.spec.kind, task.spec.metrics, task.head.labels, task.head.pair) == ("regression", ("spearman", "pearson"), 1, True)
    with pytest.raises(UserError, match="demo and likeness"):
        load_task("sst2", "generated")
