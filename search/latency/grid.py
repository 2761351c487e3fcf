"""Where there are more parts than can be timed: a grid of them is, and between its points seconds lie on straight lines.

Parts that differ in one size alone are a family (the feed-forward layers of one width, by their neurons). Of a family's sizes every second
one is left out, then every second of the rest, first and last never.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from methods.layers.part import Piece
from search.latency.apart import Setting
from search.latency.subject import Subject, copies, flops

RATE, LEAST = 2e10, 1e-4
"""A part is thought to take `LEAST` seconds and its FLOPs at this rate per second and thread: a guess, low for large parts."""
RUNS = 25
"""So many runs of each part and network must fit into the time: warm-ups, ten that are timed, each after one that is not."""
SMALLEST = 5
"""A family is left with at least so many sizes."""


@dataclass(frozen=True)
class Between:
    """A part that is not timed: `share` of the way from the part `low` to `high`, both of which are."""

    low: str
    high: str
    share: float


def families(pieces: Mapping[str, Piece]) -> list[dict[int, str]]:
    """Keys by size, ascending, of pieces that differ in nothing else. A piece is in the largest of the families that it could be in."""
    by_rest: dict[tuple[str, str], dict[int, str]] = {}
    for key in pieces:
        data = json.loads(key)
        for name, value in data.items():
            if type(value) is int:
                rest = json.dumps({**data, name: None})
                by_rest.setdefault((name, rest), {})[value] = key
    taken: set[str] = set()
    found = []
    for family in sorted(by_rest.values(), key=lambda family: (-len(family), min(family.values()))):
        free = {size: family[size] for size in sorted(family) if family[size] not in taken}
        if len(free) > 1:
            taken.update(free.values())
            found.append(free)
    return found


def thinned(pieces: Mapping[str, Piece], networks: Sequence[Subject], setting: Setting) -> dict[str, Between]:
    """The pieces that are left out so that all others and the networks fit into `setting.seconds`, by key; none where all fit.

    Whatever is left of the largest family is halved, until they fit or every family is at its `SMALLEST`.
    """
    seconds = {key: _seconds(piece, setting) for key, piece in pieces.items()}
    total = sum(seconds.values()) + sum(_seconds(network, setting) for network in networks)
    groups = families(pieces)
    kept = [list(family) for family in groups]
    while RUNS * total > setting.seconds and not setting.runs:
        place = max(range(len(kept)), key=lambda i: len(kept[i]), default=None)
        if place is None or len(kept[place]) < 2 * SMALLEST - 1:
            break
        dropped = kept[place][1:-1:2]
        kept[place] = [size for size in kept[place] if size not in dropped]
        total -= sum(seconds[groups[place][size]] for size in dropped)
    found: dict[str, Between] = {}
    for family, sizes in zip(groups, kept, strict=True):
        found |= {family[size]: _between(family, sizes, size) for size in family if size not in sizes}
    return found


def _between(family: Mapping[int, str], sizes: Sequence[int], size: int) -> Between:
    above = bisect_left(sizes, size)
    low, high = sizes[above - 1], sizes[above]
    return Between(family[low], family[high], (size - low) / (high - low))


def _seconds(subject: Subject, setting: Setting) -> float:
    return copies(subject) * (LEAST + setting.batch * flops(subject, setting.length) / (RATE * setting.threads))
