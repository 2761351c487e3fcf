"""A comparison in five sentences."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from analysis.controls import TEACHER
from analysis.prices import NO_METHODS
from analysis.verdict import HELPED, UNHELPFUL
from methods.budget import format_quantity

if TYPE_CHECKING:
    from analysis.head_to_head import HeadToHead
    from analysis.rows import Block, Row


def abstract(table: HeadToHead) -> list[str]:
    """What was compared; which row is best and how surely; how far it is from the teacher; whether searching helped; what it cost."""
    return [_compared(table), _best(table), _teacher(table), _search(table), _cost(table)]


def _compared(table: HeadToHead) -> str:
    methods = _distinct(row.method for row in table.rows if row.kind == "method")
    tasks = _distinct(block.task for block in table.blocks)
    budgets = _distinct(_budget(table, block) for block in table.blocks)
    seeds = max((row.seeds for row in table.rows), default=0)
    what = (
        f"{_listed(methods) or 'No method'} {'is' if len(methods) <= 1 else 'are'} compared on {_listed(tasks) or 'no task'} under "
        f"{_count(len(budgets), 'budget')} ({', '.join(budgets)})"
    )
    if not seeds:
        return f"{what}; none of {'its' if len(methods) <= 1 else 'their'} networks was measured on the split validation yet."
    return (
        f"{what} with up to {_count(seeds, 'seed')}; qualities are those of the networks that ship, on the split validation, by which none "
        "of them was chosen."
    )


def _best(table: HeadToHead) -> str:
    best = [(block, row) for block in table.blocks for row in block.rows if row.best]
    if not best:
        return "No budget has two rows with a quality that could be set against each other."
    sure = [f"{_name(table, row)} ({_place(table, block)})" for block, row in best if row.winner]
    unsure = [f"{_name(table, row)} ({_place(table, block)}, {row.quality:.4f})" for block, row in best if not row.winner]
    parts = []
    if sure:
        parts.append(f"the best beyond chance is {_listed(sure)}")
    if unsure:
        parts.append(
            f"{'elsewhere ' if sure else ''}the highest mean is that of {_listed(unsure)}, which the tests do not tell from every other row"
        )
    return _sentence("; ".join(parts))


def _teacher(table: HeadToHead) -> str:
    with_quality = [(block, row) for block in table.blocks for row in block.rows if row.quality is not None and row.row != TEACHER]
    best = [(block, row) for block, row in with_quality if row.best]
    rows = best or with_quality
    if not rows:
        return "No row has a quality that could be set against the teacher's."
    if len(rows) == 1:
        these = "this row keeps" if best else "the only row with a quality keeps"
    else:
        these = "these rows keep" if best else "the rows with a quality keep"
    known = [(row, teacher) for block, row in rows if row.retention is not None and (teacher := _teacher_row(block, row.run))]
    unknown = _distinct(row.why.get("retention", "the teacher was not measured on validation") for _, row in rows if row.retention is None)
    if not known:
        return f"What share of the teacher's quality {these} can't be said ({'; '.join(unknown)})."
    kept = [100 * (row.retention or 0) for row, _ in known]
    share = [100 * (row.flops or 0) / (teacher.flops or 1) for row, teacher in known]
    rest = f"; for {len(rows) - len(known)} of {len(rows)} that can't be said ({'; '.join(unknown)})" if unknown else ""
    quality, flops = _span(kept, lambda percent: f"{percent:.1f}"), _span(share, _two_digits)
    return _sentence(f"{these} {quality} % of the teacher's quality with {flops} % of its FLOPs{rest}")


def _search(table: HeadToHead) -> str:
    said = [sentence for block in table.blocks for sentence in block.sentences]
    helped, unhelpful = sum(HELPED in sentence for sentence in said), sum(UNHELPFUL in sentence for sentence in said)
    asked = sum(row.kind == "method" for row in table.rows)
    unknown = asked - helped - unhelpful
    if unknown == asked:
        cases = "the only case" if asked == 1 else f"any of {_count(asked, 'case')}"
        return (
            f"Whether the search beats random architectures of the same size can't be said in {cases} (method, task and budget), and the "
            "tables say why."
        )
    rest = f"; for {unknown} that can't be said, and the tables say why" if unknown else ""
    return (
        f"Against random architectures of the same size the search helped in {helped} of {_count(asked, 'case')} (method, task and "
        f"budget), in {unhelpful} it did not help measurably{rest}."
    )


def _cost(table: HeadToHead) -> str:
    """What ended without a quality is not called the cheapest."""
    shipped = {(row.run, row.method) for row in table.rows if row.kind == "method" and row.quality is not None}
    every = [price for price in table.prices if price.method not in NO_METHODS]
    prices = [price for price in every if (price.run, price.method) in shipped] or every
    alarms = sum(d.alarm for d in table.diagnoses)
    warned = f"; {_count(alarms, 'alarm')} of diagnostics {'is' if alarms == 1 else 'are'} listed below" if alarms else ""
    if not prices:
        return f"What training and search cost was not recorded{warned}."
    one, many = (min(prices, key=lambda price: price.of(n, n)[0]) for n in (1, 8))
    first, other = (f"{price.method}{_of_run(table, price.run)}" for price in (one, many))
    least = "costs" if len(prices) == 1 else "costs least"
    other = "" if first == other else f"with {other}, "
    return (
        f"Training and search for one task and budget {least} with {first}, {format_quantity(one.of(1, 1)[0])} FLOPs in "
        f"{one.of(1, 1)[1]:,.0f} s a seed, for eight tasks under eight budgets {other}{format_quantity(many.of(8, 8)[0])} FLOPs{warned}."
    )


def _teacher_row(block: Block, run: str) -> Row | None:
    return next((row for row in block.rows if (row.row, row.run) == (TEACHER, run) and row.quality is not None), None)


def _name(table: HeadToHead, row: Row) -> str:
    return row.row + _of_run(table, row.run)


def _of_run(table: HeadToHead, run: str) -> str:
    return f" of {run}" if len(table.runs) > 1 else ""


def _place(table: HeadToHead, block: Block) -> str:
    several = len({other.task for other in table.blocks}) > 1
    return f"{block.task}, {_budget(table, block)}" if several else _budget(table, block)


def _budget(table: HeadToHead, block: Block) -> str:
    """Its label, with its limits where another budget has that label too."""
    budget = block.budget
    alike = [other.budget.limits() for other in table.blocks if other.budget.label() == budget.label()]
    one = all(limits == budget.limits() for limits in alike)
    return budget.label() if one else f"{budget.label()}: {replace(budget, name='').label()}"


def _span(values: Sequence[float], written: Callable[[float], str]) -> str:
    low, high = written(min(values)), written(max(values))
    return low if low == high else f"{low} to {high}"


def _two_digits(percent: float) -> str:
    return f"{percent:.0f}" if percent >= 10 else f"{percent:.2g}"


def _distinct(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."
