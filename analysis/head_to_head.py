"""`head_to_head`: per task and budget the winner of each method beside the controls, from the archives of one or several runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from analysis.best import tested
from analysis.control_rows import control_rows, teacher_row, truncated_row
from analysis.corpus import corpus_block, corpus_work
from analysis.diagnoses import Diagnosis, diagnoses, help_sentences
from analysis.latency import latency_sentences
from analysis.method_row import method_row
from analysis.prices import Price, prices
from analysis.ranks import RankCorrelation, rank_correlations
from analysis.rows import Block, Place, Row, joined
from analysis.runs import Run, open_runs
from analysis.selection_rows import selection_rows
from analysis.verdict import verdict
from analysis.winners import winners
from methods.budget import Budget
from methods.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

Format = Literal["table", "md", "tex", "csv", "json"]


@dataclass(frozen=True)
class HeadToHead:
    """The comparison: a block for each task and budget. `runs` are the names of the runs that were read.

    `corpora`: for each corpus and budget how well pre-trained networks find masked words; `ranks`: how well scores before finishing
    order the networks; `work`: what was done on corpora, in words; `prices`: what n tasks x b budgets cost with each method; `diagnoses`:
    how searches went, where a method tells; `facts`: how things were trained, in words.
    """

    blocks: tuple[Block, ...]
    runs: tuple[str, ...]
    corpora: tuple[Block, ...] = ()
    ranks: tuple[RankCorrelation, ...] = ()
    work: tuple[str, ...] = ()
    prices: tuple[Price, ...] = ()
    diagnoses: tuple[Diagnosis, ...] = ()
    facts: tuple[str, ...] = ()

    @property
    def rows(self) -> list[Row]:
        """Those of the tasks."""
        return [row for block in self.blocks for row in block.rows]

    @property
    def frame(self) -> pd.DataFrame:
        """One line per row, those of corpora last; all columns, missing numbers as NaN, `why_empty` in words, the limits, and the FLOPs'
        length and batch."""
        from analysis.rendering import frame

        return frame(self)

    def render(self, format: Format = "table") -> str:
        """`table` (plain text within 120 columns), `md`, `tex` (booktabs), `csv` or `json`."""
        from analysis.rendering import render

        return render(self, format)

    def __str__(self) -> str:
        return self.render("table")

    def _repr_html_(self) -> str:
        from analysis.html import fragment

        return fragment(self)


def head_to_head(
    runs: Sequence[Path | str] | Path | str, budgets: Sequence[Budget] | None = None, tasks: Sequence[str] | None = None
) -> HeadToHead:
    """Reads the archives of these run folders and sets their methods side by side.

    `budgets` default to those of each run's own experiment, `tasks` to its tasks; a corpus that is named has blocks as a task has.
    Winners are chosen on `search` (finished networks before shared weights) and reported on `validation`. Raises UserError where a folder
    is no run, its archive can't be read, nothing was measured in any, or a task is in none of them.
    """
    opened = open_runs([runs] if isinstance(runs, str | Path) else runs)
    try:
        _check_tasks(opened, tasks)
        blocks, corpora, ranks, found, cost = [], [], [], [], []
        by_name = {run.name: run for run in opened}
        for run in opened:
            for task in [*run.tasks, run.corpus] if tasks is not None else run.tasks:
                if tasks is None or task in tasks:
                    blocks += [_block(run, task, budget, named=len(opened) > 1) for budget in (run.budgets if budgets is None else budgets)]
            if tasks is None and run.corpus_methods:
                corpora += [corpus_block(run, budget) for budget in (run.budgets if budgets is None else budgets)]
            ranks += [correlation for method in run.all_methods for correlation in rank_correlations(run, method)]
            found += [d for d in diagnoses(run) if tasks is None or d.task in tasks]
            cost += prices(run, budgets)
        if not blocks and not corpora:
            places = ", ".join(str(run.path) for run in opened)
            missing = "no budget is given" if any(run.tasks for run in opened) else "nothing was measured yet; go on with `elastibench run`"
            raise UserError(f"{places}: {missing}")
        work = [sentence for run in opened for sentence in corpus_work(run, named=len(opened) > 1)]
        both = [tuple(tested(block, by_name) for block in joined(some)) for some in (blocks, corpora)]
        facts = [f"{f'{run.name}, ' if len(opened) > 1 else ''}{about}: {text}." for run in opened for about, text in run.facts.items()]
    finally:
        for run in opened:
            run.close()
    return HeadToHead(both[0], tuple(by_name), both[1], tuple(ranks), tuple(work), tuple(cost), tuple(found), tuple(facts))


def _check_tasks(opened: Sequence[Run], tasks: Sequence[str] | None) -> None:
    there = list(dict.fromkeys(task for run in opened for task in [*run.tasks, *([run.corpus] if run.corpus_methods else [])]))
    strange = [task for task in tasks or () if task not in there]
    if strange:
        raise UserError(f"task {strange[0]!r} was not measured; there are {', '.join(there) or 'none'}")


def _block(run: Run, task: str, budget: Budget, named: bool) -> Block:
    """`named`: sentences name their run."""
    place = Place(run, task, budget, run.metric(task))
    found = {method: winners(run, task, method, budget) for method in run.methods(task)}
    rows = [method_row(place, method, result) for method, result in found.items()]
    for method, result in found.items():
        rows += selection_rows(place, method)
        rows += control_rows(place, method, [] if isinstance(result, str) else result)
    rows += [truncated_row(place), teacher_row(place)]
    head = f"{run.name}, " if named else ""
    sentences = [verdict(run, task, method, budget, result) for method, result in found.items()]
    sentences += [sentence for method in found for sentence in help_sentences(run, task, method, budget)]
    sentences += [sentence for method in found for sentence in latency_sentences(run, task, method, budget)]
    return Block(task, budget, run.length, run.batch, tuple(rows), tuple(head + sentence for sentence in sentences))
