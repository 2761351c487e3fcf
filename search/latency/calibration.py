"""From sums of parts to whole networks: a line fitted to measured networks, and its error on others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from methods.latency import HeldOutError

Floats = npt.NDArray[np.float64]
OUTLIER = 1.345
"""Huber's constant: residuals beyond so many robust standard deviations weigh less."""


def fit(sums: Sequence[float], measured: Sequence[float], rounds: int = 50) -> tuple[float, float]:
    """Scale and fixed seconds of measured = scale x sum + fixed: least squares of relative errors, outliers weighed down (Huber).

    Without two different sums, or where the line would fall or start below 0, `fixed` is 0.
    """
    x, y = np.asarray(sums, dtype=np.float64), np.asarray(measured, dtype=np.float64)
    if not len(x):
        return 1.0, 0.0
    if len(np.unique(x)) > 1:
        scale, fixed = _robust(np.stack([x, np.ones_like(x)], axis=1), y, rounds)
        if scale > 0 and fixed >= 0:
            return float(scale), float(fixed)
    return float(_robust(x[:, None], y, rounds)[0]), 0.0


def _robust(columns: Floats, y: Floats, rounds: int) -> Floats:
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
