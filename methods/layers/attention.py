"""Multi-head self-attention with residual and post-LayerNorm, elastic in its heads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from methods.layers.part import Part
from methods.layers.prefix import prefix


@dataclass(frozen=True)
class SelfAttention(Part):
    """y = LN(x + drop(W_o attention(x))); attention width is heads * head_size, the residual stream is `hidden` wide."""

    kind: ClassVar[str] = "self_attention"
    hidden: int
    heads: int
    head_size: int
    dropout: float = 0.1
    attention_dropout: float = 0.1
    layer_norm_eps: float = 1e-12

    def other_parameters(self) -> int:
        width = self.heads * self.head_size
        return 4 * width * self.hidden + 3 * width + self.hidden + 2 * self.hidden

    def flops(self, length: int) -> int:
        width = self.heads * self.head_size
        return 8 * length * width * self.hidden + 4 * length * length * width

    def build(self) -> ElasticSelfAttention:
        return ElasticSelfAttention(self)


class ElasticSelfAttention(nn.Module):
    """Runs with all heads, or with the first `heads` of them by slicing (DynaBERT, section 2 of its paper)."""

    def __init__(self, spec: SelfAttention) -> None:
        super().__init__()
        width = spec.heads * spec.head_size
        self.head_size = spec.head_size
        self.attention_dropout = spec.attention_dropout
        self.query = nn.Linear(spec.hidden, width)
        self.key = nn.Linear(spec.hidden, width)
        self.value = nn.Linear(spec.hidden, width)
        self.output = nn.Linear(width, spec.hidden)
        self.dropout = nn.Dropout(spec.dropout)
        self.norm = nn.LayerNorm(spec.hidden, eps=spec.layer_norm_eps)

    def forward(self, hidden: Tensor, mask: Tensor, heads: int | None = None, queries: int | None = None) -> Tensor:
        """`hidden` (B, L, H), `mask` (B, L) with 1 at tokens; returns (B, L, H), or (B, `queries`, H): the first positions alone."""
        width = self.query.out_features if heads is None else heads * self.head_size
        asked = hidden if queries is None else hidden[:, :queries]

        def project(layer: nn.Linear, states: Tensor) -> Tensor:
            flat = F.linear(states, prefix(layer.weight, width), prefix(layer.bias, width))
            return flat.view(*states.shape[:2], -1, self.head_size).transpose(1, 2)

        context = F.scaled_dot_product_attention(
            project(self.query, asked),
            project(self.key, hidden),
            project(self.value, hidden),
            attn_mask=mask.bool()[:, None, None, :],
            dropout_p=self.attention_dropout if self.training else 0.0,
        )
        flat = context.transpose(1, 2).reshape(*asked.shape[:2], width)
        output = F.linear(flat, prefix(self.output.weight, width, 1), self.output.bias)
        normed: Tensor = self.norm(asked + (self.dropout(output) if self.training else output))
        return normed
