"""The operations on the edges of an AdaBERT cell: every one maps (B, L, d) to (B, L, d) at stride 1.

Each takes `valid` (B, L, 1), true at tokens, expects zeros elsewhere and leaves zeros there, so that padding never reaches a token.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods.layers.part import Part, Piece

Normalisation = Literal["batch", "layer", "folded"]


@dataclass(frozen=True)
class CellConvolution(Part):
    """ReLU -> dense convolution, "same" padding -> norm. `kernel` is odd; the receptive field is dilation * (kernel - 1) + 1.

    `normalisation`: `batch` or `layer` follow a convolution without bias; `folded` is a convolution with bias and nothing behind it.
    """

    kind: ClassVar[str] = "cell_convolution"
    width: int
    kernel: int
    dilation: int = 1
    normalisation: Normalisation = "batch"
    momentum: float = 0.1
    epsilon: float = 1e-5

    def other_parameters(self) -> int:
        return self.kernel * self.width * self.width + (1 if self.normalisation == "folded" else 2) * self.width

    def flops(self, length: int) -> int:
        return 2 * length * self.kernel * self.width * self.width

    def folded(self) -> CellConvolution:
        """With the batch norm in the convolution; a layer norm can't be."""
        return replace(self, normalisation="folded") if self.normalisation == "batch" else self

    def build(self) -> CellConvolutionModule:
        return CellConvolutionModule(self)


class CellConvolutionModule(nn.Module):
    def __init__(self, spec: CellConvolution) -> None:
        super().__init__()
        folded = spec.normalisation == "folded"
        reach = spec.dilation * (spec.kernel - 1) // 2
        self.convolution = nn.Conv1d(spec.width, spec.width, spec.kernel, padding=reach, dilation=spec.dilation, bias=folded)
        self.norm: MaskedBatchNorm | nn.LayerNorm | None = None
        if spec.normalisation == "batch":
            self.norm = MaskedBatchNorm(spec.width, spec.momentum, spec.epsilon)
        elif spec.normalisation == "layer":
            self.norm = nn.LayerNorm(spec.width, eps=spec.epsilon)

    def forward(self, hidden: Tensor, valid: Tensor) -> Tensor:
        output: Tensor = self.convolution(F.relu(hidden).transpose(1, 2)).transpose(1, 2)
        if isinstance(self.norm, MaskedBatchNorm):
            output = self.norm(output, valid)
        elif self.norm is not None:
            output = self.norm(output)
        return output.masked_fill(~valid, 0.0)


class MaskedBatchNorm(nn.Module):
    """Batch normalisation over channels of (B, L, d) whose batch statistics come from valid positions alone.

    Without padding it is `nn.BatchNorm1d`, its running estimates (unbiased variance, `momentum` of the new value) included.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, width: int, momentum: float = 0.1, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.momentum = momentum
        self.epsilon = epsilon
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_var", torch.ones(width))

    def forward(self, hidden: Tensor, valid: Tensor) -> Tensor:
        mean, variance = self._batch_statistics(hidden.float(), valid) if self.training else (self.running_mean, self.running_var)
        scale = self.weight * torch.rsqrt(variance + self.epsilon)
        return (hidden.float() * scale + (self.bias - mean * scale)).to(hidden.dtype)

    def _batch_statistics(self, hidden: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        count = valid.sum().clamp_min(1)
        mean = hidden.masked_fill(~valid, 0.0).sum((0, 1)) / count
        variance = (hidden - mean).masked_fill(~valid, 0.0).square().sum((0, 1)) / count
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1).clamp_min(1), self.momentum)
        return mean, variance

    @torch.no_grad()
    def affine(self) -> tuple[Tensor, Tensor]:
        """Scale and shift (d,) that it applies in eval mode."""
        scale = self.weight * torch.rsqrt(self.running_var + self.epsilon)
        return scale, self.bias - self.running_mean * scale


@dataclass(frozen=True)
class CellPool(Part):
    """Maximum or average over `kernel` neighbours (odd). The maximum sees minus infinity at padding, the average always divides by
    `kernel`. `relu`: the input passes a ReLU first, as the TensorFlow re-release has it."""

    kind: ClassVar[str] = "cell_pool"
    mode: Literal["max", "average"]
    kernel: int = 3
    relu: bool = False

    def other_parameters(self) -> int:
        return 0

    def flops(self, length: int) -> int:  # noqa: ARG002 (pooling is free by the convention)
        return 0

    def build(self) -> CellPoolModule:
        return CellPoolModule(self)


class CellPoolModule(nn.Module):
    def __init__(self, spec: CellPool) -> None:
        super().__init__()
        self.spec = spec

    def forward(self, hidden: Tensor, valid: Tensor) -> Tensor:
        kernel = self.spec.kernel
        channels = (F.relu(hidden) if self.spec.relu else hidden).transpose(1, 2)
        if self.spec.mode == "max":
            seen = channels.masked_fill(~valid.transpose(1, 2), -torch.inf)
            # max_pool1d gives the same; but traced by torch.export it takes one length for the only one.
            output = F.max_pool2d(seen[:, :, None], (1, kernel), stride=1, padding=(0, kernel // 2))[:, :, 0]
        else:
            output = F.avg_pool1d(channels, kernel, stride=1, padding=kernel // 2, count_include_pad=True)
        return output.transpose(1, 2).masked_fill(~valid, 0.0)


@dataclass(frozen=True)
class CellIdentity(Part):
    """The input itself."""

    kind: ClassVar[str] = "cell_identity"

    def other_parameters(self) -> int:
        return 0

    def flops(self, length: int) -> int:  # noqa: ARG002
        return 0

    def pieces(self, width: int = 0) -> tuple[Piece, ...]:  # noqa: ARG002
        return ()

    def build(self) -> CellIdentityModule:
        return CellIdentityModule()


class CellIdentityModule(nn.Module):
    def forward(self, hidden: Tensor, valid: Tensor) -> Tensor:  # noqa: ARG002 (one signature)
        return hidden
