"""The key columns of a printed table, how a value is written, and what has to be said beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING, Literal

from analysis.description import SHORT_ID
from analysis.diagnoses import alarms
from analysis.ranks import SCORES, sentences
from analysis.rows import WINDOW, Block, Row
from methods.budget import amount, format_quantity
from methods.costs import CONVENTION

if TYPE_CHECKING:
    from analysis.head_to_head import HeadToHead

EMPTY = "–"
STAR = " *"
"""What stands for bold in plain text."""
WORK = (
    "Corpus: FLOPs of a network's work on unlabelled text, whole; `train` has it divided by what it serves: stages for all networks by "
    "tasks x budgets, a network's own by tasks. Rows beside the winners' have what was trained for their networks alone."
)
WAYS = (
    "Name (alpha) or (... search): what the method's own rule or that strategy found alone, on the same supernet; the row without is the "
    "best of all that was scored. z: distance to the mean of the random networks, in their standard deviations."
)
TESTS = (
    "To the best: difference in points to the row of the highest quality, with its 95 % bootstrap interval over examples. p: two-sided, of "
    "McNemar's exact test (accuracy, one network each), of a paired permutation (several networks, other metrics) or of a paired bootstrap "
    "(other metrics, groups of different sizes), after Holm's correction for all rows of the budget; p-values in sentences are not "
    f"corrected. Bold (in plain text {STAR.strip()}): the best, where every row of another method or run, and every control but its own "
    "int8, is worse with p < 0.05 and in every seed. The best is picked on `validation`, which flatters it; the teacher takes no part."
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
    reason = why_empty(column, row)
    return column.text(row) if reason is None else EMPTY + notes.mark(reason)


def why_empty(column: Column, row: Row) -> str | None:
    """Why a cell is empty; None where it is not."""
    missing = next((name for name in column.needs if _value(row, name) is None), None)
    return None if missing is None else row.why.get(missing) or _USUAL.get(missing.partition(".")[0], "not recorded")


_USUAL = {
    "latency": "the device's table does not know all of its parts",
    "latency_measured": "of whole networks what ships is timed, no control",
}
"""Why latencies of devices are empty where the row says nothing else."""


def _value(row: Row, name: str) -> object:
    """A column's value; of `latency.laptop` that device's."""
    column, _, device = name.partition(".")
    value: object = getattr(row, column)
    return value.get(device) if device and isinstance(value, Mapping) else value


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


def _difference(row: Row) -> str:
    if row.best:
        return "best"
    between = "" if row.difference_low is None else f" [{row.difference_low:+.1f}, {row.difference_high:+.1f}]"
    return f"{row.difference:+.1f}{between}"


def _p_value(row: Row) -> str:
    assert row.p_holm is not None
    return "<.001" if row.p_holm < 0.001 else f"{row.p_holm:.3f}".removeprefix("0")


def _quantity(name: str) -> Callable[[Row], str]:
    return lambda row: format_quantity(getattr(row, name))


def _seconds(name: str) -> Callable[[Row], str]:
    return lambda row: f"{getattr(row, name):,.0f}" if getattr(row, name) >= 10 else f"{getattr(row, name):.1f}"


def _latency(kind: str, device: str) -> Column:
    """Milliseconds on a device, predicted or measured."""
    heading = f"{device} ms" + (" meas." if kind == "latency_measured" else "")

    return Column(f"{kind}.{device}", heading, ("flops", f"{kind}.{device}"), lambda row: f"{1000 * getattr(row, kind)[device]:.4g}")


def _other(name: str) -> Column:
    return Column(f"also.{name}", name, ("quality", f"also.{name}"), lambda row: f"{row.also[name]:.4f}")


_RUN = Column("run", "run", (), lambda row: row.run, left=True)
_ROW = Column("row", "row", (), lambda row: row.row, left=True)
_ARCHITECTURE = Column("architecture", "architecture", ("architecture",), _architecture, left=True)
_SIZE = (
    Column("parameters", "emb.+other", ("embedding_parameters", "other_parameters"), _parameters),
    Column("flops", "FLOPs", ("flops",), _quantity("flops")),
)
QUALITY = (
    _RUN,
    _ROW,
    _ARCHITECTURE,
    Column("quality", "{metric}", ("quality",), _quality),
    Column("search_quality", "search", ("search_quality",), lambda row: f"{row.search_quality:.4f}"),
    Column("gap", "gap", ("gap",), lambda row: f"{row.gap:+.1f}"),
    Column("retention", "kept", ("retention",), lambda row: f"{100 * row.retention:.1f}%"),  # type: ignore[operator]
    Column("difference", "to the best", ("difference",), _difference),
    Column("p_holm", "p", ("p_holm",), _p_value),
)
SPENT = (
    Column("search", "tried", ("search_evaluations",), lambda row: f"{row.search_evaluations:.4g}"),
    Column("search_seconds", "search s", ("search_seconds",), _seconds("search_seconds")),
    Column("training", "train", ("training_flops",), _quantity("training_flops")),
    Column("training_seconds", "train s", ("training_seconds",), _seconds("training_seconds")),
    Column("training_steps", "steps", ("training_steps",), _quantity("training_steps")),
    Column("training_subnetwork_steps", "passes", ("training_subnetwork_steps",), _quantity("training_subnetwork_steps")),
    Column("training_examples", "examples", ("training_examples",), _quantity("training_examples")),
    Column("corpus", "corpus", ("corpus_flops",), _quantity("corpus_flops")),
)
ON_CORPUS = (
    _RUN,
    Column("budget", "budget", (), lambda row: row.budget, left=True),
    _ROW,
    _ARCHITECTURE,
    Column("quality", "validation", ("quality",), _quality),
    *_SIZE,
    Column("corpus", "corpus", ("training_flops",), _quantity("training_flops")),
)
"""The columns of a corpus, all budgets in one table; training there is the work on the corpus."""

Panel = Literal["quality", "costs", "corpus"]


@dataclass(frozen=True)
class Part:
    """A printed table. `breaks`: a rule may stand before these rows. `panel`: what it is about."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    metric: str
    sentences: tuple[str, ...]
    blocks: tuple[Block, ...]
    breaks: tuple[int, ...]
    panel: Panel

    def cells(self, notes: Footnotes, bold: Callable[[str], str] | None = None) -> tuple[list[str], list[list[str]]]:
        """Headings and cells; empty cells are marks whose reasons `notes` collects. `bold`: what makes a winner's name and quality bold."""
        headings = [c.heading.format(metric=self.metric) for c in self.columns]
        body = [[cell(column, row, notes) for column in self.columns] for row in self.rows]
        for row, line in zip(self.rows, body, strict=True):
            for place, column in enumerate(self.columns):
                if bold and row.winner and column.name in ("row", "quality"):
                    line[place] = bold(line[place])
        return headings, body


