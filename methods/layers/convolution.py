"""The separable convolution of NAS-BERT: two stages of depthwise and pointwise convolution with residual and post-LayerNorm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn
from transformers.activations import ACT2FN

from methods.layers.part import Part

STAGES = 2


@dataclass(frozen=True)
class SeparableConvolution(Part):
    """Twice x <- LN(x + drop(activation(pointwise(depthwise(x))))).

    The paper's appendix counts one stage; its table of FLOPs, and the port of the model in ML.NET, have two. `kernel` is odd.
    """

    kind: ClassVar[str] = "separable_convolution"
    hidden: int
    kernel: int
    dropout: float = 0.0
    layer_norm_eps: float = 1e-12
    activation: str = "gelu"

    def other_parameters(self) -> int:
        depthwise = self.hidden * self.kernel + self.hidden
        pointwise = self.hidden * self.hidden + self.hidden
        return STAGES * (depthwise + pointwise + 2 * self.hidden)

    def flops(self, length: int) -> int:
        return STAGES * 2 * length * self.hidden * (self.hidden + self.kernel)

    def build(self) -> SeparableConvolutionModule:
        return SeparableConvolutionModule(self)


class SeparableConvolutionModule(nn.ModuleList):
    """The stages one after another."""

    def __init__(self, spec: SeparableConvolution) -> None:
        super().__init__([SeparableStage(spec) for _ in range(STAGES)])

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """`hidden` (B, L, H), `mask` (B, L) with 1 at tokens; returns (B, L, H), zero at padded positions."""
        tokens = mask[..., None].to(hidden.dtype)
        for stage in self:
            hidden = stage(hidden, tokens)
        return hidden * tokens


class SeparableStage(nn.Module):
    def __init__(self, spec: SeparableConvolution) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(spec.hidden, spec.hidden, spec.kernel, padding=spec.kernel // 2, groups=spec.hidden)
        self.pointwise = nn.Linear(spec.hidden, spec.hidden)
        self.activation = ACT2FN[spec.activation]
        self.dropout = nn.Dropout(spec.dropout)
        self.norm = nn.LayerNorm(spec.hidden, eps=spec.layer_norm_eps)

    def forward(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        """`hidden` (B, L, H), `tokens` (B, L, 1): what is padded enters the convolution as zero."""
        mixed = self.depthwise((hidden * tokens).transpose(1, 2)).transpose(1, 2)
        normed: Tensor = self.norm(hidden + self.dropout(self.activation(self.pointwise(mixed))))
        return normed
