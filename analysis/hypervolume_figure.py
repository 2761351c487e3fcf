"""The picture of how fast a search gets good: the hypervolume of its front over evaluations and over seconds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from analysis.drawing import Style, look, new_figure, styles_of, written
from analysis.runs import Run, open_runs
from methods.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from search.measurement import Measurement

_KINDS = {"shared": "shared weights", "assembled": "assembled"}
_FEWEST = 2
"""Fewer evaluations are no search."""


class _Trace(NamedTuple):
    """One search: seconds of evaluation that went by, and the hypervolume, after each evaluation."""

    method: str
    seed: int
    seconds: npt.NDArray[np.float64]
    hypervolumes: npt.NDArray[np.float64]


def hypervolumes(losses: npt.ArrayLike, reference: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Of points (n, 2) that come one after the other, both coordinates to be small: the area that the first k of them dominate within
    the reference point, k = 1 to n (Zitzler and Thiele 1998). Points beyond the reference add nothing."""
    import moocore

    points, corner = np.asarray(losses, dtype=float), np.asarray(reference, dtype=float)
    inside = np.minimum(points, corner)
    return np.array([moocore.hypervolume(inside[: k + 1], ref=corner) for k in range(len(inside))], dtype=float)


def hypervolume(run: Path | str, path: Path | str) -> Path:
    """Draws, a row of panels per task (and corpus), the share of a box that each search's front dominates: quality from the lowest to the
    highest that any search found, FLOPs from none to the most that any network took. Writes PNG and SVG and returns the PNG's path.

    Seconds are those of the evaluations alone. Raises UserError where nothing was searched or the folder can't be written.
    """
    import seaborn as sns
    from matplotlib.lines import Line2D

    (opened,) = open_runs([run])
    try:
        places = [(task, found) for task in [*opened.tasks, *opened.corpus_methods[:1]] if (found := _traces(opened, task))]
        places = [(opened.corpus if task in opened.corpus_methods else task, found) for task, found in places]
        if not places:
            raise UserError(f"{opened.path}: no search has evaluated {_FEWEST} networks; there is nothing to draw")
        styles = styles_of(list({trace.method for _, (traces, _) in places for trace in traces}))
        with look():
            figure = new_figure(7.2, 2.5 * len(places) + 0.6)
            panels = figure.subplots(len(places), 2, squeeze=False, sharey="row")
            for (left, right), (task, (traces, kind)) in zip(panels, places, strict=True):
                _draw(left, traces, styles, [np.arange(1.0, len(t.hypervolumes) + 1) for t in traces])
                _draw(right, traces, styles, [t.seconds for t in traces])
                left.set_title(f"{task}: {_KINDS[kind]}, split search", loc="left")
                left.set_ylabel("hypervolume, share of the box")
                left.set_xlabel("architectures evaluated")
                right.set_xlabel("seconds of evaluation")
            sns.despine(figure)
            lines = [
                Line2D([], [], color=style.color, linestyle=style.dash, linewidth=1.3, marker=style.marker, markersize=4)
                for style in styles.values()
            ]
            figure.legend(lines, list(styles), loc="outside lower center", ncols=4, frameon=False, handlelength=3.2)
            return written(figure, Path(path))
    finally:
        opened.close()


def _traces(run: Run, task: str) -> tuple[list[_Trace], str] | None:
    """Of a task; the name of a method on the corpus stands for the corpus."""
    kind, place = ("assembled", run.corpus) if task in run.corpus_methods else ("shared", task)
    found = [m for m in run.measurements if (m.task, m.kind, m.split) == (place, kind, "search") and np.isfinite(m.quality)]
    last = {(m.architecture.method, m.seed): m.weights_digest for m in found}
    found = [m for m in found if m.weights_digest == last[m.architecture.method, m.seed]]
    searches = [(who, [m for m in found if (m.architecture.method, m.seed) == who]) for who in last]
    searches = [(who, mine) for who, mine in searches if len(mine) >= _FEWEST]
    if not searches:
        return None
    low, high = min(m.quality for m in found), max(m.quality for m in found)
    dearest = max(m.costs.flops for m in found)
    return [_Trace(*who, np.cumsum([m.seconds for m in mine]), _shares(mine, low, high, dearest)) for who, mine in searches], kind


def _shares(measured: Iterable[Measurement], low: float, high: float, dearest: int) -> npt.NDArray[np.float64]:
    scale = (high - low) or 1.0
    return hypervolumes([((high - m.quality) / scale, m.costs.flops / dearest) for m in measured], (1.0, 1.0))


def _draw(axes: Axes, traces: Sequence[_Trace], styles: dict[str, Style], places: Sequence[npt.NDArray[np.float64]]) -> None:
    for trace, xs in zip(traces, places, strict=True):
        style = styles[trace.method]
        axes.step(xs, trace.hypervolumes, where="post", color=style.color, linestyle=style.dash, linewidth=1.3)
        axes.plot(xs[-1], trace.hypervolumes[-1], marker=style.marker, color=style.color, markersize=4)
    axes.set_ylim(0, 1.02)
    axes.set_xlim(left=0)