def parts(table: HeadToHead) -> list[Part]:
    """What is printed: for each task and budget a table of quality and one of costs, then one for each corpus."""
    hidden = set() if len(table.runs) > 1 else {"run"}
    if not any(row.corpus_flops is not None for row in table.rows):
        hidden |= {"corpus"}
    quality, spent, on_corpus = (tuple(c for c in some if c.name not in hidden) for some in (QUALITY, SPENT, ON_CORPUS))
    found = []
    for block in table.blocks:
        breaks: tuple[int, ...] = (sum(row.kind == "method" for row in block.rows),)
        costs = (*(c for c in (_RUN, _ROW) if c.name not in hidden), *_SIZE, *latencies(block.rows), *spent)
        found += [
            Part(title(block), with_others(quality, block.rows), block.rows, block.metric, block.sentences, (block,), breaks, "quality"),
            Part(f"{title(block)}: costs", costs, block.rows, block.metric, (), (block,), breaks, "costs"),
        ]
    for name in dict.fromkeys(block.task for block in table.corpora):
        blocks = tuple(block for block in table.corpora if block.task == name)
        rows = tuple(row for block in blocks for row in block.rows)
        breaks = tuple(accumulate(len(block.rows) for block in blocks[:-1]))
        heading = f"{name}: held-out masked words (nats per word, larger is better)"
        found.append(Part(heading, on_corpus, rows, blocks[0].metric, (), blocks, breaks, "corpus"))
    return found


