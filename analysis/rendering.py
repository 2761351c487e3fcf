"""A head-to-head comparison as text: for the terminal, Markdown, LaTeX, CSV and JSON. Every one says how its numbers are meant."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from analysis.cells import STAR, Column, Footnotes, alarm_lines, conventions, latencies, parts, remarks, why_empty
from analysis.latex import latex
from analysis.prices import WHAT, prices_table
from analysis.ranks import SCORES, RankCorrelation, ranks_table
from analysis.rows import Block, Row
from methods.costs import CONVENTION
from methods.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from analysis.head_to_head import HeadToHead

WIDTH = 120
PRICES = "Cost of n tasks x b budgets (FLOPs)"
LINES = 3


def render(table: HeadToHead, format: str) -> str:
    """The comparison in one of `FORMATS`. Raises UserError for another name."""
    if format not in FORMATS:
        raise UserError(f"format {format!r} is unknown; there are {', '.join(FORMATS)}")
    return FORMATS[format](table)


def _table(table: HeadToHead) -> str:
    pieces, notes = [], Footnotes()
    for part in parts(table):
        headings, body = part.cells(notes, lambda text: text + STAR)
        pieces += [part.title, *_aligned(headings, body, [c.left for c in part.columns]), ""]
        pieces += [_wrapped(sentence) for sentence in part.sentences] + [""] * bool(part.sentences)
    if table.prices:
        headings, body = prices_table(table.prices, named=len(table.runs) > 1)
        left = [heading in ("run", "method") for heading in headings]
        pieces += [PRICES, *_aligned(headings, body, left), "", _wrapped(WHAT), ""]
    below = remarks(table)
    pieces += [_wrapped(line) for line in below] + [""] * bool(below)
    pieces += [_wrapped(line) for line in notes.lines()] + [_wrapped(line) for line in conventions(table.blocks)]
    return "\n".join(pieces)


def _aligned(headings: Sequence[str], body: Sequence[Sequence[str]], left: Sequence[bool]) -> list[str]:
    """Lines within `WIDTH` characters; the architecture column, where there is one, gives way, in up to `LINES` lines a row; otherwise
    columns for which there is no room stand in a table below, behind the names (which are flush left) once more."""
    widths = [max(map(len, column)) for column in zip(headings, *body, strict=True)]
    fitting = sum(end - 2 <= WIDTH for end in accumulate(width + 2 for width in widths))
    if "architecture" not in headings and sum(left) < fitting < len(widths):
        below = [*range(sum(left)), *range(fitting, len(widths))]

        def part(places: Sequence[int]) -> list[str]:
            return _aligned([headings[i] for i in places], [[cells[i] for i in places] for cells in body], [left[i] for i in places])

        return [*part(range(fitting)), "", *part(below)]
    place = headings.index("architecture") if "architecture" in headings else 0
    room = WIDTH - 2 * (len(widths) - 1) - sum(widths) + widths[place]
    widths[place] = max(min(widths[place], room), len(headings[place]))
    pad = [str.ljust if is_left else str.rjust for is_left in left]

    def line(cells: Sequence[str]) -> str:
        return "  ".join(write(text, width) for write, text, width in zip(pad, cells, widths, strict=True)).rstrip()

    lines = [line(headings), "  ".join("-" * width for width in widths)]
    for cells in body:
        first, *more = textwrap.wrap(cells[place], widths[place], max_lines=LINES, placeholder="…", subsequent_indent="  ")
        lines.append(line([*cells[:place], first, *cells[place + 1 :]]))
        lines += [line([*[""] * place, text, *[""] * (len(cells) - place - 1)]) for text in more]
    return lines


def _wrapped(text: str) -> str:
    return textwrap.fill(text, WIDTH, subsequent_indent="  ", break_on_hyphens=False)


def _markdown(table: HeadToHead) -> str:
    pieces, notes = [], Footnotes()
    for part in parts(table):
        headings, body = part.cells(notes, lambda text: f"**{text}**")
        pieces += [f"### {part.title}", "", _grid(headings, body, ["left" if c.left else "right" for c in part.columns]), ""]
        pieces += [f"- {sentence}" for sentence in part.sentences] + [""] * bool(part.sentences)
    if table.prices:
        headings, body = prices_table(table.prices, named=len(table.runs) > 1)
        alignment = ["left" if heading in ("run", "method") else "right" for heading in headings]
        pieces += [f"### {PRICES}", "", _grid(headings, body, alignment), "", WHAT, ""]
    said = [*table.facts, *table.work]
    pieces += [f"- {line}" for line in said] + [""] * bool(said)
    if table.ranks:
        pieces += ["### Rank correlations", "", ranks_markdown(table.ranks), "", SCORES, ""]
    warned = alarm_lines(table)
    if warned:
        pieces += ["### Alarms of searches", "", *(f"- {line}" for line in warned), ""]
    pieces += [f"- {line}" for line in [*notes.lines(), *conventions(table.blocks)]]
    return "\n".join(pieces)


def ranks_markdown(correlations: Sequence[RankCorrelation]) -> str:
    """A small table: one line per pair of scores."""
    headings, body = ranks_table(correlations, named=len({c.run for c in correlations}) > 1)
    return _grid(headings, body, ["right" if heading in ("architectures", "Spearman") else "left" for heading in headings])


def _grid(headings: Sequence[str], body: Sequence[Sequence[str]], alignment: Sequence[str]) -> str:
    from tabulate import tabulate

    safe = [[text.replace("|", "\\|") for text in line] for line in body]
    return tabulate(safe, headings, tablefmt="github", disable_numparse=True, colalign=alignment)


def frame(table: HeadToHead) -> pd.DataFrame:
    """All rows and columns as a data frame."""
    import pandas as pd

    return pd.DataFrame(_records(table)).assign(why_empty=lambda data: data.pop("why").map(_reasons))


def _reasons(why: dict[str, str]) -> str:
    grouped: dict[str, list[str]] = {}
    for column, reason in why.items():
        grouped.setdefault(reason, []).append(column)
    return "; ".join(f"{', '.join(columns)}: {reason}" for reason, columns in grouped.items())


def _records(table: HeadToHead) -> list[dict[str, Any]]:
    blocks = [*table.blocks, *table.corpora]
    devices = latencies([row for block in blocks for row in block.rows])
    return [{**_data(row, devices), **block.budget.limits(), **_how(block)} for block in blocks for row in block.rows]


def _data(row: Row, devices: Sequence[Column]) -> dict[str, Any]:
    """A row's columns, those of devices that other rows have among them."""
    data = row.data()
    for column in devices:
        if reason := why_empty(column, row):
            data[column.name] = None
            data["why"][column.name] = reason
    return data


def _how(block: Block) -> dict[str, Any]:
    return {"length": block.length, "batch": block.batch, "chosen_on": "search", "quality_on": "validation", "flops_convention": CONVENTION}


def _csv(table: HeadToHead) -> str:
    """RFC 4180, every column of every row, the conventions among them."""
    return frame(table).to_csv(index=False, lineterminator="\n")


def _json(table: HeadToHead) -> str:
    """Strict JSON: what is empty is null, and `why` says why, by column; rows of corpora come last."""
    data = {
        "conventions": conventions(table.blocks),
        "runs": list(table.runs),
        "rows": _finite(_records(table)),
        "sentences": [*(sentence for block in table.blocks for sentence in block.sentences), *table.work],
        "cost_of_tasks_and_budgets": [price.data() for price in table.prices],
        "rank_correlations": [correlation.data() for correlation in table.ranks],
        "diagnostics": _finite([diagnosis.data() for diagnosis in table.diagnoses]),
        "facts": list(table.facts),
    }
    return json.dumps(data, indent=1, allow_nan=False, ensure_ascii=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


FORMATS: dict[str, Callable[[Any], str]] = {"table": _table, "md": _markdown, "tex": latex, "csv": _csv, "json": _json}
