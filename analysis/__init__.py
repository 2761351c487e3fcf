"""Reads the archive: head-to-head tables, statistics, figures. What is exported here is imported when it is used.

The comparison itself is `analysis.head_to_head.head_to_head`, or `workbench.compare`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from analysis.alpha_figure import alpha
    from analysis.estimates_figure import estimates
    from analysis.figures import pareto
    from analysis.head_to_head import HeadToHead
    from analysis.ranks import rank_correlations
    from analysis.shrinking_figure import shrinking
    from analysis.statistics import bootstrap_interval, mcnemar, paired_permutation

_HOME = {
    "HeadToHead": "analysis.head_to_head",
    "alpha": "analysis.alpha_figure",
    "bootstrap_interval": "analysis.statistics",
    "estimates": "analysis.estimates_figure",
    "mcnemar": "analysis.statistics",
    "paired_permutation": "analysis.statistics",
    "pareto": "analysis.figures",
    "rank_correlations": "analysis.ranks",
    "shrinking": "analysis.shrinking_figure",
}

__all__ = [
    "HeadToHead", "alpha", "bootstrap_interval", "estimates", "mcnemar", "paired_permutation", "pareto", "rank_correlations", "shrinking",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'analysis' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
