"""One cell of the supernet: every operation on every edge."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from methods.adabert.space import ZERO, AdaBertSpace, Genotype, operation_part
from methods.layers.cell import Text, run_cell

RunCell = Callable[[Text, Text, Tensor], Tensor]


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

    def mixed(self, edges: Tensor) -> RunCell:
        """The cell with all edges, each the sum of its operations weighted by its row of `edges` (E, O + 1)."""
        nodes: list[list[tuple[int, Callable[[Tensor, Tensor], Tensor]]]] = []
        row = 0
        for n, sources in enumerate(self.nodes):
            nodes.append([])
            for source in range(len(cast(nn.ModuleList, sources))):
                nodes[-1].append((source, self._mixture(n, source, edges[row])))
                row += 1
        return lambda older, newer, valid: run_cell(older, newer, valid, nodes, self.weights)

    def _mixture(self, node: int, source: int, weights: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        def run(hidden: Tensor, valid: Tensor) -> Tensor:
            total = torch.zeros_like(hidden)
            for column, name in enumerate(self.columns):
                if name != ZERO:
                    total = total + weights[column] * self.operation(node, source, name)(hidden, valid)
            return total

        return run
