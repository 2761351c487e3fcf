"""Measures in a process of its own: a request as JSON on standard input, lines of JSON on standard output.

`python -m search.latency.worker`. Lines say `{"done": share}` while it measures; the last one is `{"measured": ...}`.
"""

from __future__ import annotations

import json
import os
import platform
import random
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import psutil
import torch

from methods.latency import Fingerprint, Timing
from search.latency.backends import BACKENDS
from search.latency.measure import Call, Heard, Rounds, Timer, by_clock, load_average, measure, signs_of_a_busy_machine, timing, unheard
from search.latency.subject import Subject, copies, from_dict, import_parts, prepared, size

ROOM = 2 << 30
"""Bytes of parameters that may be held at a time on any machine."""
SHARE = 0.25
"""Of the memory that is free so much may be parameters: what is timed in the same rounds was slowed alike."""


def main() -> None:
    request = json.load(sys.stdin)
    torch.set_num_threads(request["setting"]["threads"])
    torch.set_num_interop_threads(1)
    print(json.dumps({"measured": answer(request, lambda share: print(json.dumps({"done": share}), flush=True))}), flush=True)


def answer(request: Mapping[str, Any], heard: Heard = unheard) -> dict[str, Any]:
    """Times of all subjects in their order, the device's fingerprint, and what disturbed the measurement."""
    setting = request["setting"]
    import_parts(request["modules"])
    subjects = [from_dict(data) for data in request["subjects"]]
    timings, waited = timed(subjects, setting, heard)
    few = [t.n for t in timings if t.n < 2 * Rounds().least]
    warnings = signs_of_a_busy_machine(timings, setting["threads"], load_average(), waited)
    if few:
        short = f"{setting['seconds']:.0f} s were short"
        warnings.append(f"{short}: {len(few)} of {len(timings)} parts and networks ran {min(few)} times only; allow more seconds")
    return {
        "timings": [t.model_dump() for t in timings],
        "fingerprint": fingerprint(setting).model_dump(),
        "warnings": warnings,
    }


def timed(subjects: Sequence[Subject], setting: Mapping[str, Any], heard: Heard = unheard, room: int | None = None) -> tuple[list[Timing], float]:
    """Groups of subjects that fit into `room`, drawn at random, are measured one after another, each for its share of the time.

    Returns the times and the greatest share of waiting for a processor that is not counted in them (`clock_of`).
    """
    torch.manual_seed(setting["seed"])
    began, end = time.perf_counter(), time.perf_counter() + setting["seconds"]
    rounds = Rounds(setting["runs"], setting["runs"]) if setting["runs"] else Rounds()
    found: dict[int, Timing] = {}
    clock, waited = clock_of(setting), 0.0

    def say(before: float, share: float, part: float) -> None:
        heard(min(1.0, max(before + share * part, (time.perf_counter() - began) / setting["seconds"])))

    for group in groups([size(subject) for subject in subjects], room or max(ROOM, int(SHARE * psutil.virtual_memory().available)), setting["seed"]):
        before = len(found) / len(subjects)
        left = max(0.01, end - time.perf_counter()) * len(group) / (len(subjects) - len(found))
        with torch.inference_mode():
            started, calls = time.perf_counter(), []
            for i in group:
                calls.append(prepared_call(subjects[i], setting))
                say(before, 0.0, 0.0)
            left = max(0.01, left - (time.perf_counter() - started))
            hears = partial(say, before, len(group) / len(subjects))
            runs = measure(calls, left, setting["seed"], rounds, TIMERS[clock], heard=hears)
        found |= {i: timing([each / copies(subjects[i]) for each in values]) for i, values in zip(group, runs.durations, strict=True)}
        waited = max(waited, runs.waited if clock == "processor" else 0.0)
    return [found[i] for i in range(len(subjects))], waited


def prepared_call(subject: Subject, setting: Mapping[str, Any]) -> Call:
    """A call that runs all copies of a subject, one after another on the same arguments."""
    backend = BACKENDS[setting["backend"]]
    modules, arguments = prepared(subject, setting["batch"], setting["length"], setting["device"])
    calls = [backend.prepare(module, arguments) for module in modules]
    if len(calls) == 1:
        return calls[0]

    def in_turn() -> None:
        for call in calls:
            call()

    return in_turn


def cuda_events(call: Call) -> float:
    """Seconds between two events on the GPU's stream, one before and one behind the call."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    call()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1e3


TIMERS: Mapping[str, Timer] = MappingProxyType(
    {"processor": by_clock(time.thread_time), "wall": by_clock(time.perf_counter), "events": cuda_events}
)


def clock_of(setting: Mapping[str, Any]) -> Literal["wall", "processor", "events"]:
    """One thread is timed by its own processor time: what passes on an idle machine, and nothing more on a busy one."""
    if setting["device"] == "cuda":
        return "events"
    return "processor" if setting["threads"] == 1 else "wall"


def groups(sizes: Sequence[int], room: int, seed: int) -> Iterator[list[int]]:
    """The indices in random order, cut where the next one would not fit into `room`."""
    order = list(range(len(sizes)))
    random.Random(seed).shuffle(order)
    group: list[int] = []
    for i in order:
        if group and sum(sizes[j] for j in group) + sizes[i] > room:
            yield group
            group = []
        group.append(i)
    if group:
        yield group


def fingerprint(setting: Mapping[str, Any]) -> Fingerprint:
    """This machine under that setting."""
    same = {name: setting[name] for name in ("backend", "device", "threads", "batch", "length")}
    return Fingerprint(
        processor=torch.cuda.get_device_name() if setting["device"] == "cuda" else processor(),
        runtime=BACKENDS[setting["backend"]].version(),
        cores=os.cpu_count() or 1,
        system=platform.platform(),
        torch=torch.__version__,
        dtype="float32",
        clock=clock_of(setting),
        **same,
    )


def processor() -> str:
    """The processor's name, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
