"""The picture of how well the score that chose foresees the finished network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from analysis.drawing import look, new_figure, styles_of, written
from analysis.ranks import FEWEST, correlation, score_pairs
from analysis.runs import Run, open_runs
from methods.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from analysis.drawing import Style


class _Panel(NamedTuple):
    task: str
    metric: str
    method: str
    before: list[float]
    after: list[float]


def finishing(run: Path | str, path: Path | str) -> Path:
    """Draws, a panel for each task and method, finished networks on `validation` over their score with shared weights on `search`, means
    over the seeds that have both, with Spearman's rank correlation; writes PNG and SVG and returns the PNG's path. Raises UserError where
    fewer than three networks have both, or the folder can't be written."""
    import seaborn as sns

    (opened,) = open_runs([run])
    try:
        panels = _panels(opened)
        if not panels:
            raise UserError(f"{opened.path}: fewer than {FEWEST} networks have both scores; there is nothing to draw")
        styles = styles_of(list({panel.method for panel in panels}))
        columns = min(3, len(panels))
        rows = -(-len(panels) // columns)
        with look():
            figure = new_figure(max(2.5 * columns, 4.0), 2.6 * rows)
            grid = figure.subplots(rows, columns, squeeze=False)
            for axes, panel in zip(grid.flat, panels, strict=False):
                _draw(axes, panel, styles[panel.method])
            for axes in grid.flat[len(panels) :]:
                axes.set_visible(False)
            sns.despine(figure)
            return written(figure, Path(path))
    finally:
        opened.close()


def _panels(run: Run) -> list[_Panel]:
    found = []
    for task in run.tasks:
        for method in (name for name in run.methods(task) if name not in run.corpus_methods):
            before, after = score_pairs(run, method, task)
            if len(before) >= FEWEST:
                found.append(_Panel(task, run.metric(task), method, before, after))
    return found


def _draw(axes: Axes, panel: _Panel, style: Style) -> None:
    axes.scatter(panel.before, panel.after, s=24, marker=style.marker, color=style.color, alpha=0.8, linewidths=0)
    words = correlation(panel.before, panel.after).words.replace(" (", "\n(")
    axes.set_title(f"{panel.task}, {panel.method}, n = {len(panel.before)}\nSpearman {words}", loc="left")
    axes.set_xlabel(f"{panel.metric}, shared, search")
    axes.set_ylabel(f"{panel.metric}, finished, validation")
    axes.locator_params(nbins=5)
