"""What a run leaves to be read: the head-to-head table in every form, pictures, and a list of all that was measured."""

from __future__ import annotations

import csv
import io
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from methods.errors import UserError
from methods.training.checkpoint import write_atomically
from search.archive import Archive
from workbench.folder import RunFolder

if TYPE_CHECKING:
    from analysis.head_to_head import HeadToHead

FORMS = {"table": "txt", "md": "md", "tex": "tex", "csv": "csv", "json": "json"}
COLUMNS = ("task", "method", "seed", "kind", "control", "split", "architecture_id", "metric", "quality", "parameters", "flops", "choices")


def write_report(folder: RunFolder) -> HeadToHead:
    """`report/table.*`, `report/measurements.csv` and pictures as PNG and SVG: `pareto`, and `estimates`, `shrinking` and `alpha` of runs
    that have what these show. Returns the table."""
    from analysis.alpha_figure import alpha
    from analysis.estimates_figure import estimates
    from analysis.figures import pareto
    from analysis.head_to_head import head_to_head
    from analysis.shrinking_figure import shrinking

    table = head_to_head([folder.path])
    for form, ending in FORMS.items():
        write_atomically(folder.report / f"table.{ending}", table.render(form).rstrip() + "\n")  # type: ignore[arg-type]
    pareto([folder.path], folder.report / "pareto.png")
    for draw in (estimates, shrinking, alpha):
        with suppress(UserError):  # of a run in which there is nothing of this kind to draw
            draw(folder.path, folder.report / f"{draw.__name__}.png")
    with folder.open_archive() as archive:
        write_measurements(archive, folder.report / "measurements.csv")
    return table


def write_measurements(archive: Archive, path: Path) -> None:
    """One line per measurement."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for m in sorted(
        archive.measurements(), key=lambda m: (m.task, m.architecture.method, m.seed, m.kind, m.control, m.split, m.architecture.id)
    ):
        names = (m.task, m.architecture.method, m.seed, m.kind, m.control, m.split, m.architecture.id, m.metric)
        writer.writerow([*names, f"{m.quality:.6f}", m.costs.parameters, m.costs.flops, m.architecture.canonical])
    write_atomically(path, text.getvalue())
