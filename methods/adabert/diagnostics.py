"""Diagnostics of a search that need more than the search itself: D3, D4, D7, D9, D11 and D13 of the specification, each with its alarm.

They take numbers and architectures alone; `methods.adabert.diagnosis` measures what D3 and D9 need, the others are read off an archive.
A point is a hundredth of the task's metric.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean, stdev
from typing import Any

from methods.adabert.space import AdaBertSpace
from methods.space import Architecture

GAP_POINTS = 2.0
TAU = 0.4
TAU_GENOTYPES = 20
SEEDS = 3
RANDOM_NETWORKS = 5
Z = 2.0
_DRAWS = 2_000


@dataclass(frozen=True)
class Diagnostic:
    """`value`: a number, or several by name; None where there is too little to say. `why`: what the alarm, or its absence, rests on."""

    name: str
    value: float | Mapping[str, float] | None
    alarm: bool
    why: str

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data, as in a search's `diagnostics.json`."""
        value = dict(self.value) if isinstance(self.value, Mapping) else self.value
        return {"value": value, "alarm": self.alarm, "why": self.why}


def discretisation_gap(sampled: float, derived: float, finished: float | None = None) -> Diagnostic:
    """D3: the score of the supernet as the search samples it minus that of the derived network, with the supernet's weights and
    re-estimated statistics (`gap`), and after finishing (`gap_finished`). Scores in [0, 1]. Alarm where `gap` is above 2 points."""
    value = {"sampled": sampled, "derived": derived, "gap": sampled - derived}
    value |= {} if finished is None else {"finished": finished, "gap_finished": sampled - finished}
    gap = 100 * value["gap"]
    after = "" if finished is None else f", after finishing {100 * value['gap_finished']:.1f}"
    return Diagnostic("D3", value, gap > GAP_POINTS, f"sampled supernet minus derived network: {gap:.1f} points{after}")


def rank_agreement(shared: Sequence[float], finished: Sequence[float]) -> Diagnostic:
    """D4: Kendall's tau (b) between scores with shared weights and after finishing of the same random architectures, at least 20.
    Alarm below 0.4: the ranking by shared weights can't be used."""
    from scipy.stats import kendalltau

    if len(shared) != len(finished):
        raise ValueError(f"{len(shared)} scores with shared weights and {len(finished)} after finishing")
    few = f" on {len(shared)} architectures only; at least {TAU_GENOTYPES} are needed" if len(shared) < TAU_GENOTYPES else ""
    tau = float(kendalltau(shared, finished).statistic) if len(shared) > 1 else math.nan
    if math.isnan(tau):
        return Diagnostic("D4", None, True, f"scores are alike or too few to be ranked ({len(shared)})")
    return Diagnostic("D4", tau, tau < TAU or bool(few), f"Kendall's tau {tau:.2f} between shared and finished scores{few}")


def agreement_over_seeds(space: AdaBertSpace, derived: Sequence[Architecture], seed: int = 0) -> Diagnostic:
    """D7: how far the architectures that several seeds derived agree, as the mean over pairs: `edges`, the share of kept edges that are
    the same with the same operation, and `cells`, the share of pairs with equal K; each beside what random architectures reach by chance
    and the probability that chance reaches as much. Alarm with under 3 seeds, or where the edges are not above chance (p > 0.05)."""
    if len(derived) < 2:
        return Diagnostic("D7", None, True, f"{len(derived)} seeds; at least {SEEDS} are needed")
    found = _agreement(derived)
    rng = random.Random(seed)
    chance = [_agreement([space.sample(rng) for _ in derived]) for _ in range(_DRAWS)]
    value: dict[str, float] = {}
    for place, name in enumerate(("edges", "cells")):
        drawn = [pair[place] for pair in chance]
        reached = sum(one >= found[place] - 1e-12 for one in drawn)
        value |= {name: found[place], f"{name}_chance": fmean(drawn), f"{name}_p": (1 + reached) / (1 + _DRAWS)}
    few = f"; {len(derived)} seeds, at least {SEEDS} are needed" if len(derived) < SEEDS else ""
    said = (
        f"seeds share {value['edges']:.0%} of kept edges (chance {value['edges_chance']:.0%}, p = {value['edges_p']:.3f}) "
        f"and {value['cells']:.0%} of K (chance {value['cells_chance']:.0%})"
    )
    return Diagnostic("D7", value, value["edges_p"] > 0.05 or bool(few), said + few)


