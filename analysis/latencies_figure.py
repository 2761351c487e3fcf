"""The picture of how well a latency table foresees whole networks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from analysis.drawing import GREY, look, new_figure, written
from methods.errors import UserError
from methods.latency import LatencyTable


def latencies(tables: Sequence[Path | str] | Path | str, path: Path | str) -> Path:
    """Draws measured over predicted milliseconds of the networks that a table's calibration did not see, a panel for each table; writes
    PNG and SVG and returns the PNG's path. Raises UserError where a table is none or holds no such networks."""
    import seaborn as sns

    files = [tables] if isinstance(tables, str | Path) else list(tables)
    found = [LatencyTable.load(file) for file in files]
    empty = next((file for file, table in zip(files, found, strict=True) if table.held_out is None), None)
    if empty is not None or not found:
        raise UserError(f"{empty or 'devices'}: no whole networks were timed; there is nothing to draw")
    with look():
        figure = new_figure(3.4 * len(found), 3.5)
        for axes, table in zip(figure.subplots(1, len(found), squeeze=False)[0], found, strict=True):
            assert table.held_out is not None
            predicted, measured = ([1000 * s for s in seconds] for seconds in (table.held_out.predicted, table.held_out.measured))
            ends = min(*predicted, *measured), max(*predicted, *measured)
            axes.plot(ends, ends, color=GREY, linewidth=0.9, linestyle=":", zorder=1)
            axes.scatter(predicted, measured, s=18, color="C0", alpha=0.8, linewidths=0, zorder=2)
            rank = "" if table.held_out.spearman is None else f", Spearman {table.held_out.spearman:.3f}"
            f = table.fingerprint
            axes.set_title(f"{table.name}: off by {100 * table.held_out.mape:.1f} %{rank}, n = {table.held_out.n}", loc="left")
            axes.set_xlabel(f"predicted ms (batch {f.batch}, length {f.length}, threads {f.threads})")
            axes.set_ylabel("measured ms")
            axes.set_aspect("equal", adjustable="datalim")
        sns.despine(figure)
        return written(figure, Path(path))