def with_others(columns: Sequence[Column], rows: Sequence[Row]) -> tuple[Column, ...]:
    """The task's other metrics stand behind the main one."""
    names = dict.fromkeys(name for row in rows for name in row.also)
    others = tuple(_other(name) for name in names)
    place = next(i for i, column in enumerate(columns, 1) if column.name == "quality")
    return (*columns[:place], *others, *columns[place:])


def latencies(rows: Sequence[Row]) -> tuple[Column, ...]:
    """Of each device first what is predicted, then what was measured, where any row has it."""
    known = {kind: dict.fromkeys(d for row in rows for d in getattr(row, kind)) for kind in ("latency", "latency_measured")}
    devices = dict.fromkeys(device for some in known.values() for device in some)
    asked = {column.partition(".")[2] for row in rows for column in row.why if column.startswith("latency_measured.")}
    known["latency_measured"] |= dict.fromkeys(asked)
    return tuple(_latency(kind, device) for device in devices for kind in known if device in known[kind])


def conventions(blocks: Sequence[Block], panel: Panel | None = None) -> list[str]:
    """What has to be known to read the numbers, one statement a line; with `panel` what its table alone needs."""
    of_quality, of_costs = _on_quality(blocks), _on_costs(blocks)
    return of_quality if panel == "quality" else of_costs if panel else [*of_costs[:1], *of_quality, *of_costs[1:]]


def _on_quality(blocks: Sequence[Block]) -> list[str]:
    most = max((row.seeds for block in blocks for row in block.rows), default=0)
    window = f"{100 * WINDOW[0]:.0f}-{100 * WINDOW[1]:.0f} %"
    lines = [
        SPLITS,
        f"Up to {most} seed{'' if most == 1 else 's'}; ±: standard deviation over so many networks, as stand in brackets.",
        f"Random: random architectures whose binding limit is used to {window}, treated as the winner is.",
        "Of several metrics the first one ranks and is tested. Search: the quality there that chose. Gap: to the teacher, in points "
        "(hundredths) of the metric; kept: the share of its quality.",
        TESTS,
    ]
    if most == 1:
        lines.append("With one seed nothing is known of what another training would give: tests speak of these networks alone.")
    if any(row.kind == "selection" for block in blocks for row in block.rows):
        lines.insert(3, WAYS)
    return lines


def _on_costs(blocks: Sequence[Block]) -> list[str]:
    sizes = sorted({(block.length, block.batch) for block in blocks})
    measured = " or ".join(f"{batch} text{'' if batch == 1 else 's'} of length {length}" for length, batch in sizes)
    lines = [
        f"FLOPs of one forward pass of {measured}: {CONVENTION}.",
        "emb.+other: parameters of the embedding tables and all others. Tried: architectures evaluated, per seed. Train: FLOPs per seed, "
        "3 x forward of what is trained and 1 x forward of what teaches; the teacher has its own row. Steps are those of the optimiser; "
        "passes (sub-network steps): one backward pass per sub-network, or block of one, in each; examples: rows read over all of them.",
    ]
    rows = [row for block in blocks for row in block.rows]
    if any(row.latency or row.latency_measured for row in rows):
        lines.append("ms: latency as the device's table predicts it; meas.: as the whole network was timed there.")
    if any(row.corpus_flops is not None for row in rows):
        lines.append(WORK)
    return lines


def title(block: Block) -> str:
    limits = ", ".join(f"{name} {amount(name, limit)}" for name, limit in block.budget.limits().items()) or "no limit"
    name = f"{block.budget.name} ({limits})" if block.budget.name else limits
    return f"{block.task}, budget {name}"


def remarks(table: HeadToHead) -> list[str]:
    """What stands below all tables: how things were trained, work on corpora, rank correlations with what they mean, alarms."""
    ranked = sentences(table.ranks, named=len(table.runs) > 1)
    return [*table.facts, *table.work, *ranked, *([SCORES] if ranked else []), *alarm_lines(table)]


def alarm_lines(table: HeadToHead) -> list[str]:
    """What diagnostics of searches warn of."""
    return alarms(table.diagnoses, named=len(table.runs) > 1)
