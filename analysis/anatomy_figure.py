"""The picture of what won: layer by layer, block by block, or as the graph of a cell, whatever the method's choices are."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from analysis.controls import teacher_of
from analysis.description import short_id
from analysis.drawing import GREY, look, new_figure, written
from analysis.runs import Run, open_runs
from analysis.winners import winners
from methods.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from methods.space import Architecture

_KINDS = ("M", "F", "S")
_FILLS = {"M": ("#0173b2", "white"), "F": ("#ece2d0", "black"), "S": ("#8c8c8c", "white")}
"""Attention dark, feed-forward light, convolutions between: apart in grey too; the letter says it again."""
_NAMES = {"M": "M attention", "F": "F feed-forward", "S": "S convolution, its kernel size"}


class _Winner(NamedTuple):
    method: str
    budgets: tuple[str, ...]
    architecture: Architecture


def anatomy(run: Run | Path | str, path: Path | str, task: str | None = None) -> Path:
    """Draws the winner of each method and budget (of the seed that did best on `search`) on one task, by default the first: heads and
    neurons of each layer, dropped ones dotted; operations of each block, as high as its hidden size; a cell as a graph. Methods of other
    choices have no picture. Writes PNG and SVG and returns the PNG's path. Raises UserError where there is nothing to draw."""
    (opened,) = [run] if isinstance(run, Run) else open_runs([run])
    try:
        place = task or next(iter(opened.tasks), "")
        found = [winner for winner in _winners(opened, place) if _drawer(winner.architecture.choices) is not None]
        if not found:
            raise UserError(f"{opened.path}: no method has a winner to draw on {place or 'any task'}")
        return _draw(found, place, _depth(opened, place), Path(path))
    finally:
        if not isinstance(run, Run):
            opened.close()


def _winners(run: Run, task: str) -> list[_Winner]:
    """Those of several budgets once."""
    found: dict[tuple[str, Architecture], list[str]] = {}
    for method in run.methods(task):
        for budget in run.budgets:
            of_seeds = winners(run, task, method, budget)
            if not isinstance(of_seeds, str):
                best = max(of_seeds, key=lambda winner: (winner.answer.quality, -winner.seed))
                found.setdefault((method, best.answer.architecture), []).append(budget.label())
    return [_Winner(method, tuple(budgets), architecture) for (method, architecture), budgets in found.items()]


def _depth(run: Run, task: str) -> int:
    """How many layers the teacher has; 0 where that is not known."""
    teacher = teacher_of(run, task)
    layers = teacher.architecture.choices.get("layers", 0) if teacher else 0
    return layers if isinstance(layers, int) else 0


def _drawer(choices: dict[str, Any]) -> Callable[[Axes, dict[str, Any], Sequence[dict[str, Any]], int], None] | None:
    if {"layers", "heads", "neurons"} <= choices.keys():
        return _layers
    if {"blocks", "embedding"} <= choices.keys():
        return _blocks
    return _cell if {"K", "nodes"} <= choices.keys() else None


def _draw(found: Sequence[_Winner], task: str, depth: int, path: Path) -> Path:
    with look():
        figure = new_figure(7.2, 1.75 * len(found) + 0.3)
        for axes, winner in zip(figure.subplots(len(found), 1, squeeze=False)[:, 0], found, strict=True):
            choices = winner.architecture.choices
            drawer = _drawer(choices)
            alike = [other.architecture.choices for other in found if _drawer(other.architecture.choices) is drawer]
            assert drawer is not None
            drawer(axes, choices, alike, depth)
            name = f"{task}, {winner.method}, {short_id(winner.architecture)}, budget {', '.join(winner.budgets)}"
            axes.set_title(name, loc="left")
            for side in axes.spines.values():
                side.set_visible(False)
        return written(figure, path)


def _layers(axes: Axes, choices: dict[str, Any], alike: Sequence[dict[str, Any]], depth: int) -> None:
    """Heads upwards, neurons downwards, as shares of the most that any winner has; the numbers beside the bars."""
    depth = max(depth, *(1 + max(other["layers"], default=0) for other in alike))
    heads, neurons = (max((max(_each(other, name), default=1) for other in alike), default=1) for name in ("heads", "neurons"))
    for layer in range(depth):
        if layer not in choices["layers"]:
            axes.bar([layer], [1], 0.7, bottom=-0.5, facecolor="none", edgecolor=GREY, linestyle=":", linewidth=0.8)
            paper = {"facecolor": "white", "edgecolor": "none", "pad": 1}
            axes.annotate("dropped", (layer, 0), ha="center", va="center", color=GREY, fontsize=7, bbox=paper)
            continue
        place = choices["layers"].index(layer)
        here = _each(choices, "heads")[place], _each(choices, "neurons")[place]
        axes.bar([layer], [here[0] / heads], 0.7, color=_FILLS["M"][0])
        axes.bar([layer], [-here[1] / neurons], 0.7, color=_FILLS["F"][0], edgecolor=GREY, linewidth=0.6)
        for value, height, va in ((here[0], here[0] / heads, "bottom"), (here[1], -here[1] / neurons, "top")):
            axes.annotate(
                f"{value}", (layer, height), (0, 1 if va == "bottom" else -1), textcoords="offset points", ha="center", va=va, fontsize=7
            )
    axes.axhline(0, color="black", linewidth=0.6, zorder=0.5)
    axes.set_xlim(-0.6, depth - 0.4)
    axes.set_ylim(-1.4, 1.4)
    axes.set_yticks([-0.6, 0.6], ["neurons", "heads"])
    axes.tick_params(length=0)
    axes.set_xticks(range(depth), [str(layer) for layer in range(depth)])
    axes.set_xlabel("layer of the backbone")


