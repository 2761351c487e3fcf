"""The time left: from the rate of what this process has computed, however much was read back from the folder."""

from __future__ import annotations

import io
import re

from rich.console import Console

from workbench.planning import Plan, StageRow
from workbench.progress import Reporter

FIRST, SECOND, THIRD = 100.0, 300.0, 600.0


class Watch:
    """A clock and a reporter of three stages at once; the estimated rate is 1 FLOP a second."""

    def __init__(self) -> None:
        rows = [StageRow("t", "m", str(n), 1, 1, 1, 1, flops, 0) for n, flops in enumerate((FIRST, SECOND, THIRD), start=1)]
        self.now, self.said = 1_000.0, io.StringIO()
        self.reporter = Reporter(Plan(tuple(rows), (), ()), 1.0, Console(file=self.said, width=200), lambda: self.now)

    def finish(self, stage: int, passed: float, seconds: float | None) -> None:
        self.now += passed
        self.reporter.finished("t", "m", str(stage), seconds)

    def left(self) -> str:
        self.reporter.say("t")
        found = re.findall(r"about (.*) left", self.said.getvalue())
        return str(found[-1])


def test_at_first_it_is_an_estimate() -> None:
    assert Watch().left() == "17 min"


def test_the_rate_is_that_of_the_stages_so_far() -> None:
    watch = Watch()
    watch.finish(1, passed=5, seconds=5)
    assert watch.left() == "45 s", "900 FLOPs at 100 in 5 s"
    watch.finish(2, passed=35, seconds=35)
    assert watch.left() == "60 s", "600 FLOPs at 400 in 40 s"


def test_what_is_read_back_does_not_speed_up_what_is_left() -> None:
    """200 FLOPs a second would be right if the 400 FLOPs of the first two stages had been computed in the 2 s."""
    watch = Watch()
    watch.finish(1, passed=1, seconds=100)
    watch.finish(2, passed=1, seconds=300)
    assert watch.left() == "10 min", "600 FLOPs, of which one takes a second"


def test_a_stage_that_was_begun_before_counts_with_the_part_that_was_computed_here() -> None:
    watch = Watch()
    watch.finish(2, passed=15, seconds=60)
    assert watch.left() == "2 min", "700 FLOPs at 5 a second: a quarter of 300 in 15 s"


def test_stages_of_workers_side_by_side_count_with_all_they_computed() -> None:
    """Read one right after the other; 100 seconds each on two workers."""
    watch = Watch()
    watch.reporter.side_by_side = True
    watch.finish(1, passed=100, seconds=100)
    watch.finish(2, passed=0, seconds=100)
    assert watch.left() == "2 min", "600 FLOPs at 400 in 100 s"
    watch = Watch()
    watch.reporter.side_by_side = True
    watch.finish(2, passed=20, seconds=60)
    assert watch.left() == "12 min", "computed before this run: the rate is still the estimate"


def test_time_before_a_new_beginning_says_nothing_of_the_rate() -> None:
    """800 s of tuning, then a stage of workers side by side, and one that they had computed before."""
    watch = Watch()
    watch.reporter.side_by_side = True
    watch.finish(2, passed=800, seconds=None)
    watch.reporter.begin_anew()
    watch.finish(1, passed=10, seconds=10)
    assert watch.left() == "60 s", "600 FLOPs at 100 in 10 s"


def test_a_search_whose_time_is_not_known_says_nothing_of_the_rate() -> None:
    watch = Watch()
    watch.finish(1, passed=10, seconds=10)
    watch.finish(2, passed=2, seconds=None)
    assert watch.left() == "60 s", "600 FLOPs at 10 a second"


def test_what_was_read_back_in_no_time_leaves_the_estimate() -> None:
    watch = Watch()
    watch.finish(1, passed=0, seconds=100)
    assert watch.left() == "15 min", "900 FLOPs at the estimated rate"
