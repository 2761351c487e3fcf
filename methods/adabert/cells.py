"""One cell of the supernet: every operation on every edge."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from methods.adabert.options import OPERATIONS
from methods.adabert.space import ZERO, AdaBertSpace, Genotype, operation_part
from methods.layers.cell import Text, run_cell

RunCell = Callable[[Text, Text, Tensor], Tensor]
PARAMETER_FREE = frozenset(name for name in OPERATIONS if "conv" not in name)


@dataclass(frozen=True)
class Mixing:
    """How an edge mixes its operations; the defaults are the paper's.

    `chosen`: only the operation of the largest weight is run (GDAS form). `auxiliary_skip`: so much of the input is added to every
    edge. `dropped`: the rate at which a parameter-free operation is left out of a row of the batch. `channels` (d,) of 0 and 1: only
    those go through the operations, the others pass by.
    """

    chosen: bool = False
    auxiliary_skip: float = 0.0
    dropped: float = 0.0
    channels: Tensor | None = None


PLAIN = Mixing()


class SupernetCell(nn.Module):
    """All operations between all nodes, by `nodes.<inner node>.<source>.<operation>`; zero has no module."""

    def __init__(self, space: AdaBertSpace) -> None:
        super().__init__()
        self.columns = space.columns

        def operations() -> nn.ModuleDict:
            return nn.ModuleDict({name: operation_part(name, space.options).build() for name in space.options.operations})

        self.nodes = nn.ModuleList(nn.ModuleList(operations() for _ in range(n + 2)) for n in range(space.options.nodes))
        self.weights = nn.Parameter(torch.zeros(space.options.nodes))

    def operation(self, node: int, source: int, name: str) -> nn.Module:
        sources = cast(nn.ModuleList, self.nodes[node])
        return cast(nn.ModuleDict, sources[source])[name]

    def chosen(self, genotype: Genotype) -> RunCell:
        """The cell with the edges of a genotype."""
        nodes = [[(source, self.operation(n, source, name)) for source, name in node] for n, node in enumerate(genotype)]
        return lambda older, newer, valid: run_cell(older, newer, valid, nodes, self.weights)

    def mixed(self, edges: Tensor, mixing: Mixing = PLAIN) -> RunCell:
        """The cell with all edges, each the sum of its operations weighted by its row of `edges` (E, O + 1)."""
        nodes: list[list[tuple[int, Callable[[Tensor, Tensor], Tensor]]]] = []
        row = 0
        for n, sources in enumerate(self.nodes):
            nodes.append([])
            for source in range(len(cast(nn.ModuleList, sources))):
                nodes[-1].append((source, self._mixture(n, source, edges[row], mixing)))
                row += 1
        return lambda older, newer, valid: run_cell(older, newer, valid, nodes, self.weights)

    def _mixture(self, node: int, source: int, weights: Tensor, mixing: Mixing) -> Callable[[Tensor, Tensor], Tensor]:
        columns = [int(weights.argmax())] if mixing.chosen else range(len(self.columns))
        inside = mixing.channels

        def run(hidden: Tensor, valid: Tensor) -> Tensor:
            entering = hidden if inside is None else hidden * inside
            total = torch.zeros_like(hidden)
            for column in columns:
                name = self.columns[column]
                if name != ZERO:
                    output = self.operation(node, source, name)(entering, valid)
                    if mixing.dropped and name in PARAMETER_FREE:
                        output = drop_path(output, mixing.dropped)
                    total = total + weights[column] * output
            if inside is not None:
                total = total * inside + hidden * (1 - inside)
            return total + mixing.auxiliary_skip * hidden if mixing.auxiliary_skip else total

        return run


def drop_path(output: Tensor, rate: float) -> Tensor:
    """(B, L, d) with whole rows of the batch set to zero at this rate, the others scaled up."""
    kept = torch.rand(len(output), 1, 1, device=output.device) >= rate
    return output * kept / (1 - rate)
