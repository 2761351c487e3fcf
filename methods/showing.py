"""How objects show themselves in a notebook: a heading and a small table, everything escaped."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

_TABLE = '<table style="font-variant-numeric: tabular-nums">'
_LEFT = ' style="text-align: left"'


def card(heading: str, facts: Mapping[str, Any]) -> str:
    """HTML of a heading and a line for each fact."""
    lines = (f"<tr><th{_LEFT}>{escape(name)}</th><td{_LEFT}>{escape(_text(value))}</td></tr>" for name, value in facts.items())
    return f"<div><b>{escape(heading)}</b>{_TABLE}{''.join(lines)}</table></div>"


def grid(heading: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """HTML of a heading and a table."""
    head = "".join(f"<th{_LEFT}>{escape(name)}</th>" for name in columns)
    body = "".join("<tr>" + "".join(f"<td{_LEFT}>{escape(_text(value))}</td>" for value in row) + "</tr>" for row in rows)
    return f"<div><b>{escape(heading)}</b>{_TABLE}<tr>{head}</tr>{body}</table></div>"


def _text(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.4f}" if abs(value) < 1000 else f"{value:,.0f}"
    return value if isinstance(value, str) else json.dumps(value)
