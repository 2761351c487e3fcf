"""`compare`: the head-to-head table of one or several runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from analysis.head_to_head import HeadToHead


def compare(runs: Sequence[Path | str] | Path | str) -> HeadToHead:
    """A table that renders itself: `compare(runs).render("md")`. Raises UserError where a folder is no run."""
    from analysis.head_to_head import head_to_head

    return head_to_head(runs)
