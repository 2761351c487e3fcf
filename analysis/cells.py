"""The key columns of a printed table, how a value is written, and what has to be said beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING

from analysis.description import SHORT_ID
from analysis.diagnoses import alarms
from analysis.ranks import SCORES, sentences
from analysis.rows import WINDOW, Block, Row
from methods.budget import format_quantity
from methods.costs import CONVENTION

if TYPE_CHECKING:
    from analysis.head_to_head import HeadToHead

EMPTY = "–"
WORK = (
    "Corpus: FLOPs of a network's work on unlabelled text, whole; `train` has it divided by what it serves: stages for all networks by "
    "tasks x budgets, a network's own by tasks. Rows beside the winners' have what was trained for their networks alone."
)
WAYS = (
    "Name (alpha) or (... search): what the method's own rule or that strategy found alone, on the same supernet; the row without is the "
    "best of all that was scored. z: distance to the mean of the random networks, in their standard deviations."
)
SPLITS = "Architectures are chosen on the split `search` alone; `validation` is reported, never ranked by."


@dataclass(frozen=True)
class Column:
    """A printed column. `needs` names the columns of a `Row` without which the cell is empty."""

    name: str
    heading: str
    needs: tuple[str, ...]
    text: Callable[[Row], str]
    left: bool = False


@dataclass
class Footnotes:
    """Why cells are empty: each reason once, numbered in order of appearance."""

    reasons: list[str] = field(default_factory=list)

    def mark(self, reason: str) -> str:
        if reason not in self.reasons:
            self.reasons.append(reason)
        return f"[{self.reasons.index(reason) + 1}]"

    def lines(self) -> list[str]:
        return [f"{EMPTY}[{i}] {reason}" for i, reason in enumerate(self.reasons, 1)]


def cell(column: Column, row: Row, notes: Footnotes) -> str:
    """The text of a cell, or a dash with the mark of the reason why there is none."""
    missing = next((name for name in column.needs if getattr(row, name) is None), None)
    if missing is None:
        return column.text(row)
    return EMPTY + notes.mark(row.why.get(missing, "not recorded"))


def _quality(row: Row) -> str:
    assert row.quality is not None
    spread = f" ± {row.spread:.4f}" if row.spread is not None else ""
    count = f" ({row.networks})" if row.networks > 1 else ""
    return f"{row.quality:.4f}{spread}{count}"


def _architecture(row: Row) -> str:
    ids = (row.architecture_id or "").split()
    return f"{ids[0][:SHORT_ID]} {row.architecture}" if len(ids) == 1 else f"{row.architecture}"


def _parameters(row: Row) -> str:
    assert row.embedding_parameters is not None and row.other_parameters is not None
    return f"{format_quantity(row.embedding_parameters)}+{format_quantity(row.other_parameters)}"


def _quantity(name: str) -> Callable[[Row], str]:
    return lambda row: format_quantity(getattr(row, name))


COLUMNS = (
    Column("run", "run", (), lambda row: row.run, left=True),
    Column("row", "row", (), lambda row: row.row, left=True),
    Column("architecture", "architecture", ("architecture",), _architecture, left=True),
    Column("quality", "{metric}", ("quality",), _quality),
    Column("search_quality", "search", ("search_quality",), lambda row: f"{row.search_quality:.4f}"),
    Column("gap", "gap", ("gap",), lambda row: f"{row.gap:+.1f}"),
    Column("parameters", "emb.+other", ("embedding_parameters", "other_parameters"), _parameters),
    Column("flops", "FLOPs", ("flops",), _quantity("flops")),
    Column("search", "tried", ("search_evaluations",), lambda row: f"{row.search_evaluations:.4g}"),
    Column("training", "train", ("training_flops",), _quantity("training_flops")),
    Column("corpus", "corpus", ("corpus_flops",), _quantity("corpus_flops")),
)
ON_CORPUS = (
    COLUMNS[0],
    Column("budget", "budget", (), lambda row: row.budget, left=True),
    *(c for c in COLUMNS if c.name in ("row", "architecture")),
    Column("quality", "validation", ("quality",), _quality),
    *(c for c in COLUMNS if c.name in ("parameters", "flops")),
    Column("corpus", "corpus", ("training_flops",), _quantity("training_flops")),
)
"""The columns of a corpus, all budgets in one table; training there is the work on the corpus."""


@dataclass(frozen=True)
class Part:
    """A printed table. `breaks`: a rule may stand before these rows."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    metric: str
    sentences: tuple[str, ...]
    blocks: tuple[Block, ...]
    breaks: tuple[int, ...]

    def cells(self, notes: Footnotes) -> tuple[list[str], list[list[str]]]:
        """Headings and cells; empty cells are marks whose reasons `notes` collects."""
        headings = [c.heading.format(metric=self.metric) for c in self.columns]
        return headings, [[cell(column, row, notes) for column in self.columns] for row in self.rows]


