"""From measurements of one row's networks to the cells of that row."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from analysis.description import describe
from analysis.paired import interval
from analysis.spending import Cells
from analysis.statistics import mean_and_spread
from search.measurement import BYTES

if TYPE_CHECKING:
    from analysis.runs import Run
    from methods.costs import Costs
    from methods.space import Architecture
    from search.measurement import Measurement

GAP_COLUMNS = ("gap", "retention")
QUALITY_COLUMNS = ("quality", "spread", "lowest", "highest", "interval_low", "interval_high", *GAP_COLUMNS)
COST_COLUMNS = ("embedding_parameters", "other_parameters", "flops")
NO_VALIDATION = "not measured on validation"


def quality_cells(run: Run, measured: Sequence[Measurement], teacher: Measurement | None) -> Cells:
    """Mean, spread, range, interval over examples, and the gap to the teacher, of networks measured on `validation`."""
    if not measured:
        return Cells({}, dict.fromkeys(QUALITY_COLUMNS, NO_VALIDATION))
    qualities = [m.quality for m in measured]
    if not all(map(math.isfinite, qualities)):
        return Cells({}, dict.fromkeys(QUALITY_COLUMNS, "not a finite number: the training diverged"))
    mean, spread = mean_and_spread(qualities)
    between = interval(run, measured)
    values = {
        "quality": mean,
        "also": _others(measured),
        "spread": spread,
        "lowest": min(qualities),
        "highest": max(qualities),
        "networks": len(measured),
        "seeds": len({m.seed for m in measured}),
        "measured": tuple(measured),
    }
    why = {} if spread is not None else {"spread": "one network"}
    if between is None:
        why |= dict.fromkeys(("interval_low", "interval_high"), "per-example predictions were not kept")
    else:
        values |= {"interval_low": between[0], "interval_high": between[1]}
    to_teacher = gap_cells(mean, teacher)
    return Cells(values | to_teacher.values, why | to_teacher.why)


def _others(measured: Sequence[Measurement]) -> dict[str, float]:
    """Means of the metrics besides the main one that all of these have."""
    names = [name for name in measured[0].metrics if name not in (measured[0].metric, *BYTES) and all(name in m.metrics for m in measured)]
    return {name: fmean(m.metrics[name] for m in measured) for name in names}


def gap_cells(quality: float, teacher: Measurement | None) -> Cells:
    """Quality less the teacher's in points, and over the teacher's."""
    if teacher is None or not math.isfinite(teacher.quality):
        reason = "the teacher was not measured on validation" if teacher is None else "the teacher's quality is not a finite number"
        return Cells({}, dict.fromkeys(GAP_COLUMNS, reason))
    gap = round(100 * (quality - teacher.quality), 9)
    if teacher.quality <= 0:
        return Cells({"gap": gap}, {"retention": "the teacher's quality is not above 0"})
    return Cells({"gap": gap, "retention": quality / teacher.quality}, {})


def cost_cells(costs: Sequence[Costs]) -> Cells:
    """Mean costs of the networks; the latency of devices that are known of all of them."""
    values: dict[str, Any] = {name: fmean(getattr(c, name) for c in costs) for name in COST_COLUMNS}
    for kind in ("latency", "latency_measured"):
        seconds: list[Mapping[str, float]] = [getattr(c, kind) for c in costs]
        values[kind] = {device: fmean(s[device] for s in seconds) for device in seconds[0] if all(device in s for s in seconds)}
    return Cells(values, {})


def architecture_cells(architectures: Sequence[Architecture]) -> Cells:
    """The architecture in words, and its id; where seeds differ, every one once."""
    different = list(dict.fromkeys(architectures))
    text = "; ".join(describe(a) for a in different)
    if len(different) > 1:
        text = f"{len(different)} different: {text}"
    return Cells({"architecture": text, "architecture_id": " ".join(a.id for a in different)}, {})


def together(*cells: Cells) -> Cells:
    """Several groups of cells as one."""
    values, why = {}, {}
    for part in cells:
        values.update(part.values)
        why.update(part.why)
    return Cells(values, why)
