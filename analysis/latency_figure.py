"""A device profile's error as a picture: what its table predicted of the held-out networks over what was measured.

`python -m analysis.latency_figure latency/laptop.json laptop.png`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from analysis.drawing import GREY, look, new_figure
from methods.errors import UserError
from methods.latency import LatencyTable


def latency_figure(profile: Path | str, path: Path | str) -> None:
    """Milliseconds on logarithmic axes, with the line of no error and a band of 10 %. Raises UserError where nothing was held out."""
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    table = LatencyTable.load(profile)
    error, seen = table.held_out, table.fingerprint
    if error is None:
        raise UserError(f"{profile}: held_out: nothing was held out; measure it with --held-out 50")
    measured, predicted = ([1e3 * seconds for seconds in values] for values in (error.measured, error.predicted))
    ends = 0.9 * min(*measured, *predicted), 1.1 * max(*measured, *predicted)
    with look():
        figure = new_figure(4.2, 4.0)
        axes = figure.subplots()
        axes.fill_between(ends, [0.9 * end for end in ends], [1.1 * end for end in ends], color="0.9", label="± 10 %")
        axes.plot(ends, ends, color=GREY, linewidth=0.8)
        axes.scatter(measured, predicted, s=14, label=f"{error.n} held-out networks")
        axes.set(xscale="log", yscale="log", xlim=ends, ylim=ends, xlabel="measured (ms)", ylabel="predicted by the table (ms)")
        rank = "" if error.kendall is None else f", Kendall {error.kendall:.3f}"
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter(ScalarFormatter())
            axis.set_minor_formatter(NullFormatter())
        axes.set_title(f"{seen.backend}, batch {seen.batch} x {seen.length} tokens\nmean absolute error {error.mape:.1%}{rank}")
        axes.legend(frameon=False, loc="lower right")
        figure.savefig(path, dpi=150)


if __name__ == "__main__":
    latency_figure(sys.argv[1], sys.argv[2])
