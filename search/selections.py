"""`Selection`: what a rule or a strategy found under a budget; kept in the archive, so that tables can set them side by side."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from methods.errors import UserError
from methods.space import Architecture
from search.timings import PREFIX as LATENCY

if TYPE_CHECKING:
    from search.archive import Archive

_PREFIX = "selection "


@dataclass(frozen=True)
class Selection:
    """`by`: a search strategy, or what the method calls its own rule. `limits`: those of the budget, none without one. `architecture`:
    None where nothing was found."""

    task: str
    method: str
    seed: int
    by: str
    limits: Mapping[str, float] = field(default_factory=dict)
    architecture: Architecture | None = None


def keep_selection(archive: Archive, selection: Selection) -> None:
    """Keeps it; a later one of the same rule under the same budget takes the place of an earlier one."""
    s = selection
    about = {"task": s.task, "method": s.method, "seed": s.seed, "by": s.by, "limits": dict(s.limits)}
    archive.note(_PREFIX + json.dumps(about, sort_keys=True), s.architecture.to_json() if s.architecture else "")


def selections(archive: Archive) -> list[Selection]:
    """All that were kept and found something. Raises UserError where one is damaged."""
    found = []
    for about, text in archive.notes().items():
        if about.startswith(_PREFIX) and text:
            try:
                found.append(Selection(**json.loads(about.removeprefix(_PREFIX)), architecture=Architecture.from_json(text)))
            except (ValueError, TypeError, KeyError) as error:
                raise UserError(f"{archive.name}: a selection in it is damaged ({error})") from error
    return found


def facts(archive: Archive) -> dict[str, str]:
    """What `Archive.note` kept for people to read: all notes but selections and latencies."""
    return {about: text for about, text in archive.notes().items() if not about.startswith((_PREFIX, LATENCY))}
