"""The Pareto picture of a run: quality over cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

from analysis.controls import HAND_MADE, RANDOM, TEACHER, TRUNCATED, UNTRAINED, measured_controls, teacher_of
from analysis.drawing import GREY, Style, logarithmic, look, new_figure, styles_of, unit, written
from analysis.runs import Run, open_runs
from analysis.winners import winners
from methods.budget import format_quantity
from methods.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from methods.costs import Costs
    from search.measurement import Measurement

LIMITS = {"flops": "max_flops", "parameters": "max_params", "other_parameters": "max_params_non_embedding"}
"""The costs that can be drawn, each with the limit that speaks of it; `latency.<device>` besides."""
_DEVICE = "latency."

_CONTROLS = {RANDOM: ("x", 22), TRUNCATED: ("*", 75), HAND_MADE: ("d", 34), **dict.fromkeys(UNTRAINED, ("+", 36))}
_OTHER_WAYS = "1234"
"""Markers of controls that were finished in another way, in order of appearance."""
_HOLLOW = "*d"
_ABOVE_LIMITS = 19
"""Points between a panel and its title: room for the names of limits."""
_CLOSE = 0.15
"""Of the axis: limits nearer to each other have their names one above the other."""
_BELOW = 0.35
"""Untrained cuts that lie further below the rest than this share of the rest's range are shown at the lower edge, with their value."""


class _Axis(NamedTuple):
    """The horizontal axis: which cost, what it is divided by, and the name of that unit's multiple."""

    cost: str
    divisor: float
    multiple: str

    def of(self, costs: Costs) -> float:
        return spent_on(costs, self.cost) / self.divisor

    @property
    def limit(self) -> str:
        """The name of the limit that speaks of this cost."""
        return LIMITS.get(self.cost) or f"max_{self.cost}"


def spent_on(costs: Costs, cost: str) -> float:
    """That cost; NaN for the latency on a device that is not known."""
    if cost.startswith(_DEVICE):
        return float(costs.latency.get(cost.removeprefix(_DEVICE), math.nan))
    return float(getattr(costs, cost))


def pareto(runs: Sequence[Path | str] | Path | str, path: Path | str, cost: str = "flops") -> Path:
    """Draws quality over cost of everything that was measured, and writes it as PNG and as SVG.

    One row of panels per task: on the left what the choice saw (`shared` weights on `search`, means over seeds; of methods without, such
    as those trained on a corpus, `finished` networks) with the front that no other beats; on the right what ships (`finished` on
    `validation`) with the winner of each budget and the controls. The two splits are never in one panel. `cost`: flops, parameters,
    other_parameters, or latency.<device>: networks whose latency there is not known are left out.

    `path` may end in .png, .svg or in neither; returns the PNG's path. Raises UserError where there is nothing to draw
    or the folder can't be written.
    """
    if cost not in LIMITS and not cost.startswith(_DEVICE):
        raise UserError(f"cost {cost!r} is unknown; there are {', '.join(LIMITS)}, latency.<device>")
    opened = open_runs([runs] if isinstance(runs, str | Path) else runs)
    try:
        if cost.startswith(_DEVICE):
            opened = [_with_latency(run, cost) for run in opened]
        tasks = list(dict.fromkeys(task for run in opened for task in run.tasks))
        if not tasks:
            raise UserError(f"{', '.join(str(run.path) for run in opened)}: nothing was measured yet, there is nothing to draw")
        return _draw(opened, tasks, cost, Path(path))
    finally:
        for run in opened:
            run.close()


def _with_latency(run: Run, cost: str) -> Run:
    """The run with those measurements alone whose latency on the device is known."""
    known = [m for m in run.measurements if not math.isnan(spent_on(m.costs, cost))]
    if not known:
        raise UserError(f"{run.path}: no latency on {cost.removeprefix(_DEVICE)} is known; name a latency table under `devices`")
    fewer = replace(run)
    fewer.__dict__.update(measurements=known, archive=run.archive)
    return fewer


def _draw(runs: Sequence[Run], tasks: Sequence[str], cost: str, path: Path) -> Path:
    import seaborn as sns

    styles = styles_of(list({method for run in runs for task in tasks for method in run.methods(task)}))
    with look():
        figure = new_figure(7.2, 3.0 * len(tasks) + 0.7)
        panels = figure.subplots(len(tasks), 2, squeeze=False, sharey="row", sharex="row")
        for (left, right), task in zip(panels, tasks, strict=True):
            _draw_task(left, right, [run for run in runs if task in run.tasks], task, cost, styles)
        sns.despine(figure)
        _legend(figure, panels.flat, styles)
        return written(figure, path)


