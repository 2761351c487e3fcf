"""The feed-forward sub-layer with residual and post-LayerNorm, elastic in its neurons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F
from transformers.activations import ACT2FN

from methods.layers.part import Part
from methods.layers.prefix import prefix


@dataclass(frozen=True)
class FeedForward(Part):
    """y = LN(x + drop(W_2 activation(W_1 x)))."""

    kind: ClassVar[str] = "feed_forward"
    hidden: int
    neurons: int
    dropout: float = 0.1
    layer_norm_eps: float = 1e-12
    activation: str = "gelu"

    def other_parameters(self) -> int:
        return 2 * self.neurons * self.hidden + self.neurons + self.hidden + 2 * self.hidden

    def flops(self, length: int) -> int:
        return 4 * length * self.neurons * self.hidden

    def build(self) -> ElasticFeedForward:
        return ElasticFeedForward(self)


class ElasticFeedForward(nn.Module):
    """Runs with all neurons, or with the first `neurons` of them by slicing."""

    def __init__(self, spec: FeedForward) -> None:
        super().__init__()
        self.intermediate = nn.Linear(spec.hidden, spec.neurons)
        self.output = nn.Linear(spec.neurons, spec.hidden)
        self.activation = ACT2FN[spec.activation]
        self.dropout = nn.Dropout(spec.dropout)
        self.norm = nn.LayerNorm(spec.hidden, eps=spec.layer_norm_eps)

    def forward(self, hidden: Tensor, mask: Tensor | None = None, neurons: int | None = None) -> Tensor:  # noqa: ARG002 (one signature)
        """`hidden` (B, L, H); returns (B, L, H). The mask is not needed: tokens do not mix here."""
        n = self.intermediate.out_features if neurons is None else neurons
        inner = self.activation(F.linear(hidden, prefix(self.intermediate.weight, n), prefix(self.intermediate.bias, n)))
        output = F.linear(inner, prefix(self.output.weight, n, 1), self.output.bias)
        normed: Tensor = self.norm(hidden + (self.dropout(output) if self.training else output))
        return normed
