"""Progress with the time left, on standard error: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
from typing import Any

from tqdm.auto import tqdm

from methods.training.processes import is_main_process


def progress_bar(total: int | None, description: str, done: int = 0) -> Any:
    """A tqdm bar of `total` units (None: nobody knows) of which `done` are done; `update(n)`, `set_postfix`, `close()`. Of processes
    that were launched together the main one shows it."""
    terminal = sys.stderr.isatty()
    return tqdm(
        total=total,
        initial=done,
        desc=description,
        dynamic_ncols=terminal,
        ncols=None if terminal else 100,
        mininterval=0.3 if terminal else 30.0,
        file=sys.stderr,
        leave=True,
        disable=not is_main_process(),
    )
