"""Times many calls in turn, so that whatever slows the machine for a while slows all of them alike."""

from __future__ import annotations

import gc
import os
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, median

import numpy as np

from methods.latency import Timing

Call = Callable[[], object]
Clock = Callable[[], float]
Timer = Callable[[Call], float]
Heard = Callable[[float], None]
WARM_UP = 3
WAITED = 0.1
"""Share of waiting above which a machine is thought to be busy."""
SPREAD = 0.25
"""Half the distance from the 10th to the 90th percentile over the median, above which a machine is thought to be busy."""


@dataclass(frozen=True)
class Rounds:
    """At least `least` rounds, whatever the time; at most `most`."""

    least: int = 5
    most: int = 200


@dataclass(frozen=True)
class Runs:
    """Seconds of each run of each call; `waited`: the share of the time on the wall that the clock did not count."""

    durations: list[list[float]]
    waited: float


def unheard(share: float) -> None:
    """Nobody listens."""


def by_clock(clock: Clock) -> Timer:
    """The seconds of a call that a clock counts."""

    def timer(call: Call) -> float:
        before = clock()
        call()
        return clock() - before

    return timer


WALL = by_clock(time.perf_counter)


def measure(
    calls: Sequence[Call],
    seconds: float,
    seed: int = 0,
    rounds: Rounds = Rounds(),
    timer: Timer = WALL,
    wall: Clock = time.perf_counter,
    heard: Heard = unheard,
) -> Runs:
    """Times every call by `timer`: after `WARM_UP` runs of each, rounds in which every call is timed once, in an order of its own.

    Before it is timed a call runs once more, so that its code and what it reads are where they are when a network runs again and again,
    and not where the call before has left them. A further round begins while it is thought to end within `seconds` of the start, by
    `wall`. `heard` is told the share that is done.
    """
    rng, started = random.Random(seed), wall()
    durations: list[list[float]] = [[] for _ in calls]
    order = list(range(len(calls)))
    for call in calls:
        for _ in range(WARM_UP):
            call()
    collecting = gc.isenabled()
    gc.disable()
    try:
        done, taken, begun = 0, 0.0, wall()
        while done < rounds.most:
            now = wall()
            if done >= rounds.least and now + (now - begun) / done > started + seconds:
                break
            rng.shuffle(order)
            for i in order:
                calls[i]()
                whole = wall()
                durations[i].append(timer(calls[i]))
                taken += wall() - whole
            done += 1
            heard(min(1.0, max((wall() - started) / seconds, done / rounds.most)))
    finally:
        if collecting:
            gc.enable()
    counted = sum(map(sum, durations))
    return Runs(durations, max(0.0, 1 - counted / taken) if taken else 0.0)


def timing(durations: Sequence[float]) -> Timing:
    """The statistics of one call's runs."""
    values = np.sort(np.asarray(durations, dtype=np.float64))
    cut = len(values) // 10
    p10, p50, p90 = np.percentile(values, (10, 50, 90)).tolist()
    mean = fmean(values[cut : len(values) - cut].tolist())
    return Timing(mean=mean, std=float(values.std()), p10=p10, p50=p50, p90=p90, n=len(values))


def signs_of_a_busy_machine(timings: Sequence[Timing], threads: int, load: float | None, waited: float = 0.0) -> list[str]:
    """What tells that other work disturbed the times. `load`: the machine's load average, its `threads` of this work included."""
    found = []
    if waited > WAITED:
        found.append(f"other work held the processor for {waited:.0%} of the time; that is not counted, but caches were shared")
    if load is not None and load > threads + 0.5:
        found.append(f"the machine was busy: its load average was {load:.1f}, and {threads} in use here; measure again when it is idle")
    spread = median((t.p90 - t.p10) / (2 * t.p50) for t in timings) if timings else 0.0
    if spread > SPREAD:
        found.append(f"times are spread by {spread:.0%} around their median (more than {SPREAD:.0%}): the machine was busy or throttled")
    return found


def load_average() -> float | None:
    """Processes that ran or waited over the last minute; None where the system does not say."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return None
