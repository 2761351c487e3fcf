"""Plain columns for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def columns(head: Sequence[str], body: Iterable[Sequence[str]], left: int = 1) -> list[str]:
    """Lines with a heading and a rule; the first `left` columns are flush left, the others flush right."""
    rows = [list(head), *map(list, body)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]

    def line(row: Sequence[str]) -> str:
        cells = (text.ljust(width) if i < left else text.rjust(width) for i, (text, width) in enumerate(zip(row, widths, strict=True)))
        return "  ".join(cells).rstrip()

    return [line(rows[0]), "  ".join("-" * width for width in widths), *map(line, rows[1:])]
