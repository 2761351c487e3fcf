"""What a head-to-head table is made of: rows whose empty cells say why they are empty, in blocks of one task and one budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from methods.budget import Budget

if TYPE_CHECKING:
    from analysis.runs import Run
    from search.measurement import Measurement

WINDOW = (0.9, 1.0)
"""Random architectures count where their costliest limit is used up to this share."""


@dataclass(frozen=True)
class Place:
    """Where a row stands: the block of one task and budget of a run."""

    run: Run
    task: str
    budget: Budget
    metric: str

    @property
    def names(self) -> tuple[str, str, str]:
        """The first columns of a row."""
        return self.run.name, self.task, self.budget.label()


@dataclass(frozen=True)
class Row:
    """One method or control under one budget; None means empty, and `why` says why, by column name.

    `kind`: `method` (what the method ships), `selection` (what one way of searching found, where a method has several), or `control`.

    `quality`: mean of the main metric on `validation` over `networks` networks of `seeds` seeds, `spread` their standard deviation,
    `lowest` and `highest` the range; `interval_low`, `interval_high`: 95 % bootstrap interval of the mean over examples. `also`: means of
    the task's other metrics, by name. `search_quality`: the mean of what chose, on `search`, in the kind `chosen_by`. `gap`: quality less
    the teacher's, in points (hundredths); `retention`: quality over the teacher's. Costs are means over the networks; search and training
    costs are per seed.
    `training_steps` are those of the optimiser, `training_subnetwork_steps` one for each sub-network that such a step trains.
    Of methods trained on a corpus `training_*` hold that work divided by the tasks and budgets it serves, `corpus_*` hold it whole.
    `latency`: mean seconds by device, as the device's table predicts them; `latency_measured`: as the whole networks were timed.

    Against the best row of its budget: `difference` in points with its 95 % interval over examples, `test` with `p_value`, and `p_holm`,
    corrected for all rows of the budget. `best`: this is that row; `winner`: every other one is worse by the test (`analysis.best`).
    `measured`: the networks on `validation` that the row speaks of.
    """

    run: str
    task: str
    budget: str
    row: str
    kind: str
    method: str
    metric: str
    architecture: str | None = None
    architecture_id: str | None = None
    quality: float | None = None
    also: Mapping[str, float] = field(default_factory=dict)
    spread: float | None = None
    lowest: float | None = None
    highest: float | None = None
    interval_low: float | None = None
    interval_high: float | None = None
    networks: int = 0
    seeds: int = 0
    search_quality: float | None = None
    chosen_by: str | None = None
    gap: float | None = None
    retention: float | None = None
    embedding_parameters: float | None = None
    other_parameters: float | None = None
    flops: float | None = None
    search_evaluations: float | None = None
    search_seconds: float | None = None
    training_steps: float | None = None
    training_examples: float | None = None
    training_flops: float | None = None
    training_seconds: float | None = None
    training_subnetwork_steps: float | None = None
    corpus_flops: float | None = None
    corpus_seconds: float | None = None
    latency: Mapping[str, float] = field(default_factory=dict)
    latency_measured: Mapping[str, float] = field(default_factory=dict)
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    test: str | None = None
    p_value: float | None = None
    p_holm: float | None = None
    best: bool = False
    winner: bool = False
    measured: tuple[Measurement, ...] = field(default=(), repr=False, compare=False)
    why: Mapping[str, str] = field(default_factory=dict)

    def data(self) -> dict[str, Any]:
        """Every column by name, `why` among them; a column for each device and each other metric; the measurements are left out."""
        many = ("also", "latency", "latency_measured")
        data = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("measured", *many)}
        for name in many:
            data |= {f"{name}.{one}": value for one, value in getattr(self, name).items()}
        return {**data, "why": dict(self.why)}


@dataclass(frozen=True)
class Block:
    """The rows of one task under one budget, at one length and batch, and in words what the search was worth."""

    task: str
    budget: Budget
    length: int
    batch: int
    rows: tuple[Row, ...]
    sentences: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[Any, ...]:
        """Blocks with equal keys, of whatever run, are one block of the table."""
        return self.task, self.metric, tuple(sorted(self.budget.limits().items())), self.length, self.batch

    @property
    def metric(self) -> str:
        return self.rows[0].metric if self.rows else ""


def joined(blocks: Sequence[Block]) -> tuple[Block, ...]:
    """Blocks of several runs under the same budget put together, in order of first appearance."""
    together: dict[tuple[Any, ...], Block] = {}
    for block in blocks:
        first = together.get(block.key)
        if first is None:
            together[block.key] = block
        else:
            rows, sentences = first.rows + block.rows, first.sentences + block.sentences
            together[block.key] = Block(first.task, first.budget, first.length, first.batch, rows, sentences)
    return tuple(together.values())
