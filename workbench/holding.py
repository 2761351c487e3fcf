"""One run at a time in a folder, and what a run that was killed left there half done."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from methods.errors import UserError
from methods.training.checkpoint import CHECKPOINTS
from methods.training.stage import DONE, read_mark

HALF_WRITTEN = ".part"
_FOLDER = re.compile(r"\.[0-9a-f]{32}\.part$")


@contextmanager
def locked(folder: Path) -> Iterator[bool]:
    """Whether this process alone holds the folder, as far as the system can tell; the lock ends with the process. Raises UserError where
    another one holds it."""
    try:
        import fcntl

        place = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):
        yield False
        return
    try:
        try:
            fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = True
        except BlockingIOError as error:
            raise UserError(f"{folder}: another run works in this folder; wait for its end, or choose another with --output") from error
        except OSError:
            held = False
        yield held
    finally:
        os.close(place)


def remove_leftovers(folder: Path) -> list[Path]:
    """Removes half-written files and folders, and checkpoints of stages that are finished; returns what is gone.

    Nobody may write in the folder meanwhile. What was measured or trained stays, and so does a checkpoint beside a damaged mark.
    """
    gone = []
    for place, folders, files in os.walk(folder):
        half = [name for name in folders if _FOLDER.search(name)]
        folders[:] = [name for name in folders if name not in half]
        over = CHECKPOINTS if DONE in files and _finished(Path(place)) else ()
        gone += [Path(place, name) for name in (*half, *files) if name in half or name.endswith(HALF_WRITTEN) or name in over]
    for path in gone:
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    return gone


def _finished(stage: Path) -> bool:
    try:
        read_mark(stage)
    except UserError:
        return False
    return True