def _agreement(architectures: Sequence[Architecture]) -> tuple[float, float]:
    genes = [a.choices for a in architectures]
    kept = [{(n, source, name) for n, node in enumerate(g["nodes"]) for source, name in node} for g in genes]
    pairs = list(combinations(range(len(genes)), 2))
    edges = fmean(len(kept[a] & kept[b]) / len(kept[a]) for a, b in pairs)
    return edges, fmean(float(genes[a]["K"] == genes[b]["K"]) for a, b in pairs)


def strength_against_rank(strengths: Sequence[Sequence[float]], probabilities: Sequence[Sequence[float]]) -> Diagnostic:
    """D9: the mean over edges of Spearman's correlation between what masking an operation costs (`masking.strengths`, (E, O)) and its
    probability. Alarm at 0 or below: architecture parameters do not know what operations are worth."""
    from scipy.stats import spearmanr

    found = [
        float(spearmanr(worth, likely).statistic)
        for worth, likely in zip(strengths, probabilities, strict=True)
        if len(set(worth)) > 1 and len(set(likely)) > 1
    ]
    if not found:
        return Diagnostic("D9", None, True, "no edge whose operations differ in strength and in probability")
    mean = fmean(found)
    return Diagnostic("D9", mean, mean <= 0, f"mean rank correlation {mean:.2f} of strength and probability over {len(found)} edges")


def against_random(searched: Sequence[float], randoms: Sequence[float], level: float = 0.95) -> Diagnostic:
    """D11: finished scores of the searched network (one per seed) against those of random networks of equal cost, finished alike, at
    least 5: `z` = (mean - mean of random) / standard deviation of random, its interval `low` to `high`, mean and sd of random, and the
    relative improvement.

    The interval inverts the noncentral t distribution of z / sqrt(1/m + 1/n), n - 1 degrees of freedom, so that it knows how little n
    random networks say of their spread (Hedges and Olkin 1985, chapter 5, with the control group's deviation); normal scores are
    assumed. Alarm where z < 2: the search adds nothing that random choice does not.
    """
    m, n = len(searched), len(randoms)
    spread = stdev(randoms) if n > 1 else 0.0
    if not m or spread == 0:
        return Diagnostic("D11", None, True, f"{m} searched and {n} random networks, all random ones alike or too few")
    mean, base = fmean(searched), fmean(randoms)
    z, scale = (mean - base) / spread, math.sqrt(1 / m + 1 / n)
    low, high = (_noncentrality(z / scale, n - 1, share) * scale for share in ((1 + level) / 2, (1 - level) / 2))
    value = {"z": z, "low": low, "high": high, "mean": base, "sd": spread, "n": float(n)}
    if base:
        value["improvement"] = (mean - base) / abs(base)
    few = f"; {n} random networks only, at least {RANDOM_NETWORKS} are needed" if n < RANDOM_NETWORKS else ""
    said = f"z = {z:.2f} ({level:.0%} interval {low:.2f} to {high:.2f}) against {n} random networks of {base:.4f} +- {spread:.4f}"
    verdict = "; search helped" if low > 0 else "; worse than random choice" if high < 0 else "; no difference from random choice is shown"
    return Diagnostic("D11", value, z < Z or bool(few), said + verdict + few)


def _noncentrality(t: float, freedom: int, share: float) -> float:
    """The noncentrality under which the noncentral t distribution has this share below `t`.

    By its definition, P(T < t) = E Phi(t S - centre) with S the root of a chi-square over its degrees of freedom, taken at 2,000
    quantiles: scipy's own distribution function is not a number for large t.
    """
    import numpy as np
    from scipy.optimize import brentq
    from scipy.stats import chi2, norm

    at = t * np.sqrt(chi2.ppf((np.arange(2_000) + 0.5) / 2_000, freedom) / freedom)
    return float(brentq(lambda centre: float(norm.cdf(at - centre).mean()) - share, at.min() - 10, at.max() + 10))


def against_floors(method: float, floors: Mapping[str, float]) -> Diagnostic:
    """D13: the method's finished score against the floor controls (`baselines.floor`), by name. Alarm where it beats not all of them."""
    if not floors:
        return Diagnostic("D13", None, True, "no floor control was measured")
    value = {name: method - score for name, score in floors.items()}
    ahead = [name for name, gap in value.items() if gap <= 0]
    said = ", ".join(f"{name} {score:.4f}" for name, score in floors.items())
    verdict = f"not above {' and '.join(ahead)}" if ahead else "above every floor"
    return Diagnostic("D13", value, bool(ahead), f"the method's {method:.4f} is {verdict} ({said})")
