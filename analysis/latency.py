"""In words: how fast the networks that ship are, against what the device's table predicted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from analysis.description import SHORT_ID
from methods.budget import amount

if TYPE_CHECKING:
    from analysis.runs import Run
    from methods.budget import Budget
    from methods.space import Architecture
    from search.timings import Timed


def latency_sentences(run: Run, task: str, method: str, budget: Budget) -> list[str]:
    """Which networks broke a limit that the table said they keep, and why others were not measured."""
    found = []
    for limited, limit in budget.limits().items():
        mine = [t for t in run.timed.values() if (t.task, t.method, f"max_latency.{t.device}") == (task, method, limited)]
        found += [_broke(one, limited, limit) for one in mine if one.measured is not None and one.predicted <= limit < one.measured]
        reasons = dict.fromkeys(one.why for one in mine if one.measured is None)
        found += [f"{method}: no latency was measured for {limited.partition('.')[2]}: {why}." for why in reasons]
    return found


def why_not_timed(run: Run, task: str, architectures: Sequence[Architecture]) -> dict[str, str]:
    """By column (`latency_measured.<device>`) why one of these networks was not measured there."""
    ids = {architecture.id for architecture in architectures}
    mine = [t for t in run.timed.values() if t.task == task and t.architecture in ids and t.measured is None]
    return {f"latency_measured.{one.device}": f"not measured: {one.why}" for one in mine}


def _broke(one: Timed, limited: str, limit: float) -> str:
    predicted, measured = (amount(limited, value) for value in (one.predicted, one.measured or 0.0))
    return (
        f"{one.method}: {one.architecture[:SHORT_ID]} breaks its limit of {amount(limited, limit)} on {one.device}: {predicted} predicted, "
        f"{measured} measured; the next best takes its place."
    )
