"""The picture of a comparison, and of an ablation: every row under each budget with its seeds and its interval over examples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.controls import TEACHER
from analysis.drawing import GREY, Style, look, new_figure, styles_of, written
from analysis.head_to_head import HeadToHead, head_to_head
from methods.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from analysis.rows import Block, Row


def forest(runs: HeadToHead | Sequence[Path | str] | Path | str, path: Path | str) -> Path:
    """Draws, a panel for each task and budget, the quality of every row on `validation`: its mean, its 95 % interval over examples, a
    small point for each network; the teacher as a dashed line, the winner (where the test names one) in bold. Writes PNG and SVG and
    returns the PNG's path. Raises UserError where nothing was measured or the folder can't be written."""
    import seaborn as sns

    table = runs if isinstance(runs, HeadToHead) else head_to_head(runs)
    blocks = [block for block in table.blocks if _shown(block)]
    if not blocks:
        raise UserError("nothing but the teacher was measured on validation; there is nothing to draw")
    styles = styles_of(list({row.method for block in blocks for row in block.rows if row.method}))
    shown = [_shown(block) for block in blocks]
    with look():
        heights = [0.24 * max(len(rows), 1) + 0.6 for rows in shown]
        figure = new_figure(7.2, sum(heights) + 0.35)
        panels = figure.subplots(len(blocks), 1, squeeze=False, height_ratios=heights)[:, 0]
        for axes, block, rows in zip(panels, blocks, shown, strict=True):
            _draw(axes, block, rows, styles, named=len(table.runs) > 1)
        panels[-1].set_xlabel("quality on validation; lines: 95 % intervals over examples; small circles: single networks")
        sns.despine(figure)
        return written(figure, Path(path))


def _shown(block: Block) -> list[Row]:
    """Rows that have a quality; the teacher, which every budget has, is a line."""
    return [row for row in block.rows if row.quality is not None and row.row != TEACHER]


def _draw(axes: Axes, block: Block, rows: Sequence[Row], styles: dict[str, Style], named: bool) -> None:
    for place, row in enumerate(rows):
        assert row.quality is not None
        style = styles.get(row.method)
        color = style.color if style and row.kind != "control" else GREY
        marker = style.marker if style else "s"
        if row.interval_low is not None and row.interval_high is not None:
            axes.plot([row.interval_low, row.interval_high], [place, place], color=color, linewidth=1.4, solid_capstyle="butt", zorder=2)
        qualities = [m.quality for m in row.measured]
        axes.scatter(qualities, [place] * len(qualities), s=9, facecolors="white", edgecolors=color, linewidths=0.7, zorder=3)
        face = color if row.kind != "control" else "white"
        axes.scatter([row.quality], [place], s=34, marker=marker, facecolors=[face], edgecolors=[color], linewidths=1.1, zorder=4)
    names = [f"{row.run}: {row.row}" if named else row.row for row in rows]
    axes.set_yticks(range(len(rows)), names)
    for tick, row in zip(axes.get_yticklabels(), rows, strict=True):
        tick.set_fontweight("bold" if row.winner else "normal")
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="0.9", linewidth=0.6)
    teacher = next((row.quality for row in block.rows if row.row == TEACHER and row.quality is not None), None)
    if teacher is not None:
        axes.axvline(teacher, color="black", linewidth=1, linestyle=(0, (6, 2)), zorder=1)
        axes.annotate(
            TEACHER, (teacher, 1), (0, 2), xycoords=("data", "axes fraction"), textcoords="offset points", ha="center", fontsize=7
        )
    axes.set_title(f"{block.task}, budget {block.budget.label()}: {block.metric}", loc="left")
