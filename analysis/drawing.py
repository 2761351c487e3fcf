"""What all pictures share: their look, units, and how they are written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from methods.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GREY = "0.35"
_SIZES = {"font.size": 9, "axes.titlesize": 9, "axes.labelsize": 9, "xtick.labelsize": 8, "ytick.labelsize": 8, "legend.fontsize": 8}


@contextmanager
def look() -> Iterator[None]:
    """The look of all pictures, within the block alone."""
    import matplotlib as mpl
    import seaborn as sns

    settings: dict[Any, Any] = {**sns.axes_style("ticks"), **_SIZES, "svg.hashsalt": "elastibench"}
    with mpl.rc_context(settings):
        yield


def new_figure(width: float, height: float) -> Figure:
    """A figure of its own (inches) on the Agg canvas: no global state, no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def unit(largest: float) -> tuple[float, str]:
    """What to divide by, and the letter for it."""
    return next((size, name) for size, name in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "K"), (1.0, "")) if largest >= size or size == 1)


def written(figure: Figure, path: Path) -> Path:
    """Writes PNG and SVG (`path` may end in either or neither) and returns the PNG's path. Raises UserError where that can't be."""
    stem = path.with_suffix("") if path.suffix in (".png", ".svg") else path
    png, svg = stem.with_name(stem.name + ".png"), stem.with_name(stem.name + ".svg")
    try:
        png.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(png, dpi=200)
        figure.savefig(svg, metadata={"Date": None})
    except OSError as error:
        raise UserError(f"{png.parent}: can't be written to ({error.strerror or error})") from error
    return png
