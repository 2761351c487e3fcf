"""Block losses and costs of deployed networks as chains of additive tables: one chain per embedding width."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from methods.additive import Chain, Group
from methods.budget import LIMITS
from methods.costs import Costs
from methods.nasbert.losses import BlockLosses
from methods.nasbert.paths import Paths
from methods.nasbert.space import NasBertSpace
from methods.nasbert.tables import part_tables
from methods.tasks.head import Head

if TYPE_CHECKING:
    from methods.backbone import BackboneConfig
    from methods.layers.part import Part

Floats = npt.NDArray[np.float64]


class Device(Protocol):
    """A latency table: a network takes `scale` x the sum of its parts + `fixed` seconds."""

    @property
    def scale(self) -> float: ...
    @property
    def fixed(self) -> float: ...
    def part(self, part: Part) -> float:
        """Seconds of one part."""


def cost_columns(devices: Iterable[str]) -> tuple[str, ...]:
    """The columns of costs, by the name of the limit that speaks of each."""
    return (*LIMITS, *(f"max_latency.{device}" for device in devices))


def costs_of_row(row: Sequence[float], length: int, batch: int, devices: Iterable[str]) -> Costs:
    """Costs from their columns."""
    parameters, other, flops, *seconds = row
    latency = dict(zip(devices, seconds, strict=True))
    return Costs(int(parameters) - int(other), int(other), int(flops), length, batch, latency)


def cost_chains(
    losses: BlockLosses,
    space: NasBertSpace,
    paths: Paths,
    backbone: BackboneConfig,
    heads: Sequence[Head],
    length: int,
    batch: int,
    devices: Mapping[str, Device],
) -> tuple[Chain, ...]:
    """A chain per embedding width of the space, a group per block, a row per path that `losses` knows.

    Rows score their loss; states are places of hidden sizes; costs have `cost_columns` and are those under the dearest of `heads`,
    column by column (heads differ in their last matrix alone). Stem and head are counted with the first and last block.
    """
    if not heads:
        raise ValueError("costs need at least one head")
    tables = [_tables(space, backbone, head, length, batch, devices) for head in heads]
    dearest = np.max([table["head"] for table in tables], axis=0)
    stem, operation, link = (tables[0][name] for name in ("stem", "operation", "link"))
    blocks = []
    for numbers, loss, _ in losses.blocks:
        hidden = paths.hidden[numbers]
        blocks.append((hidden, operation[hidden[:, None], paths.operations[numbers]].sum(axis=1), loss))
    chains = []
    for e in range(len(space.embedding_sizes)):
        groups = []
        for n, (hidden, costs, loss) in enumerate(blocks):
            whole = costs + stem[e, hidden] if n == 0 else costs
            groups.append(Group(hidden, whole + dearest[e, hidden] if n == len(blocks) - 1 else whole, loss))
        chains.append(Chain(tuple(groups), (link,) * (len(groups) - 1)))
    return tuple(chains)


def _tables(
    space: NasBertSpace, backbone: BackboneConfig, head: Head, length: int, batch: int, devices: Mapping[str, Device]
) -> dict[str, Floats]:
    """Stem, operation, link and head as in `CostTables`, in the columns of `cost_columns`; a device's `fixed` counts with the stem."""
    counts = space.tables(backbone, head, length)
    parts = part_tables(space.embedding_sizes, space.hidden_sizes, space.operations, space.settings, backbone, head)
    seconds = [parts.measured(lambda part, device=device: _seconds(part, device)) for device in devices.values()]  # type: ignore[misc]
    fixed = [device.fixed for device in devices.values()]
    found: dict[str, Floats] = {}
    for name in ("stem", "operation", "link", "head"):
        table: npt.NDArray[Any] = getattr(counts, name)
        columns = [table[..., 0] + table[..., 1], table[..., 1], table[..., 2] * batch, *(of_device[name] for of_device in seconds)]
        found[name] = np.stack(columns, axis=-1).astype(np.float64)
    found["stem"][..., len(LIMITS) :] += fixed
    return found


def _seconds(part: Part | None, device: Device) -> float:
    return 0.0 if part is None else device.scale * device.part(part)
