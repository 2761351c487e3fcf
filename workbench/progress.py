"""What a run is at, and about how long it will take: lines on stderr between the bars of the stages."""

from __future__ import annotations

import re
import sys
import time
from dataclasses import dataclass, field

from rich.console import Console

from workbench.planning import Plan, StageRow
from workbench.speed import duration


@dataclass
class Reporter:
    """Knows the plan; the time left comes from planned FLOPs and the rate of this run so far, at first an estimated one."""

    plan: Plan
    rate: float
    console: Console = field(default_factory=lambda: Console(file=sys.stderr, highlight=False))
    _done: float = 0.0
    _timed: tuple[float, float] = (0.0, 0.0)
    _last: float = field(default_factory=time.monotonic)

    def say(self, *words: str) -> None:
        """One line: what comes now, what part of the work is done, and the time left."""
        total = self.plan.flops or 1.0
        left = max(0.0, total - self._done) / self.rate
        state = f"({self._done / total:.0%} done, about {duration(left)} left)"
        self.console.print(f"{' · '.join(words)}  {state}", soft_wrap=True, markup=False)

    def finished(self, task: str, who: str, stage: str) -> None:
        """A stage has ended; what took no time to speak of was read back and says nothing of the rate."""
        now = time.monotonic()
        flops = sum(_part(row, stage) for row in self.plan.stages if (row.task, row.who) == (task, who))
        self._done = min(self._done + flops, self.plan.flops)
        if now - self._last > 1.0:
            self._timed = self._timed[0] + flops, self._timed[1] + now - self._last
            if self._timed[0] > 0:
                self.rate = self._timed[0] / self._timed[1]
        self._last = now


def _part(row: StageRow, stage: str) -> float:
    """FLOPs of a row that a stage stands for: all where it has its name, a share where it is one run (`finetune-lr1e-05`) of several.
    Stages of one architecture have its id behind their name."""
    name = re.sub("-[0-9a-f]{12}$", "", stage)
    if row.stage in (stage, name):
        return row.flops
    return row.flops / max(1, row.subnetworks) if name.startswith(f"{row.stage}-") else 0.0
