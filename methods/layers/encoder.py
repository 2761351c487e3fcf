"""Encoders that run one layer after another: DynaBERT's transformer layers, NAS-BERT's sub-layers and links."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from methods.layers.attention import SelfAttention
from methods.layers.feed_forward import FeedForward
from methods.layers.part import Part, Piece

States = tuple[Tensor, ...]


@dataclass(frozen=True)
class TransformerLayer(Part):
    """Attention, then feed-forward. `index`: which layer of the backbone (from 0) it was cut from."""

    kind: ClassVar[str] = "transformer_layer"
    attention: SelfAttention
    feed_forward: FeedForward
    index: int = 0

    def other_parameters(self) -> int:
        return self.attention.other_parameters() + self.feed_forward.other_parameters()

    def flops(self, length: int) -> int:
        return self.attention.flops(length) + self.feed_forward.flops(length)

    def pieces(self, width: int = 0) -> tuple[Piece, ...]:
        return self.attention.pieces(width) + self.feed_forward.pieces(width)

    def build(self) -> ElasticTransformerLayer:
        return ElasticTransformerLayer(self)


class ElasticTransformerLayer(nn.Module):
    def __init__(self, spec: TransformerLayer) -> None:
        super().__init__()
        self.attention = spec.attention.build()
        self.feed_forward = spec.feed_forward.build()

    def forward(
        self, hidden: Tensor, mask: Tensor, heads: int | None = None, neurons: int | None = None, queries: int | None = None
    ) -> Tensor:
        """`hidden` (B, L, H), `mask` (B, L); the first `heads` heads and `neurons` neurons, or all. With `queries` the output has the
        first positions alone: (B, `queries`, H)."""
        output: Tensor = self.feed_forward(self.attention(hidden, mask, heads, queries), mask, neurons)
        return output


@dataclass(frozen=True)
class Link(Part):
    """A linear map between two widths."""

    kind: ClassVar[str] = "link"
    inputs: int
    outputs: int

    def other_parameters(self) -> int:
        return self.inputs * self.outputs + self.outputs

    def flops(self, length: int) -> int:
        return 2 * length * self.inputs * self.outputs

    def build(self) -> LinkModule:
        return LinkModule(self.inputs, self.outputs)


class LinkModule(nn.Linear):
    def forward(self, hidden: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, L, inputs) -> (B, L, outputs), padded positions zero where a mask is given."""
        output = super().forward(hidden)
        return output if mask is None else output * mask[..., None].to(output.dtype)


@dataclass(frozen=True)
class Chain(Part):
    """Layers one after another; each takes (hidden, mask) and returns the next hidden state."""

    kind: ClassVar[str] = "chain"
    layers: tuple[Part, ...]

    def other_parameters(self) -> int:
        return sum(layer.other_parameters() for layer in self.layers)

    def flops(self, length: int) -> int:
        return sum(layer.flops(length) for layer in self.layers)

    def pieces(self, width: int = 0) -> tuple[Piece, ...]:
        found: list[Piece] = []
        for layer in self.layers:
            found += layer.pieces(width)
            width = layer.outputs if isinstance(layer, Link) else width
        return tuple(found)

    def build(self) -> ChainModule:
        return ChainModule(self)


class ChainModule(nn.ModuleList):
    def __init__(self, spec: Chain) -> None:
        super().__init__([layer.build() for layer in spec.layers])

    def forward(self, texts: tuple[tuple[Tensor, Tensor], ...]) -> tuple[States, Tensor]:
        """`texts`: (hidden (B, L, H), mask (B, L)) of the one text. Returns the n+1 states (input first) and the mask."""
        hidden, mask = texts[0]
        states, valid = [hidden], mask.bool()
        for layer in self:
            states.append(layer(states[-1], valid))
        return tuple(states), mask
