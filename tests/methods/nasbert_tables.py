"""A small block loss table with made-up losses, and every network that it knows."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from methods.budget import Budget
from methods.costs import Costs, costs
from methods.layers.part import Part
from methods.nasbert.encoding import architecture_of
from methods.nasbert.estimate import NasBertEstimates
from methods.nasbert.losses import BlockLosses
from methods.nasbert.paths import Paths
from methods.nasbert.space import NasBertSpace
from methods.network import NetworkSpec
from methods.space import Architecture
from methods.tasks.head import Head
from tests.methods.nasbert_cases import CLASSES, TINY, small_space

LENGTH, BATCH = 16, 2


@dataclass(frozen=True)
class Clock:
    """A made-up device: convolutions and narrow parts are slow for what they compute; sums of its times are exact."""

    scale: float = 1.5
    fixed: float = 2.0**-10

    def part(self, part: Part) -> float:
        slow = 3 if "convolution" in part.kind else 1
        return (slow * (part.other_parameters() // 16) + part.flops(LENGTH) // 4096) * 2.0**-20

    def whole(self, spec: NetworkSpec) -> float:
        return self.scale * sum(self.part(part) for part in (spec.stem, *spec.encoder.layers, spec.head)) + self.fixed  # type: ignore[attr-defined]


def made_up_losses(space: NasBertSpace, rows: int = 9, seed: int = 0) -> BlockLosses:
    """Larger paths lose less, with noise; losses are eighths, so that sums are exact and ties abound."""
    rng, paths = np.random.default_rng(seed), Paths(space)
    size = paths.costs(space.tables(TINY, CLASSES, LENGTH).operation[..., 1])
    blocks = []
    for _ in range(space.blocks):
        numbers = np.sort(rng.choice(len(paths), rows, replace=False))
        loss = np.round(8 * (2 - size[numbers] / size.max() + rng.normal(0, 0.3, rows))) / 8
        blocks.append((numbers, loss, np.arange(rows) % 3))
    return BlockLosses(tuple(blocks))


def estimates(
    losses: BlockLosses,
    space: NasBertSpace,
    heads: Sequence[Head] = (CLASSES,),
    devices: Mapping[str, Clock] | None = None,
    embedding: str = "searched",
) -> NasBertEstimates:
    return NasBertEstimates(losses, space, TINY, heads, LENGTH, BATCH, devices or {}, embedding)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Known:
    """One network of a table: its loss from the table, its costs from its spec."""

    architecture: Architecture
    embedding: int
    rows: tuple[int, ...]
    loss: float
    costs: Costs


def everything(losses: BlockLosses, space: NasBertSpace, clock: Clock, head: Head = CLASSES) -> list[Known]:
    """All networks of a table, widest embedding first, then by rows."""
    paths, found = Paths(space), []
    for embedding in sorted(space.embedding_sizes, reverse=True):
        for rows in itertools.product(*(range(len(numbers)) for numbers, _, _ in losses.blocks)):
            picked = list(zip(losses.blocks, rows, strict=True))
            architecture = architecture_of(embedding, [paths[int(numbers[row])] for (numbers, _, _), row in picked])
            spec = space.spec(architecture, TINY, head)
            counted = costs(spec, LENGTH, BATCH)
            whole = Costs(
                counted.embedding_parameters, counted.other_parameters, counted.flops, LENGTH, BATCH, {"clock": clock.whole(spec)}
            )
            found.append(Known(architecture, embedding, rows, sum(float(loss[row]) for (_, loss, _), row in picked), whole))
    return found


def budget_at(known: Sequence[Known], **shares: float) -> Budget:
    """Limits at these parts of the way from the least to the greatest cost."""
    limits: dict[str, float] = {}
    for name, part in shares.items():
        values = [one.costs.measured_against()["max_latency.clock" if name == "max_latency" else name] for one in known]
        limits[name] = min(values) + part * (max(values) - min(values))
    seconds = limits.pop("max_latency", None)
    return Budget(**limits, max_latency={} if seconds is None else {"clock": seconds})  # type: ignore[arg-type]


SPACE = small_space(embedding_sizes=(8, 24, 16))
LOSSES = made_up_losses(SPACE)
CLOCK = Clock()
KNOWN = everything(LOSSES, SPACE, CLOCK)
