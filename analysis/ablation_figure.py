"""The picture of an ablation: labelled rows of one method against its whole form, as differences of quality."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from analysis.drawing import GREY, look, new_figure, written
from analysis.paired import NoTestError, answers, compared
from analysis.runs import Run, open_runs
from analysis.winners import winners
from methods.budget import Budget
from methods.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from search.measurement import Measurement

_COLUMNS = 3


@dataclass(frozen=True)
class Difference:
    """A labelled row less the whole form, in points (hundredths) of the metric on `validation`: means over networks, the 95 % bootstrap
    interval over examples (None: predictions were not kept), and seed by seed where both have it."""

    label: str
    points: float
    interval: tuple[float, float] | None
    of_seeds: tuple[float, ...]


@dataclass(frozen=True)
class Ablation:
    """The rows of one method on a task under a budget; `quality`: that of its whole form."""

    whole: str
    task: str
    budget: str
    metric: str
    quality: float
    rows: tuple[Difference, ...]


def ablations(run: Run) -> list[Ablation]:
    """Of every method that is in the experiment several times, on every task and under every budget that its whole form meets: the entry
    without a label, or the first."""
    groups: dict[str, list[str]] = {}
    for label, name in run.kinds.items():
        groups.setdefault(name, []).append(label)
    several = [(name if name in labels else labels[0], labels) for name, labels in groups.items() if len(labels) > 1]
    found = [_ablation(run, task, budget, *group) for group in several for task in run.tasks for budget in run.budgets]
    return [one for one in found if one is not None]


def ablation(run: Path | str, path: Path | str) -> Path:
    """Draws, a panel for each task and budget, how far each labelled row is from the whole form of its method: filled where the interval
    leaves out 0. Writes PNG and SVG and returns the PNG's path. Raises UserError where no method is there several times."""
    (opened,) = open_runs([run])
    try:
        found = ablations(opened)
    finally:
        opened.close()
    if not found:
        raise UserError(f"{run}: no method has several rows (`label`) that were measured on validation; there is nothing to draw")
    return _draw(found, Path(path))


def _ablation(run: Run, task: str, budget: Budget, whole: str, labels: Sequence[str]) -> Ablation | None:
    theirs = _networks(run, task, whole, budget)
    measured = [(label, ours) for label in labels if label != whole and (ours := _networks(run, task, label, budget))]
    if not theirs or not measured:
        return None
    rows = tuple(_difference(run, label, ours, theirs) for label, ours in measured)
    return Ablation(whole, task, budget.label(), theirs[0].metric, fmean(m.quality for m in theirs), rows)


def _networks(run: Run, task: str, method: str, budget: Budget) -> list[Measurement]:
    """What ships under the budget, seed by seed, on `validation`."""
    found = winners(run, task, method, budget)
    return [] if isinstance(found, str) else [w.finished for w in found if w.finished is not None]


def _difference(run: Run, label: str, ours: Sequence[Measurement], theirs: Sequence[Measurement]) -> Difference:
    points = 100 * (fmean(m.quality for m in ours) - fmean(m.quality for m in theirs))
    known = {m.seed: m.quality for m in theirs}
    of_seeds = tuple(100 * (m.quality - known[m.seed]) for m in ours if m.seed in known)
    try:
        between = compared(answers(run, ours), answers(run, theirs))
    except NoTestError:
        return Difference(label, points, None, of_seeds)
    return Difference(label, points, (100 * between.low, 100 * between.high), of_seeds)


def _draw(found: Sequence[Ablation], path: Path) -> Path:
    import seaborn as sns

    together = [list(some) for _, some in groupby(found, key=lambda one: (one.whole, one.task))]
    columns = min(_COLUMNS, max(map(len, together)))
    lines = [some[i : i + columns] for some in together for i in range(0, len(some), columns)]
    with look():
        heights = [0.24 * max(len(one.rows) for one in line) + 0.75 for line in lines]
        figure = new_figure(7.2, sum(heights) + 0.3)
        grid = figure.subplots(len(lines), columns, squeeze=False, height_ratios=heights)
        for panels, line in zip(grid, lines, strict=True):
            for axes, one in zip(panels, line, strict=False):
                _draw_one(axes, one, named=axes is panels[0] or _labels(one) != _labels(line[0]))
            for axes in panels[len(line) :]:
                axes.set_visible(False)
        figure.supxlabel(
            "points to the whole form on validation; lines: 95 % intervals over examples; filled: 0 is outside; small: single seeds",
            fontsize=8,
        )
        sns.despine(figure)
        return written(figure, path)


def _labels(one: Ablation) -> list[str]:
    return [row.label for row in one.rows]


def _draw_one(axes: Axes, one: Ablation, named: bool) -> None:
    axes.axvline(0, color=GREY, linewidth=1, linestyle=(0, (6, 2)), zorder=1)
    for place, row in enumerate(one.rows):
        low, high = row.interval or (row.points, row.points)
        axes.plot([low, high], [place, place], color="C0", linewidth=1.4, solid_capstyle="butt", zorder=2)
        axes.scatter(row.of_seeds, [place] * len(row.of_seeds), s=9, facecolors="white", edgecolors="C0", linewidths=0.7, zorder=3)
        sure = row.interval is not None and (low > 0 or high < 0)
        axes.scatter([row.points], [place], s=34, facecolors=["C0" if sure else "white"], edgecolors=["C0"], linewidths=1.1, zorder=4)
    axes.set_yticks(range(len(one.rows)), _labels(one) if named else [""] * len(one.rows))
    axes.set_ylim(len(one.rows) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="0.9", linewidth=0.6)
    axes.set_title(f"{one.task}, {one.budget}\n{one.whole}: {one.metric} {one.quality:.4f}", loc="left", fontsize=8)
