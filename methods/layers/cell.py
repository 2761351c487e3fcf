"""AdaBERT's encoder, a stack of equal cells, and its output layer, attention over the cells' outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from methods.layers.operations import CellIdentity
from methods.layers.part import Part, Piece

States = tuple[Tensor, ...]
Text = tuple[Tensor, Tensor]
"""Hidden state (B, L, d), zero at padding, with its mask: (B, L) of 0 and 1 outside the cells, (B, L, 1) of booleans inside."""
Operation = Callable[[Tensor, Tensor], Tensor]
Nodes = Sequence[Sequence[tuple[int, Operation]]]
"""Per inner node its incoming edges: source and operation."""


@dataclass(frozen=True)
class Edge(Part):
    """An operation on one source: 0 and 1 are the cell's inputs (the older one first), 2 + n is inner node n."""

    kind: ClassVar[str] = "cell_edge"
    source: int
    operation: Part

    def other_parameters(self) -> int:
        return self.operation.other_parameters()

    def flops(self, length: int) -> int:
        return self.operation.flops(length)

    def build(self) -> nn.Module:
        return self.operation.build()


@dataclass(frozen=True)
class Cell(Part):
    """Inner nodes, each the sum of its edges; the output is their sum weighted by a softmax over one learned scalar per node."""

    kind: ClassVar[str] = "cell"
    nodes: tuple[tuple[Edge, ...], ...]

    def other_parameters(self) -> int:
        return sum(edge.other_parameters() for node in self.nodes for edge in node) + len(self.nodes)

    def flops(self, length: int) -> int:
        return sum(edge.flops(length) for node in self.nodes for edge in node)

    def pieces(self, width: int = 0) -> tuple[Piece, ...]:
        """The edges' operations, and the sums: the cell with identities on its edges, whose sources do not matter."""
        operations = [edge.operation for node in self.nodes for edge in node]
        sums = Cell(tuple(tuple(Edge(0, CellIdentity()) for _ in node) for node in self.nodes))
        timed = (replace(piece, role="operation") for operation in operations for piece in operation.pieces(width))
        return (*timed, Piece(sums, width, "cell"))

    def build(self) -> CellModule:
        return CellModule(self)


class CellModule(nn.Module):
    def __init__(self, spec: Cell) -> None:
        super().__init__()
        self.sources = [[edge.source for edge in node] for node in spec.nodes]
        self.nodes = nn.ModuleList(nn.ModuleList(edge.build() for edge in node) for node in spec.nodes)
        self.weights = nn.Parameter(torch.zeros(len(spec.nodes)))

    def forward(self, older: Text, newer: Text, valid: Tensor) -> Tensor:
        """The cell's output (B, L, d); `valid` (B, L, 1) is the mask of everything that the cell makes."""
        modules = [list(cast(nn.ModuleList, node)) for node in self.nodes]
        nodes = [list(zip(sources, node, strict=True)) for sources, node in zip(self.sources, modules, strict=True)]
        return run_cell(older, newer, valid, nodes, self.weights)


def run_cell(older: Text, newer: Text, valid: Tensor, nodes: Nodes, weights: Tensor) -> Tensor:
    """One cell with these edges and node weights (N,); an operation sees the mask of its source."""
    values = [older, newer]
    for node in nodes:
        total = torch.zeros_like(older[0])
        for source, operation in node:
            total = total + operation(*values[source])
        values.append((total, valid))
    return weighted_sum([value for value, _ in values[2:]], weights)


def weighted_sum(values: Sequence[Tensor], weights: Tensor) -> Tensor:
    """Sum of equal-shaped tensors with softmax(weights), element by element (no matrix product, hence no FLOPs by the convention)."""
    shares = weights.softmax(0)
    total = values[0] * shares[0]
    for i, value in enumerate(values[1:], 1):
        total = total + value * shares[i]
    return total


@dataclass(frozen=True)
class CellStack(Part):
    """`count` cells of one architecture, each with weights of its own, on the outputs of the two cells before it."""

    kind: ClassVar[str] = "cell_stack"
    cell: Cell
    count: int

    def other_parameters(self) -> int:
        return self.count * self.cell.other_parameters()

    def flops(self, length: int) -> int:
        return self.count * self.cell.flops(length)

    def pieces(self, width: int = 0) -> tuple[Piece, ...]:
        return self.count * self.cell.pieces(width)

    def build(self) -> CellStackModule:
        return CellStackModule(self)


class CellStackModule(nn.ModuleList):
    def __init__(self, spec: CellStack) -> None:
        super().__init__([spec.cell.build() for _ in range(spec.count)])

    def forward(self, texts: tuple[Text, ...]) -> tuple[States, Tensor]:
        """`texts`: one text or two of equal shape, (hidden (B, L, d), mask (B, L)) each. Returns what `run_cells` does."""
        return run_cells(texts, self)


def run_cells(texts: Sequence[Text], cells: Iterable[Callable[[Text, Text, Tensor], Tensor]]) -> tuple[States, Tensor]:
    """State 0 is the mean of the two texts (a single one is both), state k the output of cell k; and the union (B, L) of the masks.

    Raises ValueError where two texts differ in shape.
    """
    (first, mask_first), (second, mask_second) = texts[0], texts[-1]
    if first.shape != second.shape:
        raise ValueError(f"two texts of one batch are padded to one length; got {tuple(first.shape)} and {tuple(second.shape)}")
    mask = torch.maximum(mask_first, mask_second)
    valid = mask.bool()[..., None]
    older, newer = (first, mask_first.bool()[..., None]), (second, mask_second.bool()[..., None])
    states = [(first + second) / 2]
    for cell in cells:
        output = cell(older, newer, valid)
        states.append(output)
        older, newer = newer, (output, valid)
    return tuple(states), mask


@dataclass(frozen=True)
class LayerAttentionHead(Part):
    """Mean over tokens of each of `states` states -> sum with softmax over one learned scalar per state -> tanh -> dropout -> linear."""

    kind: ClassVar[str] = "layer_attention_head"
    width: int
    states: int
    labels: int
    dropout: float = 0.1

    def other_parameters(self) -> int:
        """`states` may be an array."""
        return self.states + self.labels * (self.width + 1)

    def flops(self, length: int) -> int:  # noqa: ARG002 (means are free by the convention)
        return 2 * self.labels * self.width

    def build(self) -> LayerAttentionHeadModule:
        return LayerAttentionHeadModule(self)


class LayerAttentionHeadModule(nn.Module):
    def __init__(self, spec: LayerAttentionHead) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(spec.states))
        self.dropout = nn.Dropout(spec.dropout)
        self.classifier = nn.Linear(spec.width, spec.labels)

    def forward(self, states: States, mask: Tensor) -> Tensor:
        """Logits (B, labels)."""
        logits: Tensor = self.classifier(self.dropout(attended(states, mask, self.weights)))
        return logits


def attended(states: States, mask: Tensor, weights: Tensor) -> Tensor:
    """tanh of the weighted sum of the states' means over tokens: (B, d). `weights`: one per state."""
    shares = mask / mask.sum(1, keepdim=True).clamp_min(1)
    return torch.tanh(weighted_sum([(state * shares[..., None].to(state.dtype)).sum(1) for state in states], weights))
