"""The picture of a supernet on a corpus in training: how many paths are alive, and how well its blocks follow the teacher."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.drawing import logarithmic, look, new_figure, written
from analysis.runs import Run, open_runs
from methods.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SIZE_RAMP = (0.0, 0.88)
"""The part of the colour map in use: its end is too pale on white."""
_LOSSES = {"relative": ("paths drawn in training, training text", "-"), "probes": ("paths set apart, held-out text", (0, (4, 2)))}


@dataclass(frozen=True)
class _Logs:
    """Rows of the two logs of one supernet, every value a number."""

    title: str
    training: list[dict[str, float]]
    shrinking: list[dict[str, float]]

    @property
    def blocks(self) -> list[int]:
        return sorted({int(row["block"]) for row in self.training})

    @property
    def bins(self) -> list[int]:
        return sorted({int(row["bin"]) for row in self.shrinking})


def shrinking(run: Path | str, path: Path | str, seed: int | None = None) -> Path:
    """Draws, block by block over the epochs, the paths alive in each size bin and the block's mean loss; writes PNG and SVG.

    The loss is that over the variance of the teacher's states. `seed`: whose supernet (default: the lowest that has a log). Returns the
    PNG's path. Raises UserError where the run has no such log, one is damaged, or the folder can't be written.
    """
    (opened,) = open_runs([run])
    return _draw(_logs(opened, seed), Path(path))


def _logs(run: Run, seed: int | None) -> _Logs:
    """Of one supernet; blocks that were trained as stages of their own are put together."""
    wanted = f"seed-{'*' if seed is None else seed}"
    found: dict[tuple[str, int], list[Path]] = {}
    for log in sorted((run.path / "corpus" / run.corpus).glob(f"*/{wanted}/supernet*/training.csv")) if run.corpus else []:
        owner = log.parents[1]
        found.setdefault((owner.parent.name, int(owner.name.removeprefix("seed-"))), []).append(log)
    if not found:
        whose = "" if seed is None else f" of seed {seed}"
        raise UserError(f"{run.path}: no supernet{whose} on a corpus has written a log of its training")
    method, which = min(found, key=lambda key: (key[1], key[0]))
    training = [row for log in found[method, which] for row in _read(log, ("epoch", "block", "relative"))]
    rounds = [row for log in found[method, which] for row in _read(log.with_name("shrinking.csv"), ("epoch", "block", "bin", "alive"))]
    if not training:
        raise UserError(f"{found[method, which][0]}: holds no epoch yet")
    return _Logs(f"{run.corpus}, {method}, seed {which}", training, rounds)


def _read(path: Path, needed: Sequence[str]) -> list[dict[str, float]]:
    """The rows of a log; none where there is no such file."""
    if not path.exists():
        return []
    try:
        with path.open(newline="") as file:
            rows = [{name: float(value or "nan") for name, value in row.items()} for row in csv.DictReader(file)]
        missing = [name for name in needed if rows and name not in rows[0]]
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: damaged ({error})") from error
    if missing:
        raise UserError(f"{path}: has no column {missing[0]}")
    return rows


def _draw(logs: _Logs, path: Path) -> Path:
    import seaborn as sns

    blocks = logs.blocks
    rows = 2 if logs.shrinking else 1
    with look():
        from matplotlib.ticker import MaxNLocator

        figure = new_figure(max(1.9 * len(blocks) + 0.6, 4.5), 1.9 * rows + 1.0)
        grid = figure.subplots(rows, len(blocks), squeeze=False, sharex=True, sharey="row")
        figure.suptitle(logs.title, x=0.01, ha="left", fontsize=9)
        for i, block in enumerate(blocks):
            if logs.shrinking:
                _draw_alive(grid[0, i], logs, block)
            _draw_loss(grid[-1, i], logs, block)
            grid[0, i].set_title(f"block {block}", loc="left")
            grid[-1, i].set_xlabel("epoch")
            grid[-1, i].xaxis.set_major_locator(MaxNLocator(5, integer=True))
        if logs.shrinking:
            grid[0, 0].set_ylabel("paths alive")
        grid[-1, 0].set_ylabel("loss / variance")
        sns.despine(figure)
        _legends(figure, grid)
        return written(figure, path)


def _draw_alive(axes: Axes, logs: _Logs, block: int) -> None:
    """A line per size bin, the bin of the largest paths palest."""
    import matplotlib as mpl
    import numpy as np

    shades = mpl.colormaps["viridis"](np.linspace(*_SIZE_RAMP, len(logs.bins)))
    for bin, shade in zip(logs.bins, shades, strict=True):
        mine = [row for row in logs.shrinking if (row["block"], row["bin"]) == (block, bin)]
        if any(row["alive"] for row in mine):
            style: dict[str, Any] = {"color": shade, "linewidth": 1.4, "marker": ".", "markersize": 4}
            axes.plot([row["epoch"] for row in mine], [row["alive"] for row in mine], label=f"{bin}", **style)
    axes.set_yscale("log")
    logarithmic(axes.yaxis, (1.0,))


def _draw_loss(axes: Axes, logs: _Logs, block: int) -> None:
    mine = [row for row in logs.training if row["block"] == block]
    for column, (label, dashes) in _LOSSES.items():
        points = [(row["epoch"], row[column]) for row in mine if not math.isnan(row.get(column, math.nan))]
        if points:
            axes.plot(*zip(*points, strict=True), label=label, color="black", linewidth=1.2, linestyle=dashes)


def _legends(figure: Figure, grid: Any) -> None:
    """Bins once, losses once, whichever panels have them."""
    if len(grid) > 1:
        bins = _entries(grid[0])
        order = sorted(bins, key=int)
        figure.legend([bins[b] for b in order], order, loc="outside right upper", title="size bin\n(1: smallest)", frameon=False)
    losses = _entries(grid[-1])
    figure.legend(losses.values(), losses.keys(), loc="outside lower center", ncols=len(losses), frameon=False)


def _entries(row: Any) -> dict[str, Any]:
    return {label: handle for axes in row for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
