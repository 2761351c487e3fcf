"""The picture of how well tables foresee whole networks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from analysis.drawing import look, new_figure, unit, written
from analysis.ranks import correlation
from analysis.runs import Run, open_runs
from methods.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize

    from search.measurement import Measurement

MEASURED = {"log_likelihood": "log-likelihood (nats per word)", "negative_state_error": "−error of the last state"}
"""What may have been measured of assembled networks, in words."""
COLOURS = {"flops": "FLOPs", "parameters": "parameters", "other_parameters": "parameters outside the embedding"}
_RAMP = "cividis"
"""Its lightness grows evenly: it can be read in grey and by the colour-blind."""


class _Panel(NamedTuple):
    """One supernet: its networks as whole ones, what the tables predict of each (in the same order), and the ids of the winners."""

    method: str
    seed: int
    assembled: list[Measurement]
    predicted: list[float]
    pretrained: set[str]


def estimates(run: Path | str, path: Path | str, colour: str = "flops") -> Path:
    """Draws the log-likelihood of masked words of assembled networks over what the tables predict (minus the loss); writes PNG and SVG.

    One panel per supernet, with Spearman's rank correlation, and a ring around the winners, which were pre-trained. `colour`: the cost
    that colours the points, one of `COLOURS`. Returns the PNG's path. Raises UserError where there is nothing to draw or the folder can't
    be written.
    """
    if colour not in COLOURS:
        raise UserError(f"colour {colour!r} is unknown; there are {', '.join(COLOURS)}")
    (opened,) = open_runs([run])
    try:
        panels = [panel for method in opened.corpus_methods for panel in _panels(opened, method)]
        if not panels:
            raise UserError(f"{opened.path}: no network was both predicted and assembled; there is nothing to draw")
        return _draw(opened, panels, colour, Path(path))
    finally:
        opened.close()


def _panels(run: Run, method: str) -> list[_Panel]:
    """One per seed, of the weights assembled last."""
    panels = []
    for seed in run.seeds(run.corpus, method):
        mine = [m for m in run.measurements if (m.task, m.architecture.method, m.seed, m.split) == (run.corpus, method, seed, "search")]
        digest = next((m.weights_digest for m in reversed(mine) if m.kind == "assembled"), "")
        predicted = {m.architecture: m.quality for m in mine if (m.kind, m.weights_digest) == ("predicted", digest)}
        both = [m for m in mine if (m.kind, m.weights_digest) == ("assembled", digest) and m.architecture in predicted]
        won = {m.architecture.id for m in mine if m.kind == "finished"}
        if both:
            panels.append(_Panel(method, seed, both, [predicted[m.architecture] for m in both], won))
    return panels


def _draw(run: Run, panels: list[_Panel], colour: str, path: Path) -> Path:
    import seaborn as sns

    columns = min(len(panels), 3)
    rows = -(-len(panels) // columns)
    spent = [float(getattr(m.costs, colour)) for panel in panels for m in panel.assembled]
    divisor, multiple = unit(max(spent))
    with look():
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import LogNorm
        from matplotlib.ticker import FuncFormatter, LogLocator

        figure = new_figure(max(2.2 * columns + 1.4, 4.8), 2.6 * rows + 0.8)
        grid = figure.subplots(rows, columns, squeeze=False)
        scale = LogNorm(0.95 * min(spent) / divisor, 1.05 * max(spent) / divisor)
        for axes, panel in zip(grid.flat, panels, strict=False):
            _draw_panel(axes, run, panel, [float(getattr(m.costs, colour)) / divisor for m in panel.assembled], scale)
        for axes in grid.flat[len(panels) :]:
            axes.set_visible(False)
        measured = {m.metric: "" for panel in panels for m in panel.assembled}
        figure.supylabel("assembled: " + ", ".join(MEASURED.get(name, name) for name in measured), fontsize=9)
        sns.despine(figure)
        numbers = FuncFormatter(lambda value, _: f"{value:g}")
        bar = figure.colorbar(ScalarMappable(scale, _RAMP), ax=grid, ticks=LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0, 7.0)), format=numbers)
        bar.ax.minorticks_off()
        bar.outline.set_visible(False)
        bar.set_label(f"{multiple}{COLOURS[colour]}" if colour == "flops" else f"{COLOURS[colour]} ({multiple})")
        figure.legend(*grid.flat[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
        return written(figure, path)


def _draw_panel(axes: Axes, run: Run, panel: _Panel, spent: list[float], scale: Normalize) -> None:
    qualities = [m.quality for m in panel.assembled]
    look_of = {"s": 26, "cmap": _RAMP, "norm": scale, "edgecolors": "0.25", "linewidths": 0.4, "zorder": 3}
    axes.scatter(panel.predicted, qualities, c=spent, label="network", **look_of)  # type: ignore[arg-type]
    places = [(x, m.quality) for x, m in zip(panel.predicted, panel.assembled, strict=True) if m.architecture.id in panel.pretrained]
    ring = {"s": 95, "facecolors": "none", "edgecolors": "black", "linewidths": 1.0, "zorder": 4}
    axes.scatter([x for x, _ in places], [y for _, y in places], label="winner of a budget", **ring)  # type: ignore[arg-type]
    found = correlation(panel.predicted, qualities)
    words = found.words.replace(" (", f", n = {len(qualities)}\n(") if found.low is not None else f"{found.words}, n = {len(qualities)}"
    axes.set_title(f"{run.corpus}, {panel.method}, seed {panel.seed}\nSpearman {words}", loc="left")
    axes.set_xlabel("predicted: −loss (sum of blocks)")
    axes.locator_params(axis="x", nbins=5)
