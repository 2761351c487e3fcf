"""What a run is at, and about how long it will take: lines on stderr between the bars of the stages."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
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
    _left_out: set[tuple[str, str, str, int]] = field(default_factory=set)
    _started: float = field(default_factory=time.monotonic)

    def say(self, *words: str) -> None:
        """One line: what comes now, what part of the work is done, and the time left."""
        total = self.plan.flops or 1.0
        left = max(0.0, total - self._done) / self.rate
        self.console.print(f"[bold]{' · '.join(words)}[/bold]  ({self._done / total:.0%} done, about {duration(left)} left)", soft_wrap=True)

    def done(self, task: str, who: str, stages: Sequence[str], seed: int, seconds: float) -> None:
        """A part of the plan is finished; `seconds` it took just now, next to nothing where it was read back."""
        for stage in stages:
            if (task, who, stage, seed) in self._left_out:
                continue
            self._left_out.add((task, who, stage, seed))
            flops = sum(row.flops for row in self._rows(task, who, stage))
            self._done += flops
            if seconds > 1.0:
                self._timed = self._timed[0] + flops, self._timed[1] + seconds
        if self._timed[1] > 1.0 and self._timed[0] > 0:
            self.rate = self._timed[0] / self._timed[1]

    def _rows(self, task: str, who: str, stage: str) -> list[StageRow]:
        return [row for row in self.plan.stages if (row.task, row.who, row.stage) == (task, who, stage)]
