"""Output layers: from the states of an encoder to what the task asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN

from methods.layers.part import Part, Piece

States = tuple[Tensor, ...]


@dataclass(frozen=True)
class FirstTokenHead(Part):
    """First token -> (pooler: dense + tanh) -> dropout -> linear: BERT's classifier, and without pooler NAS-BERT's.

    RoBERTa's is BERT's with a dropout (`first_dropout`) before the dense layer, which is the classifier's own: none is pre-trained.
    """

    kind: ClassVar[str] = "first_token_head"
    hidden: int
    labels: int
    pooler: bool = True
    dropout: float = 0.1
    first_dropout: float = 0.0

    def other_parameters(self) -> int:
        return (self.hidden * self.hidden + self.hidden if self.pooler else 0) + self.hidden * self.labels + self.labels

    def flops(self, length: int) -> int:  # noqa: ARG002 (the first token alone)
        return (2 * self.hidden * self.hidden if self.pooler else 0) + 2 * self.hidden * self.labels

    def build(self) -> FirstTokenHeadModule:
        return FirstTokenHeadModule(self)


class FirstTokenHeadModule(nn.Module):
    def __init__(self, spec: FirstTokenHead) -> None:
        super().__init__()
        self.first_dropout = nn.Dropout(spec.first_dropout)
        self.pooler = nn.Linear(spec.hidden, spec.hidden) if spec.pooler else None
        self.dropout = nn.Dropout(spec.dropout)
        self.classifier = nn.Linear(spec.hidden, spec.labels)

    def forward(self, states: States, mask: Tensor) -> Tensor:  # noqa: ARG002 (one signature)
        """Logits (B, labels) from the last state (B, L, H)."""
        first = self.first_dropout(states[-1][:, 0])
        if self.pooler is not None:
            first = torch.tanh(self.pooler(first))
        logits: Tensor = self.classifier(self.dropout(first))
        return logits


@dataclass(frozen=True)
class SpanHead(Part):
    """Start and end scores of every token."""

    kind: ClassVar[str] = "span_head"
    hidden: int

    def other_parameters(self) -> int:
        return 2 * self.hidden + 2

    def flops(self, length: int) -> int:
        return 4 * length * self.hidden

    def build(self) -> SpanHeadModule:
        return SpanHeadModule(self.hidden)


class SpanHeadModule(nn.Module):
    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(hidden, 2)

    def forward(self, states: States, mask: Tensor) -> Tensor:
        """Logits (B, L, 2): start and end; padded positions get the lowest finite score."""
        logits: Tensor = self.classifier(states[-1])
        return logits.masked_fill(~mask.bool()[..., None], torch.finfo(logits.dtype).min)


@dataclass(frozen=True)
class MaskedLanguageModelHead(Part):
    """Dense + activation + LayerNorm, then the word table as decoder (tied: counted with the embedding) with a bias of its own."""

    kind: ClassVar[str] = "masked_language_model_head"
    hidden: int
    width: int
    vocabulary: int
    activation: str = "gelu"
    layer_norm_eps: float = 1e-12

    def other_parameters(self) -> int:
        return self.hidden * self.width + self.width + 2 * self.width + self.vocabulary

    def flops(self, length: int) -> int:
        return 2 * length * self.hidden * self.width + 2 * length * self.width * self.vocabulary

    def build(self) -> MaskedLanguageModelHeadModule:
        return MaskedLanguageModelHeadModule(self)


class MaskedLanguageModelHeadModule(nn.Module):
    """`Network` hands the word table over at each call: the weight exists once."""

    def __init__(self, spec: MaskedLanguageModelHead) -> None:
        super().__init__()
        self.transform = nn.Linear(spec.hidden, spec.width)
        self.activation = ACT2FN[spec.activation]
        self.norm = nn.LayerNorm(spec.width, eps=spec.layer_norm_eps)
        self.bias = nn.Parameter(torch.zeros(spec.vocabulary))

    def forward(self, states: States, mask: Tensor, table: Tensor) -> Tensor:  # noqa: ARG002 (one signature)
        """Logits (B, L, V); `table` (V, width) is the stem's word table."""
        return nn.functional.linear(self.norm(self.activation(self.transform(states[-1]))), table, self.bias)


@dataclass(frozen=True)
class NoHead(Part):
    """No output layer: the last hidden state itself."""

    kind: ClassVar[str] = "no_head"

    def other_parameters(self) -> int:
        return 0

    def flops(self, length: int) -> int:  # noqa: ARG002
        return 0

    def pieces(self, width: int = 0) -> tuple[Piece, ...]:  # noqa: ARG002
        return ()

    def build(self) -> NoHeadModule:
        return NoHeadModule()


class NoHeadModule(nn.Module):
    def forward(self, states: States, mask: Tensor) -> Tensor:  # noqa: ARG002 (one signature)
        return states[-1]
