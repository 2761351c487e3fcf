"""`plan`: what a run will do and cost, before anything is trained."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from methods.budget import amount
from methods.costs import CONVENTION
from workbench.folder import hardware, settle
from workbench.loading import load_experiment
from workbench.planning import BudgetRow, Plan, StageRow, make_plan
from workbench.sizes import backbone_config
from workbench.speed import SHARE, duration, matmul_rate
from workbench.text import columns


@dataclass(frozen=True)
class Planned:
    """A plan with the rate at which this machine is thought to work, in FLOPs per second."""

    plan: Plan
    rate: float
    threads: int

    def seconds(self, row: StageRow) -> float:
        return row.all_flops / self.rate

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        data = self.plan.to_dict()
        for stage, row in zip(data["stages"], self.plan.stages, strict=True):
            stage["estimated_seconds"] = self.seconds(row)
        return {**data, "estimated_rate": self.rate, "threads": self.threads}

    def render(self, form: str = "table") -> str:
        """`table` or `json`."""
        if form == "json":
            return json.dumps(self.to_dict(), indent=1)
        head = ["task", "method", "stage", "times", "sub-nets", "steps", "examples", "TFLOPs", "memory", "time"]
        body = [[*_cells(row), duration(self.seconds(row))] for row in self.plan.stages]
        seconds: dict[str, float] = {}
        for row in self.plan.stages:
            seconds[row.who] = seconds.get(row.who, 0.0) + self.seconds(row)
        by_method = ", ".join(f"{who} {duration(time)}" for who, time in seconds.items())
        notes = list(dict.fromkeys(f"{row.who}, {row.stage}: {row.note}" for row in self.plan.stages if row.note))
        return "\n".join(
            [
                *columns(head, body, left=3),
                f"in all {self.plan.flops / 1e12:,.1f} TFLOPs, about {duration(sum(seconds.values()))} ({by_method}); "
                f"an estimate from this machine's matrix products ("
                f"{self.rate / SHARE / 1e9:,.0f} GFLOP/s with {self.threads} threads, of which {SHARE:.0%} are expected)",
                "",
                *columns(["task", "method", "budget", "smallest", "largest", "meet it"], map(_budget, self.plan.budgets), left=3),
                *[f"no architecture of {row.method} meets {row.budget} (task {row.task})" for row in self.plan.budgets if not row.possible],
                "",
                *[f"- {note}" for note in (*self.plan.notes, *notes)],
                f"- FLOPs: {CONVENTION}; training 3 x forward",
            ]
        )


def plan(experiment: Path | str, set: Sequence[str] = ()) -> Planned:
    """Plans an experiment file; trains nothing, reads no weights. Raises UserError."""
    loaded = load_experiment(experiment, set)
    options = settle(loaded.hardware, None, present=False)
    made = make_plan(loaded, str(experiment))
    shape, _ = backbone_config(loaded.backbone)
    threads = hardware(options).threads
    return Planned(made, SHARE * matmul_rate(shape, threads, options.precision), threads)


def _cells(row: StageRow) -> list[str]:
    counts = [f"{count:,}" if count else "" for count in (row.subnetworks, row.steps, row.examples)]
    return [row.task, row.who, row.stage, str(row.times), *counts, f"{row.all_flops / 1e12:,.2f}", f"{row.memory / 2**20:,.0f} MiB"]


def _budget(row: BudgetRow) -> list[str]:
    def amounts(values: dict[str, float]) -> str:
        return ", ".join(amount(name, values[name]) for name in row.limits)

    if not row.possible:
        share = "none: below the smallest" if any(row.least[name] > limit for name, limit in row.limits.items()) else "none"
    elif row.counted:
        share = f"{row.fitting:,} of {row.size:,}"
    else:
        share = f"about {row.fitting / row.of:.1%} of {row.size:.3g} (of {row.of:,} drawn)"
    return [row.task, row.method, row.budget, amounts(row.least), amounts(row.most), share]