def parts(table: HeadToHead) -> list[Part]:
    """What is printed: a table for each task and budget, then one for each corpus."""
    hidden = set() if len(table.runs) > 1 else {"run"}
    if not any(row.corpus_flops is not None for row in table.rows):
        hidden |= {"corpus"}
    columns, on_corpus = (tuple(c for c in some if c.name not in hidden) for some in (COLUMNS, ON_CORPUS))
    found = []
    for block in table.blocks:
        methods = sum(row.kind == "method" for row in block.rows)
        found.append(Part(title(block), columns, block.rows, block.metric, block.sentences, (block,), (methods,)))
    for name in dict.fromkeys(block.task for block in table.corpora):
        blocks = tuple(block for block in table.corpora if block.task == name)
        rows = tuple(row for block in blocks for row in block.rows)
        breaks = tuple(accumulate(len(block.rows) for block in blocks[:-1]))
        heading = f"{name}: held-out masked words (nats per word, larger is better)"
        found.append(Part(heading, on_corpus, rows, blocks[0].metric, (), blocks, breaks))
    return found


def conventions(blocks: Sequence[Block]) -> list[str]:
    """What has to be known to read the numbers, one statement a line."""
    sizes = sorted({(block.length, block.batch) for block in blocks})
    measured = " or ".join(f"{batch} text{'' if batch == 1 else 's'} of length {length}" for length, batch in sizes)
    most = max((row.seeds for block in blocks for row in block.rows), default=0)
    window = f"{100 * WINDOW[0]:.0f}-{100 * WINDOW[1]:.0f} %"
    seeds = f"Up to {most} seed{'' if most == 1 else 's'}; ±: standard deviation over so many networks, as stand in brackets."
    lines = [
        f"FLOPs of one forward pass of {measured}: {CONVENTION}.",
        SPLITS,
        seeds,
        f"Random: random architectures whose binding limit is used to {window}, treated as the winner is.",
        "Search: the quality there that chose. Gap: to the teacher, in points (hundredths) of the metric. emb.+other: parameters of the "
        "embedding tables and all others. Tried: architectures evaluated, per seed.",
        "Train: FLOPs per seed, 3 x forward of what is trained and 1 x forward of what teaches; the teacher has its own row.",
        "p-values are two-sided and not corrected for the number of comparisons.",
    ]
    if any(row.corpus_flops is not None for block in blocks for row in block.rows):
        lines.insert(-1, WORK)
    if any(row.kind == "selection" for block in blocks for row in block.rows):
        lines.insert(4, WAYS)
    return lines


def title(block: Block) -> str:
    limits = ", ".join(f"{name} {format_quantity(limit)}" for name, limit in block.budget.limits().items()) or "no limit"
    name = f"{block.budget.name} ({limits})" if block.budget.name else limits
    return f"{block.task}, budget {name}"


def remarks(table: HeadToHead) -> list[str]:
    """What stands below all tables: how things were trained, work on corpora, rank correlations with what they mean, alarms."""
    ranked = sentences(table.ranks, named=len(table.runs) > 1)
    return [*table.facts, *table.work, *ranked, *([SCORES] if ranked else []), *alarm_lines(table)]


def alarm_lines(table: HeadToHead) -> list[str]:
    """What diagnostics of searches warn of."""
    return alarms(table.diagnoses, named=len(table.runs) > 1)
