"""Comparisons, fronts and reports as HTML: one Jinja environment, everything escaped."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.cells import EMPTY, Footnotes, Part, conventions, parts, remarks, why_empty

if TYPE_CHECKING:
    from jinja2 import Environment

    from analysis.head_to_head import HeadToHead


@cache
def environment() -> Environment:
    """Escapes whatever a template prints."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    folder = Path(__file__).parent / "templates"
    made = Environment(loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.policies["json.dumps_kwargs"] = {"allow_nan": False}
    return made


def fragment(table: HeadToHead) -> str:
    """The comparison for a notebook's cell."""
    shown = [part_data(part) for part in parts(table)]
    return environment().get_template("comparison.html").render(parts=shown, notes=[*remarks(table), *conventions(table.blocks)])


def part_data(part: Part) -> dict[str, Any]:
    """A printed table as a template wants it: headings, rows of cells, footnotes."""
    notes = Footnotes()
    rows = []
    for place, row in enumerate(part.rows):
        cells = []
        for column in part.columns:
            reason = why_empty(column, row)
            text = column.text(row) if reason is None else EMPTY
            mark = "" if reason is None else notes.mark(reason).strip("[]")
            strong = row.winner and column.name in ("row", "quality")
            cells.append({"text": text, "left": column.left, "mark": mark, "reason": reason or "", "strong": strong})
        rows.append({"cells": cells, "rule": place in part.breaks and place > 0, "control": row.kind == "control"})
    return {
        "title": part.title,
        "panel": part.panel,
        "headings": [{"text": c.heading.format(metric=part.metric), "left": c.left} for c in part.columns],
        "rows": rows,
        "notes": list(enumerate(notes.reasons, 1)),
        "sentences": part.sentences,
    }


def plain_data(headings: Sequence[str], body: Sequence[Sequence[str]], left: Sequence[str] = ()) -> dict[str, Any]:
    """Headings and cells as a template wants them; the columns named in `left` are text."""
    sides = [heading in left for heading in headings]
    cells = [
        [{"text": text, "left": side, "mark": "", "reason": "", "strong": False} for text, side in zip(line, sides, strict=True)]
        for line in body
    ]
    return {
        "title": "",
        "panel": "",
        "headings": [{"text": text, "left": side} for text, side in zip(headings, sides, strict=True)],
        "rows": [{"cells": line, "rule": False, "control": False} for line in cells],
        "notes": [],
        "sentences": (),
    }
