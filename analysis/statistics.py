"""Is a difference more than luck? Paired tests on per-example predictions, and intervals over examples."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Metric = Callable[[npt.NDArray[Any], npt.NDArray[Any]], float]
"""`metric(labels, predictions)`: larger is better."""

EXACT_EXAMPLES = 12
"""Up to that many examples every exchange is enumerated (4,096), so that the p-value is exact."""
_AT_ONCE = 4_000_000
"""So many examples are drawn at a time: 32 MB."""


@dataclass(frozen=True)
class PairedTest:
    """A two-sided test of A against B on the same examples; `difference` is A minus B in the metric's own unit."""

    name: Literal["McNemar, exact", "paired permutation", "paired bootstrap"]
    difference: float
    p_value: float
    examples: int

    def __str__(self) -> str:
        p = "p < 0.001" if self.p_value < 0.001 else f"p = {self.p_value:.3f}"
        return f"{self.name}, {p}, n = {self.examples}"


def mcnemar(correct_a: npt.ArrayLike, correct_b: npt.ArrayLike) -> PairedTest:
    """McNemar's test in its exact form: among the examples that only one of the two gets right, is the split even?

    Takes two boolean arrays of shape (n,), row i of both being the same example. With no such example p is 1.
    Source: McNemar 1947; Dietterich 1998, section 3.1 (here with the binomial tail instead of the chi-square approximation).
    """
    from scipy.stats import binomtest

    a, b = _paired(np.asarray(correct_a, dtype=bool), np.asarray(correct_b, dtype=bool))
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    p_value = binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    return PairedTest("McNemar, exact", (only_a - only_b) / len(a), float(p_value), len(a))


def paired_permutation(
    metric: Metric, labels: npt.ArrayLike, predictions_a: npt.ArrayLike, predictions_b: npt.ArrayLike, rounds: int = 2000, seed: int = 0
) -> PairedTest:
    """Were A and B the same, their predictions could be exchanged example by example: how often is the gap then as large as seen?

    All arrays have n rows. Works for metrics that are no mean over examples (Matthews, Spearman, F1). Up to `EXACT_EXAMPLES`
    examples all exchanges are enumerated; above, `rounds` random ones are drawn and p is (hits + 1) / (rounds + 1), as in
    Phipson and Smyth 2010.
    """
    truth, a = _paired(np.asarray(labels), np.asarray(predictions_a))
    a, b = _paired(a, np.asarray(predictions_b))

    def gap(swap: npt.NDArray[np.bool_]) -> float:
        mask = swap.reshape(-1, *[1] * (a.ndim - 1))
        return float(metric(truth, np.where(mask, b, a)) - metric(truth, np.where(mask, a, b)))

    difference = gap(np.zeros(len(a), dtype=bool))
    return PairedTest("paired permutation", difference, _permutation_p(gap, difference, len(a), rounds, seed), len(a))


def sign_flips(differences: npt.ArrayLike, rounds: int = 2000, seed: int = 0) -> PairedTest:
    """The paired permutation test for scores that are means over examples: `differences` holds A minus B per example, shape (n,).

    For A or B that stand for several networks (seeds, random architectures) the caller averages each example's scores first, so that
    the example stays the unit.
    """
    d = np.asarray(differences, dtype=float)
    _paired(d, d)

    def gap(swap: npt.NDArray[np.bool_]) -> float:
        return float(np.where(swap, -d, d).mean())

    return PairedTest("paired permutation", float(d.mean()), _permutation_p(gap, float(d.mean()), len(d), rounds, seed), len(d))


def bootstrap_interval(
    metric: Metric, labels: npt.ArrayLike, predictions: npt.ArrayLike, level: float = 0.95, rounds: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of a metric over examples drawn with replacement. Draws in which the metric is undefined are left out."""
    return percentiles(bootstrap_draws(metric, labels, predictions, rounds, seed), level)


def bootstrap_draws(
    metric: Metric, labels: npt.ArrayLike, predictions: npt.ArrayLike, rounds: int = 1000, seed: int = 0
) -> npt.NDArray[np.float64]:
    """The metric on examples drawn with replacement, shape (rounds,)."""
    truth, answers = _paired(np.asarray(labels), np.asarray(predictions))
    rng = np.random.default_rng(seed)
    return np.array([metric(truth[r], answers[r]) for r in (rng.integers(0, len(truth), len(truth)) for _ in range(rounds))])


def bootstrap_mean(scores: npt.ArrayLike, level: float = 0.95, rounds: int = 1000, seed: int = 0) -> tuple[float, float]:
    """Percentile interval of the mean of per-example scores, shape (n,)."""
    from scipy.stats import bootstrap

    values = np.asarray(scores, dtype=float)
    _paired(values, values)
    if len(values) == 1:
        return float(values[0]), float(values[0])
    batch = max(1, _AT_ONCE // len(values))
    with np.errstate(invalid="ignore"):
        found = bootstrap(
            (values,),
            np.mean,
            n_resamples=rounds,
            batch=batch,
            confidence_level=level,
            method="percentile",
            rng=np.random.default_rng(seed),
        )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def spearman(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Spearman's rank correlation of two (n,), ties having their mean rank; NaN where one of them is constant."""
    from scipy.stats import rankdata

    x, y = (np.asarray(rankdata(np.asarray(values, dtype=float))) for values in (a, b))
    _paired(x, y)
    x, y = x - x.mean(), y - y.mean()
    scale = math.sqrt(float(x @ x) * float(y @ y))
    return float(x @ y) / scale if scale > 0 else math.nan


def mean_and_spread(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation (n - 1); None for a single value, which has no spread."""
    array = np.asarray(values, dtype=float)
    return float(array.mean()), float(array.std(ddof=1)) if len(array) > 1 else None


def _permutation_p(gap: Callable[[npt.NDArray[np.bool_]], float], seen: float, n: int, rounds: int, seed: int) -> float:
    """The share of exchanges whose gap is at least as large as the one seen, ties within rounding error counted."""
    limit = abs(seen) - 1e-12
    if n <= EXACT_EXAMPLES:
        gaps = [gap(np.array(swap, dtype=bool)) for swap in product((False, True), repeat=n)]
        return sum(abs(g) >= limit for g in gaps) / len(gaps)
    rng = np.random.default_rng(seed)
    hits = sum(abs(gap(rng.random(n) < 0.5)) >= limit for _ in range(rounds))
    return (hits + 1) / (rounds + 1)


def percentiles(values: npt.ArrayLike, level: float) -> tuple[float, float]:
    """The middle `level` of some draws; those that are no number are left out."""
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    known = [v for v in np.asarray(values, dtype=float).tolist() if not math.isnan(v)]
    if not known:
        raise ValueError("the metric is undefined in every draw")
    lower, upper = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(lower), float(upper)


def _paired(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    if len(a) != len(b) or not len(a):
        raise ValueError(f"a paired comparison needs the same examples on both sides, at least one; got {len(a)} and {len(b)}")
    return a, b
