"""Turning the basis in which an operation works: where a linear map between two widths has no place of its own.

LayerNorm commutes with a rotation that keeps the mean of the features where its gains are equal, and so, nearly, does a sub-layer whose
linear maps are turned with it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from methods.layers.attention import ElasticSelfAttention
from methods.layers.convolution import SeparableStage
from methods.layers.feed_forward import ElasticFeedForward


@dataclass(frozen=True)
class Affine:
    """x -> weight x + bias, float64 on the CPU: `weight` (outputs, inputs), `bias` (outputs,)."""

    weight: Tensor
    bias: Tensor

    @classmethod
    def of(cls, layer: nn.Linear) -> Affine:
        return cls(double(layer.weight), double(layer.bias))

    @classmethod
    def linear(cls, weight: Tensor) -> Affine:
        return cls(weight, torch.zeros(len(weight), dtype=weight.dtype))

    def after(self, first: Affine) -> Affine:
        return Affine(self.weight @ first.weight, self.weight @ first.bias + self.bias)

    @torch.no_grad()
    def write(self, layer: nn.Linear) -> None:
        layer.weight.copy_(self.weight)
        layer.bias.copy_(self.bias)


def double(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float64)


def nearest_rotation(weight: Tensor) -> tuple[Tensor, float]:
    """Rotation Q (n, n) with Q 1 = 1 and scale s for which s Q is nearest to `weight` (n, n) on all that is orthogonal to 1.

    Orthogonal Procrustes problem (Schönemann 1966); what LayerNorm gives is orthogonal to the vector of ones but for gains and shift.
    """
    mean = torch.full_like(weight, 1 / len(weight))
    rest = torch.eye(len(weight), dtype=weight.dtype) - mean
    left, sizes, right = torch.linalg.svd(rest @ weight @ rest)
    return left[:, :-1] @ right[:-1] + mean, float(sizes[:-1].mean())


@torch.no_grad()
def turn(operation: nn.Module, rotation: Tensor) -> None:
    """Changes a sub-layer f so that it answers Q^T f(Q x) to x, as far as its form allows; `rotation`: Q (h, h), float64.

    Exact where the gains of its norms are equal, but for convolutions: of a stage's dense kernel per channel the nearest one that
    separates is taken, and its activation is treated as if it were linear.
    """
    for part in operation.modules():
        if isinstance(part, ElasticSelfAttention):
            _turn_maps((part.query, part.key, part.value), part.output, rotation)
        elif isinstance(part, ElasticFeedForward):
            _turn_maps((part.intermediate,), part.output, rotation)
        elif isinstance(part, SeparableStage):
            _turn_convolution(part, rotation)
        elif isinstance(part, nn.LayerNorm):
            part.weight.copy_(rotation.square().T @ double(part.weight))
            part.bias.copy_(rotation.T @ double(part.bias))


def _turn_maps(readers: tuple[nn.Linear, ...], writer: nn.Linear, rotation: Tensor) -> None:
    for layer in readers:
        Affine.of(layer).after(Affine.linear(rotation)).write(layer)
    Affine.linear(rotation.T).after(Affine.of(writer)).write(writer)


def _turn_convolution(stage: SeparableStage, rotation: Tensor) -> None:
    kernels, pointwise = double(stage.depthwise.weight)[:, 0], Affine.of(stage.pointwise)
    bias = torch.zeros(len(kernels), dtype=torch.float64) if stage.depthwise.bias is None else double(stage.depthwise.bias)
    mixed = rotation.T @ pointwise.weight
    dense = torch.einsum("oc,ck,ci->iok", mixed, kernels, rotation)
    left, size, right = torch.linalg.svd(dense, full_matrices=False)
    root = size[:, :1].sqrt()
    Affine((left[:, :, 0] * root).T, mixed @ bias + rotation.T @ pointwise.bias).write(stage.pointwise)
    stage.depthwise.weight[:, 0].copy_(right[:, 0] * root)
    if stage.depthwise.bias is not None:
        stage.depthwise.bias.zero_()
