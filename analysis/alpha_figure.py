"""The picture of a differentiable search: how its architecture parameters decided, and what its loss did."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.drawing import DASHES, GREY, Style, logarithmic, look, new_figure, styles_of, written
from analysis.runs import Run, open_runs
from methods.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LOG = "alpha.csv"
_TERMS = ("labels", "distillation", "efficiency", "penalties")
_SMOOTH = 0.05
"""Losses are of one batch each; the lines are means over this share of the search."""
_MARKS = 5
"""So many markers on a line of the middle panel."""
_DEPTH, _TEMPERATURE, _CHANCE = "depth K", "temperature / start", "by chance"

Rows = list[dict[str, float]]


@dataclass(frozen=True)
class _Log:
    """The log of one supernet; `derived`: K and the kept edges by node, None where the archive does not say."""

    title: str
    rows: Rows
    derived: dict[str, Any] | None

    @property
    def steps(self) -> list[float]:
        return [row["step"] for row in self.rows]

    def column(self, name: str) -> list[float]:
        return [row.get(name, math.nan) for row in self.rows]

    @cached_property
    def edges(self) -> dict[str, list[str]]:
        """The operations of each edge."""
        names = [name.removeprefix("entropy.") for name in self.rows[0] if name.startswith("entropy.node")]
        return {edge: [name.removeprefix(f"{edge}.") for name in self.rows[0] if name.startswith(f"{edge}.")] for edge in names}

    @property
    def kept(self) -> list[tuple[str, str]]:
        """The edges of the derived architecture with their operations; without one all edges with what is most probable at the end."""
        if self.derived is not None:
            nodes = enumerate(self.derived["nodes"])
            return [(f"node{n}.{source}", operation) for n, node in nodes for source, operation in node]
        last = self.rows[-1]
        return [(edge, max(names, key=lambda name: last[f"{edge}.{name}"])) for edge, names in self.edges.items()]

    @property
    def cells(self) -> int:
        return int(self.rows[-1]["derived.K"] if self.derived is None else self.derived["K"])

    def probability(self, names: list[str], which: str) -> list[float]:
        """Of one column among some, over the steps: their softmax."""
        return [_softmax([row[name] for name in names])[names.index(which)] for row in self.rows]


def alpha(run: Path | str, path: Path | str, task: str | None = None, seed: int | None = None) -> Path:
    """Draws, a row of panels for each task, method and seed, from the log of its search: how undecided edges and depth are, how probable
    what was derived in the end was, and the terms of the loss; writes PNG and SVG.

    `task`, `seed`: of these alone. Returns the PNG's path. Raises UserError where the run has no such log, one is damaged, or the folder
    can't be written.
    """
    (opened,) = open_runs([run])
    try:
        logs = _logs(opened, task, seed)
        if not logs:
            of = "".join(f" of {word} {value}" for word, value in (("task", task), ("seed", seed)) if value is not None)
            raise UserError(f"{opened.path}: no search{of} has left a log of architecture parameters")
        return _draw(logs, Path(path))
    finally:
        opened.close()


def _logs(run: Run, task: str | None, seed: int | None) -> list[_Log]:
    found = []
    for name in run.planned or run.tasks:
        for log in sorted((run.path / name).glob(f"*/seed-*/*/{LOG}"), key=lambda log: (log.parts[-4], _seed(log))):
            if task in (None, name) and seed in (None, _seed(log)):
                method = log.parts[-4]
                known = (s for s in run.selections if (s.task, s.method, s.seed, s.limits) == (name, method, _seed(log), {}))
                architecture = next((s.architecture for s in known), None)
                found.append(_Log(f"{name}, {method}, seed {_seed(log)}", _read(log), architecture.choices if architecture else None))
    return found


def _seed(log: Path) -> int:
    return int(log.parts[-3].removeprefix("seed-"))


def _read(path: Path) -> Rows:
    try:
        with path.open(newline="") as file:
            rows = [{name: float(value or "nan") for name, value in row.items()} for row in csv.DictReader(file)]
        missing = [name for name in ("step", "tau", "entropy.K", "derived.K") if name not in rows[0]]
    except (OSError, ValueError, TypeError, AttributeError, IndexError) as error:
        raise UserError(f"{path}: damaged ({error})") from error
    if missing:
        raise UserError(f"{path}: has no column {missing[0]}")
    return rows


def _draw(logs: list[_Log], path: Path) -> Path:
    import seaborn as sns

    with look():
        figure = new_figure(8.4, 2.0 * len(logs) + 1.0)
        heights = [*[2.0] * len(logs), 0.8]
        *grid, below = figure.subplots(len(logs) + 1, 3, squeeze=False, height_ratios=heights)
        styles = styles_of(list({operation for log in logs for _, operation in log.kept}))
        for panels, log in zip(grid, logs, strict=True):
            _draw_entropy(panels[0], log)
            _draw_derived(panels[1], log, styles)
            _draw_losses(panels[2], log)
            panels[0].set_title(log.title, loc="left")
        for axes in grid[-1]:
            axes.set_xlabel("step")
        sns.despine(figure)
        for column, axes in enumerate(below):
            _legend(axes, [panels[column] for panels in grid])
        return written(figure, path)


def _draw_entropy(axes: Axes, log: _Log) -> None:
    """1: nothing is decided; 0: everything is."""
    edges = [log.column(f"entropy.{edge}") for edge in log.edges]
    for each in edges:
        axes.plot(log.steps, each, color="C0", linewidth=0.6, alpha=0.45)
    mean = [sum(values) / len(values) for values in zip(*edges, strict=True)]
    axes.plot(log.steps, mean, color="C0", linewidth=1.6, label="edges (thin: each; bold: mean)")
    axes.plot(log.steps, log.column("entropy.K"), color="C3", linewidth=1.6, linestyle=DASHES[1], label=_DEPTH)
    start = log.rows[0]["tau"] or 1.0
    axes.plot(log.steps, [tau / start for tau in log.column("tau")], color=GREY, linewidth=1, linestyle=":", label=_TEMPERATURE)
    axes.set_ylim(-0.03, 1.05)
    axes.set_ylabel("normalised entropy")


def _draw_derived(axes: Axes, log: _Log, styles: dict[str, Style]) -> None:
    """One line per kept edge, with its operation's colour, dash and marker, edge by edge at other steps; dotted: what chance would be."""
    highest = chance = 1 / len(next(iter(log.edges.values())))
    for place, (edge, operation) in enumerate(log.kept):
        names = [f"{edge}.{name}" for name in log.edges[edge]]
        line = log.probability(names, f"{edge}.{operation}")
        highest = max(highest, *line)
        style, apart = styles[operation], max(1, len(line) // _MARKS)
        marks: dict[str, Any] = {"marker": style.marker, "markersize": 4, "markevery": (place * apart // len(log.kept), apart)}
        axes.plot(log.steps, line, color=style.color, linestyle=style.dash, linewidth=1.0, label=operation, **marks)
    axes.axhline(chance, color=GREY, linewidth=0.8, linestyle=":", label=_CHANCE)
    axes.set_ylim(0, min(1.05, 1.15 * highest))
    axes.set_ylabel("probability")
    depths = [name for name in log.rows[0] if name.startswith("K=")]
    sure = log.probability(depths, f"K={log.cells}")[-1]
    axes.set_title(f"derived: K = {log.cells} (p = {sure:.2f}), edges:", loc="left")


def _draw_losses(axes: Axes, log: _Log) -> None:
    """Terms that are there at all, smoothed; on a logarithmic axis where all of them are above 0."""
    lowest = math.inf
    for place, name in enumerate(_TERMS):
        values = log.column(name)
        if any(value and not math.isnan(value) for value in values):
            line = _smoothed(values, max(1, round(_SMOOTH * len(values))))
            lowest = min([lowest, *(value for value in line if not math.isnan(value))])
            axes.plot(log.steps, line, color=f"C{place}", linewidth=1.2, linestyle=DASHES[place], label=name)
    if 0 < lowest < math.inf:
        axes.set_yscale("log")
        logarithmic(axes.yaxis)
    axes.set_title("loss, weighted terms", loc="left")


def _smoothed(values: list[float], window: int) -> list[float]:
    """The mean of the last `window` values that are numbers."""
    means = []
    for i in range(len(values)):
        known = [value for value in values[max(0, i + 1 - window) : i + 1] if not math.isnan(value)]
        means.append(sum(known) / len(known) if known else math.nan)
    return means


def _softmax(logits: list[float]) -> list[float]:
    shifted = [math.exp(value - max(logits)) for value in logits]
    return [value / sum(shifted) for value in shifted]


def _legend(axes: Axes, panels: list[Axes]) -> None:
    """Of a column of panels, every label once, in the empty room below them."""
    entries = {label: line for panel in panels for line, label in zip(*panel.get_legend_handles_labels(), strict=True)}
    entries = dict(sorted(entries.items(), key=lambda entry: entry[0] == _CHANCE))
    axes.axis("off")
    columns = 2 if len(entries) > 3 else 1
    axes.legend(
        entries.values(),
        entries.keys(),
        loc="upper center",
        ncols=columns,
        frameon=False,
        handletextpad=0.4,
        columnspacing=1.0,
        handlelength=3,
    )
