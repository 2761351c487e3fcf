"""A comparison in five sentences."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from analysis.controls import TEACHER
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
    budgets = _distinct(block.budget.label() for block in table.blocks)
    seeds = max((row.seeds for row in table.rows), default=0)
    return (
        f"{_listed(methods) or 'No method'} {'is' if len(methods) == 1 else 'are'} compared on {_listed(tasks) or 'no task'} under "
        f"{_count(len(budgets), 'budget')} ({', '.join(budgets)}) with up to {_count(seeds, 'seed')}; qualities are those of the networks "
        "that ship, on the split validation, by which nothing was chosen."
    )


def _best(table: HeadToHead) -> str:
    best = [(block, row) for block in table.blocks for row in block.rows if row.best]
    if not best:
        return "No budget has two rows with a quality that could be set against each other."
    sure = [f"{row.row} ({_place(table, block)})" for block, row in best if row.winner]
    unsure = [f"{row.row} ({_place(table, block)}, {row.quality:.4f})" for block, row in best if not row.winner]
    parts = []
    if sure:
        parts.append(f"the best beyond chance is {_listed(sure)}")
    if unsure:
        parts.append(
            f"{'elsewhere ' if sure else ''}the highest mean is that of {_listed(unsure)}, which the tests do not tell from every other row"
        )
    return _sentence("; ".join(parts))


def _teacher(table: HeadToHead) -> str:
    pairs = [(row, _teacher_row(block)) for block in table.blocks for row in block.rows if row.best]
    known = [(row, teacher) for row, teacher in pairs if teacher is not None and row.retention is not None and row.flops and teacher.flops]
    if not known:
        return "How far that is from the teacher is not known: it was not measured on validation."
    kept = [100 * (row.retention or 0) for row, _ in known]
    share = [100 * (row.flops or 0) / (teacher.flops or 1) for row, teacher in known]
    return f"These rows keep {_span(kept, 1)} % of the teacher's quality with {_span(share, 2)} % of its FLOPs."


def _search(table: HeadToHead) -> str:
    said = [sentence for block in table.blocks for sentence in block.sentences]
    helped, unhelpful = sum(HELPED in sentence for sentence in said), sum(UNHELPFUL in sentence for sentence in said)
    asked = sum(row.kind == "method" for row in table.rows)
    unknown = asked - helped - unhelpful
    rest = f"; for {unknown} that can't be said, and the tables say why" if unknown else ""
    return (
        f"Against random architectures of the same size the search helped in {helped} of {_count(asked, 'case')} (method, task and "
        f"budget), in {unhelpful} it did not help measurably{rest}."
    )


def _cost(table: HeadToHead) -> str:
    prices = [price for price in table.prices if price.method != TEACHER]
    alarms = sum(d.alarm for d in table.diagnoses)
    warned = f"; {_count(alarms, 'alarm')} of diagnostics {'is' if alarms == 1 else 'are'} listed below" if alarms else ""
    if not prices:
        return f"What training and search cost was not recorded{warned}."
    one, many = (min(prices, key=lambda price: price.of(n, n)[0]) for n in (1, 8))
    least = "costs" if len({price.method for price in prices}) == 1 else "costs least"
    other = "" if one.method == many.method else f"with {many.method}, "
    return (
        f"Training and search for one task and budget {least} with {one.method}, {format_quantity(one.of(1, 1)[0])} FLOPs in "
        f"{one.of(1, 1)[1]:,.0f} s a seed, for eight tasks under eight budgets {other}{format_quantity(many.of(8, 8)[0])} FLOPs{warned}."
    )


def _teacher_row(block: Block) -> Row | None:
    return next((row for row in block.rows if row.row == TEACHER and row.quality is not None), None)


def _place(table: HeadToHead, block: Block) -> str:
    several = len({other.task for other in table.blocks}) > 1
    return f"{block.task}, {block.budget.label()}" if several else block.budget.label()


def _span(values: Sequence[float], digits: int) -> str:
    low, high = f"{min(values):.{digits}g}", f"{max(values):.{digits}g}"
    if digits == 1:
        low, high = f"{min(values):.1f}", f"{max(values):.1f}"
    return low if low == high else f"{low} to {high}"


def _distinct(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."
