"""The archive of processes that were launched together: the main process alone opens it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from methods.training.processes import by_main_process, is_main_process, processes
from search.archive import Archive

READING = ("get", "find", "find_stopped", "measurements", "stopped", "predictions", "stages", "searches", "notes")


def archive_of_main(location: Path | str, folder: Path) -> Archive:
    """The archive (a path or a URL; its predictions in `folder`), where there is one process; else what answers like it in each of them."""
    return Archive(location, folder) if processes() == 1 else cast(Archive, _ArchiveOfMain(location, folder))


class _ArchiveOfMain:
    """What the main process reads is everybody's; what others write goes nowhere, since the main process writes the same."""

    def __init__(self, location: Path | str, folder: Path) -> None:
        self.name, self._own = str(location), Archive(location, folder) if is_main_process() else None

    def __getattr__(self, method: str) -> Callable[..., Any]:
        def called(*values: Any, **named: Any) -> Any:
            return getattr(self._own, method)(*values, **named) if self._own else None

        if method in READING:
            return lambda *values, **named: by_main_process(lambda: called(*values, **named))
        return called