def _each(choices: dict[str, Any], name: str) -> list[int]:
    value = choices[name]
    return list(value) if isinstance(value, list) else [value] * len(choices["layers"])


def _blocks(axes: Axes, choices: dict[str, Any], alike: Sequence[dict[str, Any]], depth: int) -> None:  # noqa: ARG001
    from matplotlib.patches import Rectangle

    widest = max(block["hidden"] for other in alike for block in other["blocks"])
    longest = max(sum(len(block["ops"]) + 0.8 for block in other["blocks"]) for other in alike)
    x = 0.0
    for block in choices["blocks"]:
        start, height = x, block["hidden"] / widest
        for operation in block["ops"]:
            face, ink = _FILLS[operation[0]]
            axes.add_patch(Rectangle((x, 0), 0.92, height, facecolor=face, edgecolor=GREY, linewidth=0.6))
            axes.annotate(operation, (x + 0.46, height / 2), ha="center", va="center", color=ink, fontsize=7.5)
            x += 1
        axes.annotate(
            f"{block['hidden']} wide", ((start + x - 0.08) / 2, height), (0, 2), textcoords="offset points", ha="center", fontsize=7
        )
        x += 0.8
    axes.set_xlim(-0.2, max(longest, 10))
    axes.set_ylim(0, 1.15)
    axes.set_yticks([])
    axes.set_xticks([])
    used = "; ".join(_NAMES[kind] for kind in _KINDS if any(op[0] == kind for block in choices["blocks"] for op in block["ops"]))
    axes.set_xlabel(f"embedding {choices['embedding']} wide, then the blocks; {used}")


def _cell(axes: Axes, choices: dict[str, Any], alike: Sequence[dict[str, Any]], depth: int) -> None:  # noqa: ARG001
    """Inputs 0 and 1 on the left, inner nodes in a row, an arrow for each kept edge, in bows past the nodes between."""
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path as Curve

    places = {0: (0.0, 1.0), 1: (0.0, 0.0)} | {n + 2: (1.5 * (n + 1), 0.5) for n in range(len(choices["nodes"]))}
    for n, node in enumerate(choices["nodes"]):
        for source, operation in node:
            (x0, y0), (x1, y1) = places[source], places[n + 2]
            past = n + 1 - max(source - 1, 0)
            bow = 0.0 if past == 1 else (-0.5 if source == 1 else 0.5) * (0.7 + 0.5 * past)
            x2, y2 = (x0 + x1) / 2, (y0 + y1) / 2 + bow
            color, dash = (_FILLS["M"][0], "-") if operation.startswith(("conv", "dilated")) else (GREY, (0, (4, 2)))
            curve = Curve([(x0, y0), (x2, y2), _short_of((x2, y2), (x1, y1))], [Curve.MOVETO, Curve.CURVE3, Curve.CURVE3])
            axes.add_patch(FancyArrowPatch(path=curve, arrowstyle="-|>", mutation_scale=9, color=color, linestyle=dash, linewidth=1.2))
            paper = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
            text: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 6.5, "bbox": paper}
            axes.annotate(operation.replace("_", " "), ((x0 + 2 * x2 + x1) / 4, (y0 + 2 * y2 + y1) / 4), **text)
    for place, (x, y) in places.items():
        name = f"in {place}" if place < 2 else f"{place - 2}"
        axes.annotate(
            name, (x, y), ha="center", va="center", fontsize=7.5, bbox={"boxstyle": "circle", "facecolor": "white", "edgecolor": "black"}
        )
    axes.set_xlim(-0.5, 1.5 * len(choices["nodes"]) + 0.6)
    axes.set_ylim(-0.55, 1.5)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_xlabel(f"{choices['K']} such cell{'s' * (choices['K'] > 1)}; broken arrows: no parameters")


def _short_of(start: tuple[float, float], end: tuple[float, float]) -> tuple[float, float]:
    """Where an arrow ends, so that the node's circle does not hide its head; a unit to the right is about 1.4 inches, one up 0.5."""
    x, y = 1.4 * (end[0] - start[0]), 0.5 * (end[1] - start[1])
    back = 0.1 / math.hypot(x, y)
    return end[0] - back * x / 1.4, end[1] - back * y / 0.5
