"""Parts of a run that fail are told, noted in the archive and left out; the rest goes on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from methods.errors import StageError
from search.archive import Archive
from workbench.progress import Reporter

FAILED = "failed"


@dataclass
class Failures:
    """`told`: what failed in this run, one line each."""

    archive: Archive
    reporter: Reporter
    told: list[str] = field(default_factory=list)

    @contextmanager
    def kept(self, *where: str) -> Iterator[None]:
        """A stage that comes to no end ends this part of the run alone. Once the part is done a note of an earlier failure goes."""
        about = ", ".join((*where, FAILED))
        try:
            yield
        except StageError as error:
            self.reporter.say(*where, f"{FAILED}: {error}")  # first: a disk that is full takes no note
            self.told.append(f"{about}: {error}")
            self.archive.note(about, str(error))
        else:
            self.archive.forget(about)