def _draw_task(left: Axes, right: Axes, runs: Sequence[Run], task: str, cost: str, styles: dict[str, Style]) -> None:
    measured = [m for run in runs for m in run.measurements if m.task == task]
    spent = [spent_on(m.costs, cost) for m in measured]
    wide = min(spent) > 0 and max(spent) / min(spent) > 10
    axis = _Axis(cost, *unit(median(spent) if wide else max(spent))) if cost in LIMITS else _Axis(cost, 1e-3, "m")
    for run in runs:
        for method in run.methods(task):
            mine = [m for m in run.measurements if (m.task, m.architecture.method) == (task, method)]
            _draw_search(left, mine, styles[method], axis)
            _draw_finished(right, run, mine, styles[method], axis)
        _draw_controls(right, run, task, styles, axis)
    left.set_title(f"{task}, split search\n{_seen(measured)}", loc="left", pad=_ABOVE_LIMITS)
    pale = " (pale: shared)" if any(m.kind == "shared" and m.split == "validation" for m in measured) else ""
    right.set_title(f"{task}, split validation\nfinished networks{pale}", loc="left", pad=_ABOVE_LIMITS)
    left.set_ylabel(measured[0].metric)
    if wide:
        left.set_xscale("log")
        logarithmic(left.xaxis, (1.0, 2.0, 5.0) if max(spent) / min(spent) < 100 else (1.0,))
    for axes in (left, right):
        axes.set_xlabel(_label(axis, runs))
        _draw_limits(axes, runs, axis)


def _seen(measured: Sequence[Measurement]) -> str:
    """What the left panel shows."""
    shared = {m.architecture.method for m in measured if m.kind == "shared"}
    rest = sorted({m.architecture.method for m in measured if m.kind == "finished"} - shared)
    if not shared:
        return "finished networks"
    return f"shared weights ({', '.join(rest)}: finished)" if rest else "shared weights"


def _draw_search(axes: Axes, mine: Sequence[Measurement], style: Style, axis: _Axis) -> None:
    """Every architecture measured with shared weights, pale; those on the front solid, and the front as a line."""
    from search.candidates import candidates, pareto_front

    found = candidates(mine, "shared") or candidates(mine, "finished")
    if not found:
        return
    xs, ys = [axis.of(c.costs) for c in found], [c.quality for c in found]
    axes.scatter(xs, ys, s=20, marker=style.marker, color=style.color, alpha=0.4, linewidths=0, zorder=2)
    front = pareto_front(found, axis.of)
    xs, ys = [axis.of(c.costs) for c in front], [c.quality for c in front]
    axes.step(xs, ys, where="post", color=style.color, linestyle=style.dash, linewidth=1.3, zorder=3)
    axes.scatter(xs, ys, s=24, marker=style.marker, color=style.color, edgecolors="white", linewidths=0.5, zorder=4)


def _draw_finished(axes: Axes, run: Run, mine: Sequence[Measurement], style: Style, axis: _Axis) -> None:
    """Finished networks, means over seeds with their standard deviation, and a ring around the winner of each budget; pale behind them
    what was measured there with shared weights."""
    from search.candidates import candidates

    for c in candidates(mine, "shared", "validation"):
        axes.scatter([axis.of(c.costs)], [c.quality], s=20, marker=style.marker, color=style.color, alpha=0.4, linewidths=0, zorder=2)
    found = candidates(mine, "finished", "validation")
    if not found:
        return
    xs, ys, spread = [axis.of(c.costs) for c in found], [c.quality for c in found], [c.spread for c in found]
    if any(spread):
        axes.errorbar(xs, ys, yerr=spread, fmt="none", ecolor=style.color, elinewidth=1, capsize=2, zorder=4)
    axes.scatter(xs, ys, s=34, marker=style.marker, color=style.color, edgecolors="white", linewidths=0.5, zorder=5)
    task, method = mine[0].task, mine[0].architecture.method
    chosen = [winners(run, task, method, budget) for budget in run.budgets]
    won = {w.answer.architecture for some in chosen if not isinstance(some, str) for w in some}
    ringed = [c for c in found if c.architecture in won]
    places = [axis.of(c.costs) for c in ringed], [c.quality for c in ringed]
    axes.scatter(*places, s=95, marker="o", facecolors="none", edgecolors="black", linewidths=0.9, label="winner of a budget", zorder=6)


