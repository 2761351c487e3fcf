"""Has a worker process measure: neither its threads nor its caches are those of the caller."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from methods.latency import Fingerprint, Timing
from search.latency.measure import Heard, unheard
from search.latency.subject import Subject, modules_of, to_dict


@dataclass(frozen=True)
class Setting:
    """How to measure: `batch` texts of `length` tokens, `threads` within an operation, for about `seconds` in all.

    `device`: `cpu` or `cuda`. `runs`: so many of each part and network, however long they take; 0: as many as the time allows.
    """

    backend: str = "torch"
    device: str = "cpu"
    batch: int = 1
    length: int = 128
    threads: int = 1
    seconds: float = 300.0
    runs: int = 0
    seed: int = 0

    @classmethod
    def of(cls, seen: Fingerprint, seconds: float) -> Setting:
        """That of a device's profile."""
        return cls(seen.backend, seen.device, seen.batch, seen.length, seen.threads, seconds)


@dataclass(frozen=True)
class Measured:
    """Times in the order of the subjects, the device, and what disturbed the measurement."""

    timings: tuple[Timing, ...]
    fingerprint: Fingerprint
    warnings: tuple[str, ...] = ()


Measure = Callable[[Sequence[Subject], Setting, Heard], Measured]


def measure_apart(subjects: Sequence[Subject], setting: Setting, heard: Heard = unheard) -> Measured:
    """Measures all subjects in one worker. Raises RuntimeError where it fails; its own message is on standard error."""
    request = {"setting": asdict(setting), "modules": modules_of(subjects), "subjects": [to_dict(subject) for subject in subjects]}
    threads = {name: str(setting.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    environment = {**os.environ, **threads, "PYTHONPATH": os.pathsep.join(path or os.curdir for path in sys.path)}
    command = [sys.executable, "-m", "search.latency.worker"]
    last: dict[str, object] = {}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as worker:
        assert worker.stdin and worker.stdout
        try:
            try:
                json.dump(request, worker.stdin)
                worker.stdin.close()
            except BrokenPipeError:
                pass  # it has ended; its exit code says so below
            for line in worker.stdout:
                last = json.loads(line)
                if "done" in last:
                    heard(float(str(last["done"])))
        except BaseException:
            worker.kill()
            raise
    if worker.returncode or "measured" not in last:
        raise RuntimeError(f"the process that measures latency ended with {worker.returncode}")
    answer = last["measured"]
    assert isinstance(answer, dict)
    timings = tuple(Timing.model_validate(data) for data in answer["timings"])
    return Measured(timings, Fingerprint.model_validate(answer["fingerprint"]), tuple(answer["warnings"]))
