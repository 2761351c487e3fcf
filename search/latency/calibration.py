"""From sums of parts to whole networks: a line fitted to measured networks, and its error on others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from methods.latency import HeldOutError

Floats = npt.NDArray[np.float64]
OUTLIER = 1.345
"""Huber's constant: residuals beyond so many robust standard deviations weigh less."""
ENOUGH = 10
"""Networks of which three terms are fitted."""


class Line(NamedTuple):
    """A network takes scale x (sum of its pieces, each less `call`) + fixed seconds; `call`: what calling a piece by itself costs."""

    scale: float
    fixed: float = 0.0
    call: float = 0.0


def fit(sums: Sequence[float], measured: Sequence[float], counts: Sequence[int] = ()) -> Line:
    """The line through measured networks, of which the pieces sum up to `sums`: least squares of relative errors, outliers weighed down
    (Huber).

    `counts`: of how many pieces each is made; without them, or with fewer than `ENOUGH` networks, `call` is 0. So is every other term that
    the networks can't tell apart or that would be negative: what is left is fitted again without it.
    """
    x, y = np.asarray(sums, dtype=np.float64), np.asarray(measured, dtype=np.float64)
    if not len(x):
        return Line(1.0)
    one, n = np.ones_like(x), np.asarray(counts if len(x) >= ENOUGH else (), dtype=np.float64)
    for names in (("call", "fixed"), ("call",), ("fixed",)):
        if "call" in names and not len(n):
            continue
        columns = np.stack([x, *({"call": -n, "fixed": one}[name] for name in names)], axis=1)
        if np.linalg.matrix_rank(columns / y[:, None]) < columns.shape[1]:
            continue
        scale, *others = _robust(columns, y)
        if scale > 0 and min(others) >= 0:
            terms = dict(zip(names, map(float, others), strict=True))
            return Line(float(scale), terms.get("fixed", 0.0), terms.get("call", 0.0) / float(scale))
    return Line(float(_robust(x[:, None], y)[0]))


def _robust(columns: Floats, y: Floats, rounds: int = 50) -> Floats:
    relative, ones = columns / y[:, None], np.ones_like(y)
    weights: Floats = ones
    found: Floats = np.zeros(columns.shape[1])
    for _ in range(rounds):
        root = np.sqrt(weights)
        found = np.asarray(np.linalg.lstsq(relative * root[:, None], root, rcond=None)[0], dtype=np.float64)
        residuals = np.abs(ones - relative @ found)
        bound = OUTLIER * max(1.4826 * float(np.median(residuals)), 1e-9)
        weights = bound / np.maximum(residuals, bound)
    return found


def held_out_error(predicted: Sequence[float], measured: Sequence[float]) -> HeldOutError | None:
    """Mean absolute relative error and rank correlations; None where there is no network."""
    if not measured:
        return None
    from scipy.stats import kendalltau, spearmanr

    alike = min(len(set(predicted)), len(set(measured))) < 2
    kendall, spearman = (None, None) if alike else (float(kendalltau(predicted, measured)[0]), float(spearmanr(predicted, measured)[0]))
    mape = float(np.mean([abs(p - m) / m for p, m in zip(predicted, measured, strict=True)]))
    return HeldOutError(
        mape=mape, kendall=kendall, spearman=spearman, n=len(measured), predicted=tuple(predicted), measured=tuple(measured)
    )