def _draw_controls(axes: Axes, run: Run, task: str, styles: dict[str, Style], axis: _Axis) -> None:
    """The teacher as a line, other controls as points, in their method's colour where they are of one."""
    teacher = teacher_of(run, task)
    if teacher is not None:
        axes.axhline(teacher.quality, color="black", linewidth=1, linestyle=(0, (6, 2)), label=TEACHER, zorder=1)
    floor = _floor(run, task)
    names = list(dict.fromkeys(m.control for m in run.controls(task) if m.control != TEACHER))
    others = [name for name in names if name not in _CONTROLS]
    for name in names:
        marker, size = _CONTROLS.get(name) or (_OTHER_WAYS[others.index(name) % len(_OTHER_WAYS)], 36)
        for m in measured_controls(run, task, name):
            style = styles.get(m.architecture.method)
            color = style.color if style else GREY
            x = axis.of(m.costs)
            if m.quality < floor:
                line = 5 + 7 * (list(styles).index(m.architecture.method) if style else 0)
                axes.scatter([x], [floor], s=22, marker=7, color=color, zorder=4)
                place: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "va": "bottom", "rotation": 90}
                place["bbox"] = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
                axes.annotate(f"{m.quality:.2f}", (x, floor), (0, line), color=color, fontsize=6.5, **place)
                axes.scatter([], [], s=22, marker=7, color=GREY, label=f"{name}, off scale")
            else:
                face = {"facecolors": "white", "edgecolors": color} if marker in _HOLLOW else {"color": color}
                axes.scatter([x], [m.quality], s=size, marker=marker, linewidths=1, zorder=4, **face)  # type: ignore[arg-type]
        axes.scatter([], [], s=size, marker=marker, label=name, **_hollow(marker))


def _hollow(marker: str) -> dict[str, Any]:
    return {"facecolors": "white", "edgecolors": GREY} if marker in _HOLLOW else {"color": GREY}


def _floor(run: Run, task: str) -> float:
    """Below this an untrained cut is shown at the edge, lest the rest be pressed into a line."""
    rest = [m.quality for m in run.measurements if m.task == task and m.control not in UNTRAINED and m.kind != "predicted"]
    return min(rest) - _BELOW * (max(rest) - min(rest)) if len(set(rest)) > 1 else float("-inf")


def _draw_limits(axes: Axes, runs: Sequence[Run], axis: _Axis) -> None:
    """A dotted line at each budget's limit on this cost."""
    limits = {budget.limits().get(axis.limit) for run in runs for budget in run.budgets}
    low, high = axes.get_xlim()
    before, raised = -1.0, False
    for limit in sorted(limit for limit in limits if limit is not None):
        x = limit / axis.divisor
        if low <= x <= high:
            share = float(axes.transAxes.inverted().transform(axes.transData.transform((x, 0.0)))[0])
            before, raised = share, share - before < _CLOSE and not raised
            axes.axvline(x, color=GREY, linewidth=0.8, linestyle=":", label="limit of a budget", zorder=0)
            place: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
            axes.annotate(
                f"{x:.4g}" if axis.cost not in LIMITS else format_quantity(limit),
                (x, 1),
                (0, 9 if raised else 2),
                ha="center",
                color=GREY,
                fontsize=7,
                **place,
            )


def _legend(figure: Figure, panels: Any, styles: dict[str, Style]) -> None:
    """One legend for all panels: the methods, the front, then every other label once."""
    from matplotlib.lines import Line2D

    entries: dict[str, Any] = {
        method: Line2D([], [], marker=style.marker, color=style.color, linestyle=style.dash, linewidth=1.3, markersize=5)
        for method, style in styles.items()
    }
    entries |= {label: handle for axes in panels for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(
        entries.values(),
        entries.keys(),
        loc="outside lower center",
        ncols=5,
        frameon=False,
        handletextpad=0.4,
        columnspacing=1.4,
        handlelength=2.8,
    )


def _label(axis: _Axis, runs: Sequence[Run]) -> str:
    if axis.cost == "flops":
        sizes = ", ".join(sorted({f"length {run.length}, batch {run.batch}" for run in runs}))
        return f"{axis.multiple}FLOPs (2 per multiply-add; {sizes})"
    if axis.cost not in LIMITS:
        return f"predicted latency on {axis.cost.removeprefix(_DEVICE)} (ms)"
    what = "parameters" if axis.cost == "parameters" else "parameters outside the embedding"
    return f"{what} ({axis.multiple})" if axis.multiple else what
