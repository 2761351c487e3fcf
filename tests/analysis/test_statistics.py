"""Tests and intervals against numbers computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.statistics import bootstrap_interval, bootstrap_mean, mcnemar, mean_and_spread, paired_permutation, sign_flips


def accuracy(labels: np.ndarray, predictions: np.ndarray) -> float:
    return float((labels == predictions).mean())


def test_mcnemar_by_hand() -> None:
    a = [True] * 9 + [False] * 2 + [True] * 5 + [False] * 4
    b = [False] * 9 + [True] * 2 + [True] * 5 + [False] * 4
    found = mcnemar(a, b)
    assert found.p_value == pytest.approx(2 * (1 + 11 + 55) / 2**11)
    assert found.difference == pytest.approx(7 / 20)
    assert found.examples == 20
    assert mcnemar(b, a).difference == pytest.approx(-7 / 20)


def test_mcnemar_without_disagreement_is_one() -> None:
    assert mcnemar([True, False], [True, False]).p_value == 1


def test_permutation_enumerates_few_examples() -> None:
    found = paired_permutation(accuracy, [1, 1, 1], [1, 1, 1], [0, 0, 0])
    assert found.difference == 1
    assert found.p_value == 2 / 8
    assert sign_flips([1, 1, 1, 0]).p_value == 2 / 8


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=7))
@settings(max_examples=30, deadline=None)
def test_for_accuracy_the_exact_permutation_test_is_mcnemar(pairs: list[tuple[bool, bool]]) -> None:
    a, b = np.array(pairs).T
    labels = np.ones(len(a), dtype=bool)
    exact = mcnemar(a, b)
    assert paired_permutation(accuracy, labels, a, b).p_value == pytest.approx(exact.p_value)
    assert sign_flips(a.astype(float) - b).p_value == pytest.approx(exact.p_value)


def test_drawn_permutations_are_seeded_and_close_to_exact() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.random(300) < 0.8, rng.random(300) < 0.74
    drawn = paired_permutation(accuracy, np.ones(300), a, b)
    assert drawn == paired_permutation(accuracy, np.ones(300), a, b)
    assert drawn.p_value == pytest.approx(mcnemar(a, b).p_value, abs=0.04)


def test_permutation_exchanges_whole_rows_of_logits() -> None:
    def spread(labels: np.ndarray, logits: np.ndarray) -> float:
        return float(np.corrcoef(labels, logits[:, 1] - logits[:, 0])[0, 1])

    labels = np.arange(8)
    a = np.stack([-labels, labels], axis=1).astype(float)
    found = paired_permutation(spread, labels, a, a[::-1])
    assert found.difference == pytest.approx(2)
    assert found.p_value == 2 / 2**8


def test_bootstrap_of_a_coin() -> None:
    low, high = bootstrap_mean(np.arange(400) % 2)
    assert low == pytest.approx(0.5 - 1.96 * 0.025, abs=0.006)
    assert high == pytest.approx(0.5 + 1.96 * 0.025, abs=0.006)
    assert bootstrap_mean([0.7, 0.7]) == (pytest.approx(0.7), pytest.approx(0.7))
    wider = bootstrap_mean(np.arange(400) % 2, level=0.99)
    assert wider[0] < low < high < wider[1]


def test_bootstrap_of_any_metric_agrees_with_the_mean() -> None:
    right = np.random.default_rng(0).random(200) < 0.8
    assert bootstrap_interval(accuracy, np.ones(200), right) == pytest.approx(bootstrap_mean(right))


def test_bootstrap_leaves_out_undefined_draws_and_says_when_nothing_is_left() -> None:
    def sometimes(labels: np.ndarray, _: np.ndarray) -> float:
        return float(labels.mean()) if labels.min() == 0 else math.nan

    low, high = bootstrap_interval(sometimes, [0, 1, 1], [0, 0, 0])
    assert 0 <= low <= high < 1
    with pytest.raises(ValueError, match="undefined in every draw"):
        bootstrap_interval(lambda *_: math.nan, [0, 1], [0, 1])


def test_the_95_percent_interval_covers_between_93_and_97_percent() -> None:
    """Of paired differences, 100 examples each; the standard error of the coverage is 0.8 points."""
    draws = np.random.default_rng(0).choice([-1.0, 0.0, 1.0], p=[0.08, 0.80, 0.12], size=(800, 100))
    intervals = np.array([bootstrap_mean(sample, rounds=300, seed=i) for i, sample in enumerate(draws)])
    covered = ((intervals[:, 0] <= 0.04) & (intervals[:, 1] >= 0.04)).mean()
    assert 0.93 <= covered <= 0.97


def test_mean_and_spread() -> None:
    assert mean_and_spread([0.8, 0.9]) == (pytest.approx(0.85), pytest.approx(0.0707106781))
    assert mean_and_spread([0.8]) == (0.8, None)


@pytest.mark.parametrize("call", [lambda: mcnemar([True], [True, False]), lambda: mcnemar([], []), lambda: bootstrap_mean([])])
def test_unpaired_or_empty_is_refused(call: object) -> None:
    with pytest.raises(ValueError, match="same examples"):
        call()  # type: ignore[operator]


def test_a_test_says_what_it_found() -> None:
    assert str(mcnemar([True] * 6, [False] * 6)) == "McNemar, exact, p = 0.031, n = 6"
    assert "p < 0.001" in str(mcnemar([True] * 20, [False] * 20))
