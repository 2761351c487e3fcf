"""Whole networks on this machine, under the setting of a device's profile, where the profile is of this machine.

A machine at work is slower than the idle one that was profiled: what runs beside takes caches and memory from it. So a network's parts,
whose seconds on the idle machine are known, are timed in the same rounds, and tell how much slower it is now.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from methods.latency import Fingerprint, LatencyTable, key_of, pieces_of
from methods.layers.part import Piece
from methods.network import NetworkSpec
from search.latency.apart import Measure, Setting, measure_apart
from search.latency.backends import BACKENDS
from search.latency.measure import unheard
from search.latency.subject import Finished

PARTS = 12
"""So many parts of a network tell how fast the machine is."""
NOISE = 0.03
"""By so much the sum of these differs from one measurement to the next on an idle machine."""


def another_device(seen: Fingerprint) -> str:
    """How this machine differs from the one with that fingerprint, in words; empty where they are the same."""
    import torch

    if seen.backend not in BACKENDS:
        return f"this version has no backend {seen.backend}"
    if missing := BACKENDS[seen.backend].missing():
        return f"the backend {seen.backend} needs {missing} here"
    if seen.device == "cuda" and not torch.cuda.is_available():
        return "torch sees no GPU here"
    from search.latency.worker import fingerprint

    here = fingerprint(asdict(Setting.of(seen, 0)))
    for name in Fingerprint.model_fields:
        there, this = getattr(seen, name), getattr(here, name)
        if there != this:
            return f"the profile is of another device: {name} is {there or 'not known'} there and {this} here"
    return ""


@dataclass(frozen=True)
class TimedHere:
    """A network's seconds as they are on the machine that was profiled: as measured, over `slower` (1.0 within `NOISE`)."""

    seconds: float
    slower: float
    runs: int


def time_here(
    networks: Sequence[Finished | NetworkSpec], table: LatencyTable, seconds: float, measure: Measure = measure_apart
) -> tuple[list[TimedHere], tuple[str, ...]]:
    """Each for about `seconds`, all in the same rounds as their parts; and what disturbed the measurement."""
    parts = [_dearest(_spec(network), table) for network in networks]
    pieces = {key: piece for some in parts for key, piece in some.items()}
    measured = measure([*networks, *pieces.values()], Setting.of(table.fingerprint, seconds * len(networks)), unheard)
    now = dict(zip(pieces, (timing.mean for timing in measured.timings[len(networks) :]), strict=True))
    found = []
    for timing, some in zip(measured.timings, parts, strict=False):
        ratio = sum(now[key] for key in some) / sum(table.parts[key].mean for key in some) if some else 1.0
        slower = ratio if abs(ratio - 1) > NOISE else 1.0
        found.append(TimedHere(timing.mean / slower, slower, timing.n))
    return found, measured.warnings


def _dearest(spec: NetworkSpec, table: LatencyTable) -> dict[str, Piece]:
    """Those `PARTS` of its measured parts, by their key, that take most of its time."""
    pieces = {key_of(piece): piece for piece in pieces_of(spec)}
    count = Counter(key_of(piece) for piece in pieces_of(spec))
    known = sorted((key for key in pieces if key in table.parts), key=lambda key: -count[key] * table.parts[key].mean)
    return {key: pieces[key] for key in known[:PARTS]}


def _spec(network: Finished | NetworkSpec) -> NetworkSpec:
    return network.spec if isinstance(network, Finished) else network
