"""What measuring a candidate promises: the expected improvement of the best score under a budget, averaged over budgets.

The front of score and costs is the best score under every budget, and the volume that it covers is the mean of these over budgets. So the
mean expected improvement (Jones et al. 1998) over evenly spread budgets is the expected improvement of the hypervolume (Emmerich et al.
2011), for any number of costs; where no cost is an objective there is one budget.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr
from scipy.stats import qmc

BUDGETS = 256
_SHORTLIST = 64
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def front(scores: Floats, prices: Floats) -> Ints:
    """The places of the points that no other dominates: none has a score as high and prices as low, and one of them better.

    `scores` (n,), `prices` (n, costs).
    """
    losses = np.column_stack([-scores, prices])
    as_good = (losses[:, None] <= losses[None]).all(axis=2)
    better = (losses[:, None] < losses[None]).any(axis=2)
    return np.flatnonzero(~(as_good & better).any(axis=0))


def most_promising(scores: Floats, prices: Floats, candidates: Floats, mean: Floats, deviation: Floats, count: int) -> list[int]:
    """The places of up to `count` candidates, the most promising first.

    `scores` (n,) and `prices` (n, costs) of what was measured; `candidates` (m, costs), prices of the others, whose scores are expected
    at `mean` (m,) give or take `deviation` (m,). After each choice the best scores are taken to be as expected of it (kriging believer,
    Ginsbourger et al. 2010), so that the choices of a batch differ.
    """
    budgets = _budgets(np.concatenate([prices, candidates]))
    best = np.where(_within(prices, budgets), scores[:, None], scores.min()).max(axis=0)
    within, deviation = _within(candidates, budgets), np.maximum(deviation, 1e-12)
    promise = _promise(mean, deviation, best, within)
    left = np.argsort(-promise, kind="stable")[: max(count, _SHORTLIST)]
    chosen: list[int] = []
    while len(chosen) < count and len(left):
        place = int(left[np.argmax(_promise(mean[left], deviation[left], best, within[left]))])
        chosen.append(place)
        best = np.where(within[place], np.maximum(best, mean[place]), best)
        left = left[left != place]
    return chosen


def _budgets(prices: Floats) -> Floats:
    """Evenly spread between the least and the largest price of every cost, (budgets, costs)."""
    costs = prices.shape[1]
    if not costs:
        return np.zeros((1, 0))
    least, most = prices.min(axis=0), prices.max(axis=0)
    spread: Floats = least + (most - least) * qmc.Sobol(costs, scramble=False).random(BUDGETS)
    return spread


def _within(prices: Floats, budgets: Floats) -> npt.NDArray[np.bool_]:
    return np.asarray((prices[:, None] <= budgets[None]).all(axis=2), dtype=np.bool_)


def _promise(mean: Floats, deviation: Floats, best: Floats, within: npt.NDArray[np.bool_]) -> Floats:
    """Expected improvement of a normal score over `best` (budgets,), (candidates,)."""
    z = (mean[:, None] - best) / deviation[:, None]
    density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    expected: Floats = (deviation[:, None] * (z * ndtr(z) + density) * within).mean(axis=1)
    return expected
