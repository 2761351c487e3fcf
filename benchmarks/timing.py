"""Ratios that hold on a busy machine: what is compared runs in turns in one process and is timed by the process's processor time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Turns:
    """Processor seconds of each run in each round."""

    seconds: Mapping[str, npt.NDArray[np.float64]]

    def median(self, name: str) -> float:
        return float(np.median(self.seconds[name]))

    def ratio(self, name: str, *others: str) -> float:
        """Median over rounds of the run's seconds over the sum of the others' in the same round."""
        return float(np.median(self.seconds[name] / sum(self.seconds[other] for other in others)))


def in_turns(runs: Mapping[str, Callable[[], object]], rounds: int, warm: int = 1) -> Turns:
    """Every run once in each round, each round beginning one place further; `warm` rounds before are not counted."""
    names, seconds = list(runs), {name: np.empty(rounds) for name in runs}
    for i in range(-warm, rounds):
        first = i % len(names)
        for name in [*names[first:], *names[:first]]:
            started = time.process_time()
            runs[name]()
            if i >= 0:
                seconds[name][i] = time.process_time() - started
    return Turns(seconds)
