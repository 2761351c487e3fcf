"""Which row of a budget is best, and is that more than luck? Every row is tested against the best one, corrected after Holm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from analysis.controls import TEACHER, int8_name
from analysis.paired import Comparison, NoTestError, answers, compared
from analysis.rows import Block, Row

if TYPE_CHECKING:
    from analysis.paired import Answers
    from analysis.runs import Run

LEVEL = 0.05
COLUMNS = ("difference", "difference_low", "difference_high", "test", "p_value", "p_holm")
"""What this adds to a row; `difference` is known without a test."""


def tested(block: Block, runs: Mapping[str, Run]) -> Block:
    """The block with every row set against its best one: the highest mean quality on `validation`, of equals the one of fewer FLOPs.

    The teacher takes no part, for it need not meet the budget. `runs`: by the names that rows call them. The best row is the `winner`
    where each of its rivals (`_are_rivals`) is worse: by the corrected test, and in every seed that both have.
    """
    rivals = [row for row in block.rows if row.quality is not None and row.row != TEACHER]
    if len(rivals) < 2:
        return replace(block, rows=tuple(_empty(row, _why_alone(row, rivals)) for row in block.rows))
    best = max(rivals, key=lambda row: (row.quality or 0.0, -(row.flops or 0.0)))
    given = {id(row): _answers(row, runs) for row in rivals}
    rows = {id(row): _against(row, best, given, len(rivals) - 1) for row in rivals if row is not best}
    corrected = _holm([row.p_value for row in rows.values()])
    rows = {key: replace(row, p_holm=p) for (key, row), p in zip(rows.items(), corrected, strict=True)}
    others = [row for row in rows.values() if _are_rivals(row, best)]
    sure = bool(others) and all(_beaten(row, best) for row in others)
    rows[id(best)] = _empty(replace(best, best=True, difference=0.0, winner=sure), "is the best")
    return replace(block, rows=tuple(rows.get(id(row)) or _empty(row, _why_out(row)) for row in block.rows))


def _are_rivals(row: Row, best: Row) -> bool:
    """Not where both are what the same method of the same run found: by another way of searching, or the best one in 8 bit."""
    same = (row.run, row.method) == (best.run, best.method)
    return not same or best.kind == "control" or (row.kind == "control" and row.row != int8_name(row.method))


def _against(row: Row, best: Row, given: Mapping[int, Answers | str], tests: int) -> Row:
    """With the difference to the best and its test, one of so many, or why there is none."""
    assert row.quality is not None and best.quality is not None
    apart = replace(row, difference=100 * (row.quality - best.quality))
    ours, theirs = given[id(row)], given[id(best)]
    if isinstance(ours, str) or isinstance(theirs, str):
        return _empty(apart, ours if isinstance(ours, str) else f"the best row: {theirs}")
    try:
        found: Comparison = compared(ours, theirs, tests)
    except NoTestError as error:
        return _empty(apart, str(error))
    low, high = 100 * found.low, 100 * found.high
    return replace(apart, difference_low=low, difference_high=high, test=found.test.name, p_value=found.test.p_value)


def _answers(row: Row, runs: Mapping[str, Run]) -> Answers | str:
    try:
        return answers(runs[row.run], row.measured)
    except NoTestError as error:
        return str(error)


def _holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's correction over those that are known (Holm 1979)."""
    from statsmodels.stats.multitest import multipletests

    known = [p for p in p_values if p is not None]
    corrected = iter(multipletests(known, method="holm")[1].tolist() if known else [])
    return [None if p is None else next(corrected) for p in p_values]


def _beaten(row: Row, best: Row) -> bool:
    """Worse by the test, and in every seed that both have."""
    ours, theirs = _by_seed(row), _by_seed(best)
    every = all(ours[seed] < theirs[seed] for seed in ours.keys() & theirs.keys())
    return row.p_holm is not None and row.p_holm < LEVEL and (row.difference or 0.0) < 0 and every


def _by_seed(row: Row) -> dict[int, float]:
    seeds = {m.seed for m in row.measured}
    return {seed: float(np.mean([m.quality for m in row.measured if m.seed == seed])) for seed in seeds}


def _empty(row: Row, reason: str) -> Row:
    """With the reason in every cell of this module that is empty."""
    return replace(row, why={**row.why, **{name: reason for name in COLUMNS if getattr(row, name) is None}})


def _why_alone(row: Row, rivals: Sequence[Row]) -> str:
    return "no other row to compare with" if row in rivals else _why_out(row)


def _why_out(row: Row) -> str:
    return "the teacher need not meet the budget" if row.row == TEACHER else row.why.get("quality", "no quality")
