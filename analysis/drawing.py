"""What all pictures share: their look, units, and how they are written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from methods.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

GREY = "0.35"
_SIZES = {"font.size": 9, "axes.titlesize": 9, "axes.labelsize": 9, "xtick.labelsize": 8, "ytick.labelsize": 8, "legend.fontsize": 8}


@contextmanager
def look() -> Iterator[None]:
    """The look of all pictures, within the block alone."""
    import matplotlib as mpl
    import seaborn as sns

    settings: dict[Any, Any] = {**sns.axes_style("ticks"), **_SIZES, "svg.hashsalt": "elastibench", "text.parse_math": False}
    with mpl.rc_context(settings):
        yield


def new_figure(width: float, height: float) -> Figure:
    """A figure of its own (inches) on the Agg canvas: no global state, no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


MARKERS = "osDv^P"
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1)), (0, (5, 1, 1, 1)), (0, (3, 1, 1, 1, 1, 1)), (0, (9, 2, 3, 2)))


def styles_of(methods: Sequence[str]) -> dict[str, Style]:
    """By method, in alphabetical order: a colour, a marker and a dash of its own, so that they can be told apart in grey print too."""
    import seaborn as sns

    palette = sns.color_palette("colorblind", max(len(methods), 1))
    names = sorted(methods)
    return {name: Style(MARKERS[i % len(MARKERS)], palette[i], DASHES[i % len(DASHES)]) for i, name in enumerate(names)}


class Style(NamedTuple):
    """How a method is drawn."""

    marker: str
    color: Any
    dash: Any


def unit(largest: float) -> tuple[float, str]:
    """What to divide by, and the letter for it."""
    return next((size, name) for size, name in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "K"), (1.0, "")) if largest >= size or size == 1)


def logarithmic(axis: Axis, steps: Sequence[float] = (1.0, 2.0, 5.0)) -> None:
    """Plain numbers at these steps of every power of ten; the scale itself is the caller's."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=tuple(steps)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


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
