"""What a run is at, and about how long it will take: lines on stderr between the bars of the stages."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from rich.console import Console

from methods.training.processes import is_main_process
from workbench.planning import Plan, StageRow
from workbench.speed import duration


@dataclass
class Reporter:
    """Knows the plan; the time left comes from planned FLOPs and the rate of what this process has computed so far, at first an
    estimated one. `clock`: seconds. `side_by_side`: others compute several stages at once, which this process then reads."""

    plan: Plan
    rate: float
    console: Console = field(default_factory=lambda: Console(file=sys.stderr, highlight=False, quiet=not is_main_process()))
    clock: Callable[[], float] = time.monotonic
    side_by_side: bool = False
    _done: float = 0.0
    _timed: tuple[float, float] = (0.0, 0.0)
    _last: float = 0.0
    _began: float = 0.0

    def __post_init__(self) -> None:
        self.begin_anew()

    def begin_anew(self) -> None:
        """What has passed so far, and what was computed in it, says nothing of the rate from here on."""
        self._timed = (0.0, 0.0)
        self._last = self._began = self.clock()

    def say(self, *words: str) -> None:
        """One line: what comes now, what part of the work is done, and the time left."""
        total = self.plan.flops or 1.0
        left = max(0.0, total - self._done) / self.rate
        state = f"({self._done / total:.0%} done, about {duration(left)} left)"
        self.console.print(f"{' · '.join(words)}  {state}", soft_wrap=True, markup=False)

    def finished(self, task: str, who: str, stage: str, seconds: float | None = None) -> None:
        """A stage has ended that took so many seconds of computing, runs before this one counted in; where that is not known it says
        nothing of the rate. What took longer than the time since the last one was read back, all or in part: that part counts as done,
        but not for the rate. Side by side the rate is that of all stages that can have been computed since the beginning."""
        now = self.clock()
        passed, self._last = now - self._last, now
        flops = sum(_part(row, stage) for row in self.plan.stages if (row.task, row.who) == (task, who))
        self._done = min(self._done + flops, self.plan.flops)
        if seconds is None:
            return
        if self.side_by_side:
            since = now - self._began
            self._timed = self._timed[0] + (flops if seconds <= since else 0.0), since
        else:
            own = min(1.0, passed / seconds) if seconds > 0 else 1.0
            self._timed = self._timed[0] + own * flops, self._timed[1] + passed
        if self._timed[0] > 0 and self._timed[1] > 1.0:
            self.rate = self._timed[0] / self._timed[1]


def _part(row: StageRow, stage: str) -> float:
    """FLOPs of a row that a stage stands for: all where it has its name, a share where it is one run (`finetune-lr1e-05`) of several.
    Stages of one architecture have its id behind their name."""
    name = re.sub("-[0-9a-f]{12}$", "", stage)
    if row.stage in (stage, name):
        return row.flops
    return row.flops / max(1, row.subnetworks) if name.startswith(f"{row.stage}-") else 0.0
