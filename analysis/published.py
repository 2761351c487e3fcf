"""What the papers print, with its source: a table of its own, never a row beside what was measured here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

TASKS = {
    "sst2": "SST-2", "cola": "CoLA", "mnli": "MNLI", "qnli": "QNLI", "qqp": "QQP", "mrpc": "MRPC", "rte": "RTE", "stsb": "STS-B",
}  # fmt: skip
"""GLUE's tasks by the names that experiments give them."""
APART = (
    "Other teachers (BERT-base, 110M parameters), lengths, splits and training than here: to be read beside the tables above, not against "
    "them. Parameters and FLOPs as each paper counts them."
)


@dataclass(frozen=True)
class Published:
    """One table of a paper. `data`: GLUE's split; `metrics`, `sizes`: what its numbers are; `rows`: scores in percent by task."""

    source: str
    data: str
    metrics: str
    sizes: str
    rows: tuple[dict[str, Any], ...]

    def cells(self, tasks: Sequence[str] = ()) -> tuple[list[str], list[list[str]]]:
        """Headings and cells; `tasks` first, where named, then all others."""
        there = [task for task in TASKS if any(task in row for row in self.rows)]
        names = sorted(there, key=lambda task: (task not in tasks, there.index(task)))
        columns = ["model", "parameters", "flops", *names, "average"]
        columns = [name for name in columns if any(name in row for row in self.rows)]
        headings = [TASKS.get(name, "FLOPs" if name == "flops" else name) for name in columns]
        return headings, [[_cell(row.get(name)) for name in columns] for row in self.rows]


@cache
def published() -> tuple[Published, ...]:
    """All tables of `published.yaml`."""
    import yaml

    entries = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text())
    return tuple(Published(**{**entry, "rows": tuple(entry["rows"])}) for entry in entries)


def frame() -> pd.DataFrame:
    """Every number as a row: source, data, model, parameters, FLOPs, task, score in percent."""
    import pandas as pd

    records = [
        {"source": table.source, "data": table.data, "model": row["model"], "parameters": row["parameters"], "flops": row.get("flops")}
        | {"task": task, "score": row[task]}
        for table in published()
        for row in table.rows
        for task in TASKS
        if task in row
    ]
    return pd.DataFrame(records)


def render(form: str = "table", tasks: Sequence[str] = ()) -> str:
    """All tables as plain text (`table`) or Markdown (`md`), each with its source and what its numbers are."""
    from tabulate import tabulate

    pieces = [f"{'### ' if form == 'md' else ''}Published numbers", "", APART, ""]
    for table in published():
        headings, body = table.cells(tasks)
        left = ["left" if heading in ("model", "parameters") else "right" for heading in headings]
        style = "github" if form == "md" else "simple"
        about = f"{table.source}; GLUE {table.data}. {table.metrics}. {table.sizes}"
        pieces += [about, "", tabulate(body, headings, tablefmt=style, disable_numparse=True, colalign=left), ""]
    return "\n".join(pieces).rstrip()


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return value if isinstance(value, str) else f"{value:.2g}" if value > 1000 else f"{value:.1f}"
