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
    """Which networks broke a limit that the table said they keep, what the machine was like, and why others were not measured."""
    found = []
    for limited, limit in budget.limits().items():
        mine = [t for t in run.timed.values() if (t.task, t.method, f"max_latency.{t.device}") == (task, method, limited)]
        found += [_broke(one, limited, limit) for one in mine if one.measured is not None and one.predicted <= limit < one.measured]
        slow = [one.slower for one in mine if one.measured is not None and one.slower != 1]
        if slow:
            found.append(_slower(method, limited.partition(".")[2], slow))
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


def _slower(method: str, device: str, slower: Sequence[float]) -> str:
    networks = f"{len(slower)} networks were" if len(slower) > 1 else "a network was"
    return (
        f"{method}: while {networks} measured on {device}, with other work beside, parts of them took up to {max(slower):.2f} times as "
        "long as in its table; what was measured is divided by that."
    )
