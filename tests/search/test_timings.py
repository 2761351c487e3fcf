"""Measured latencies in the archive: limits hold for them, and another device is told by name."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pytest

from methods.budget import Budget
from methods.costs import Costs
from methods.errors import UserError
from methods.space import Architecture
from search.archive import Archive
from search.latency.apart import Setting
from search.latency.here import another_device
from search.latency.worker import fingerprint
from search.measurement import Measurement
from search.query import Answer, best
from search.selections import facts
from search.timings import PREFIX, Timed, as_measured, keep_timed, timed_in

SLOW, FAST = (Architecture.of("toy", {"n": n}) for n in (2, 1))
LIMIT = Budget(max_latency={"laptop": 0.010})


def measured(architecture: Architecture, quality: float, seconds: float) -> Measurement:
    costs = Costs(1, 1, 1, latency={"laptop": seconds})
    return Measurement(architecture, "demo", "search", "rows", "weights", "shared", 0, "accuracy", {"accuracy": quality}, costs)


def winner(some: list[Measurement]) -> Architecture:
    answer = best(some, LIMIT)
    assert isinstance(answer, Answer)
    return answer.architecture


def test_the_next_best_takes_the_place_of_what_breaks_its_limit(tmp_path: Path) -> None:
    some = [measured(SLOW, 0.9, 0.0095), measured(FAST, 0.8, 0.005)]
    assert winner(some) == SLOW
    with Archive(tmp_path / "archive.db") as archive:
        one = Timed("demo", "toy", SLOW.id, "laptop", 0.0095, 0.0105, 40, finished=True, warnings=("busy",))
        keep_timed(archive, replace(one, measured=0.009, finished=False))
        keep_timed(archive, one)
        assert list(timed_in(archive).values()) == [one] and facts(archive) == {}
        found = as_measured(some, timed_in(archive))
    assert winner(found) == FAST
    assert found[0].costs.latency == {"laptop": 0.0095} and found[0].costs.measured_against()["max_latency.laptop"] == 0.0105


def test_another_task_or_a_network_not_measured_changes_nothing() -> None:
    some = [measured(SLOW, 0.9, 0.0095)]
    others = [Timed("other", "toy", SLOW.id, "laptop", 1, 2), Timed("demo", "toy", SLOW.id, "laptop", 1, None, why="elsewhere")]
    assert as_measured(some, {one.key: one for one in others}) == some


def test_a_damaged_latency_is_refused(tmp_path: Path) -> None:
    with Archive(tmp_path / "archive.db") as archive:
        archive.note(PREFIX + "{}", "{}")
        with pytest.raises(UserError, match="damaged"):
            timed_in(archive)


def test_another_device_is_told_by_what_differs() -> None:
    here = fingerprint(asdict(Setting(batch=2, length=8)))
    assert another_device(here) == ""
    assert "cores is 99 there" in another_device(here.model_copy(update={"cores": 99}))
    assert "no backend abacus" in another_device(here.model_copy(update={"backend": "abacus"}))
