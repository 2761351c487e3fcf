"""What methods trained on unlabelled text did there: held-out masked words, and what the work cost and serves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from analysis.control_rows import control_rows
from analysis.method_row import method_row
from analysis.rows import Block, Place
from analysis.spending import common_corpus_work
from analysis.winners import winners
from methods.budget import Budget, format_quantity

if TYPE_CHECKING:
    from analysis.runs import Run


def corpus_block(run: Run, budget: Budget) -> Block:
    """Pre-trained networks on the corpus under one budget: winners (chosen on its `search`) and the methods' own controls."""
    place, rows = Place(run, run.corpus, budget, run.metric(run.corpus)), []
    for method in run.corpus_methods:
        found = winners(run, run.corpus, method, budget)
        controls = control_rows(place, method, [] if isinstance(found, str) else found)
        rows += [method_row(place, method, found), *(row for row in controls if row.quality is not None)]
    return Block(run.corpus, budget, run.length, run.batch, tuple(rows))


def corpus_work(run: Run, named: bool) -> list[str]:
    """One sentence per method: what work that serves all networks cost, and what it is divided by. `named`: with the run's name."""
    tasks, budgets = (_count(n, noun) for n, noun in zip(run.served, ("task", "budget"), strict=True))
    sentences = []
    for method in run.corpus_methods:
        flops, seconds = common_corpus_work(run, method)
        head = f"{run.name}, {run.corpus}, {method}" if named else f"{run.corpus}, {method}"
        sentences.append(
            f"{head}: corpus work listed whole (`corpus`) and, in `train`, divided by the tasks and budgets it serves: "
            f"{format_quantity(flops)} FLOPs ({_duration(seconds)}) per supernet serve all networks of {tasks} under {budgets}; "
            f"a network's own pre-training serves {tasks}."
        )
    return sentences


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"


def _duration(seconds: float) -> str:
    unit, name = next(((size, name) for size, name in ((3600.0, "h"), (60.0, "min")) if seconds >= 2 * size), (1.0, "s"))
    return f"{seconds / unit:.3g} {name}"
