"""`Timed`: the latency of a chosen network, as a device's table predicts it and as it was measured there; kept in the archive."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from methods.errors import UserError

if TYPE_CHECKING:
    from search.archive import Archive
    from search.measurement import Measurement

PREFIX = "latency "
Key = tuple[str, str, str, str]
"""Task, method, id of the architecture, device."""


@dataclass(frozen=True)
class Timed:
    """Seconds. `measured`: the mean over `runs`, None where `why` says that it was not measured; `finished`: with its own weights, not with
    random ones. `warnings`: what disturbed it. `slower`: how many times as long as in the table the network's parts took beside it, where
    that is more than noise; `measured` is divided by it."""

    task: str
    method: str
    architecture: str
    device: str
    predicted: float
    measured: float | None = None
    runs: int = 0
    why: str = ""
    finished: bool = False
    warnings: tuple[str, ...] = ()
    slower: float = 1.0

    @property
    def key(self) -> Key:
        return self.task, self.method, self.architecture, self.device


def keep_timed(archive: Archive, timed: Timed) -> None:
    """Keeps it; a later one of the same network and device takes the place of an earlier one."""
    data = asdict(timed)
    about = {name: data.pop(name) for name in ("task", "method", "architecture", "device")}
    archive.note(PREFIX + json.dumps(about, sort_keys=True), json.dumps(data))


def timed_in(archive: Archive) -> dict[Key, Timed]:
    """All that were kept. Raises UserError where one is damaged."""
    found = {}
    for about, text in archive.notes().items():
        if about.startswith(PREFIX):
            try:
                data = {**json.loads(about.removeprefix(PREFIX)), **json.loads(text)}
                one = Timed(**{**data, "warnings": tuple(data["warnings"])})
            except (ValueError, TypeError, KeyError) as error:
                raise UserError(f"{archive.name}: a latency in it is damaged ({error})") from error
            found[one.key] = one
    return found


def as_measured(measurements: Iterable[Measurement], timed: Mapping[Key, Timed]) -> list[Measurement]:
    """The same with the measured latency of their architecture on their task: limits hold for that where it is known."""
    seconds: dict[tuple[str, str, str], dict[str, float]] = {}
    for one in timed.values():
        if one.measured is not None:
            seconds.setdefault(one.key[:3], {})[one.device] = one.measured
    found = []
    for m in measurements:
        known = seconds.get((m.task, m.architecture.method, m.architecture.id))
        found.append(replace(m, costs=replace(m.costs, latency_measured=known)) if known else m)
    return found
