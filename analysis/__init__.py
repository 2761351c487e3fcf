"""Reads the archive: head-to-head tables, statistics, figures. What is exported here is imported when it is used.

The comparison itself is `analysis.head_to_head.head_to_head`, or `workbench.compare`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from analysis.ablation_figure import ablation
    from analysis.alpha_figure import alpha
    from analysis.anatomy_figure import anatomy
    from analysis.estimates_figure import estimates
    from analysis.figures import pareto
    from analysis.finishing_figure import finishing
    from analysis.forest_figure import forest
    from analysis.head_to_head import HeadToHead
    from analysis.hypervolume_figure import hypervolume
    from analysis.latencies_figure import latencies
    from analysis.ranks import rank_correlations
    from analysis.shrinking_figure import shrinking
    from analysis.statistics import bootstrap_interval, mcnemar, paired_permutation

_HOME = {
    "HeadToHead": "analysis.head_to_head",
    "ablation": "analysis.ablation_figure",
    "alpha": "analysis.alpha_figure",
    "anatomy": "analysis.anatomy_figure",
    "bootstrap_interval": "analysis.statistics",
    "estimates": "analysis.estimates_figure",
    "finishing": "analysis.finishing_figure",
    "forest": "analysis.forest_figure",
    "hypervolume": "analysis.hypervolume_figure",
    "latencies": "analysis.latencies_figure",
    "mcnemar": "analysis.statistics",
    "paired_permutation": "analysis.statistics",
    "pareto": "analysis.figures",
    "rank_correlations": "analysis.ranks",
    "shrinking": "analysis.shrinking_figure",
}

__all__ = [
    "HeadToHead",
    "ablation",
    "alpha",
    "anatomy",
    "bootstrap_interval",
    "estimates",
    "finishing",
    "forest",
    "hypervolume",
    "latencies",
    "mcnemar",
    "paired_permutation",
    "pareto",
    "rank_correlations",
    "shrinking",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'analysis' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
