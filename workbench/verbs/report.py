"""`report`: one self-contained HTML page of one or several runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from methods.errors import UserError


def report(runs: Sequence[Path | str] | Path | str, output: Path | str | None = None, say: Callable[[str], None] = lambda _: None) -> Path:
    """Writes the page (default: `report/report.html` of the first run) and its figures beside it; `say` is told what is being made.

    Returns the page's path. Raises UserError where a folder is no run, nothing was measured, or the page can't be written.
    """
    if output is not None and Path(output).is_dir():
        raise UserError(f"--output {output}: is a directory; name a file")
    from analysis.report import report as made

    return made(runs, output, say)
