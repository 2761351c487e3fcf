"""DynaBERT's space: one width and one depth multiplier for the whole model (paper, section 2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from methods.backbone import BackboneConfig
from methods.costs import CostArrays
from methods.errors import UserError
from methods.layers.attention import SelfAttention
from methods.layers.encoder import Chain, TransformerLayer
from methods.layers.feed_forward import FeedForward
from methods.network import NetworkSpec, backbone_head, make_stem
from methods.space import Architecture, Assignment, Choice, Form, SearchSpace, Value
from methods.tasks.head import Head

DepthRule = Literal["floor", "keep_top"]
METHOD_NAME = "dynabert"


def exact(multiplier: float) -> Fraction:
    """The multiplier as it was written: 0.1 is a tenth."""
    return Fraction(str(multiplier))


def kept_heads(heads: int, width: float) -> int:
    """round(A m_w), half to even."""
    return round(heads * exact(width))


def kept_neurons(intermediate: int, heads: int, kept: int) -> int:
    """The feed-forward layer is cut on the grid of the heads: I a / A, rounded down, in integers."""
    return intermediate * kept // heads


def kept_layers(layers: int, depth: float, rule: DepthRule) -> tuple[int, ...]:
    """Indices (from 0) of the n = round(L m_d) layers that stay.

    `floor` (reference code): floor(i / m_d), i = 0..n-1, which keeps the first layer and drops the last.
    `keep_top` (PaddleSlim's reading of the paper): floor(i / m_d) - 1, i = 1..n, which keeps the last one where 1/m_d divides. Where
    rounding n up would lead beyond the last layer, n / L stands for m_d.
    """
    share = exact(depth)
    n = round(layers * share)
    if rule == "floor":
        return tuple(int(i / share) for i in range(n))
    share = max(share, Fraction(n, layers))
    return tuple(int(i / share) - 1 for i in range(1, n + 1))


def evenly_kept(layers: int, kept: int) -> tuple[int, ...]:
    """`kept` of the layers by the rule `floor`, in integers: floor(i L / n)."""
    return tuple(i * layers // kept for i in range(kept))


def transformer_layer(backbone: BackboneConfig, index: int, heads: Any, neurons: Any) -> TransformerLayer:
    """Layer `index` of the backbone with so many heads and neurons (arrays do, for costs)."""
    b = backbone
    return TransformerLayer(
        SelfAttention(b.hidden, heads, b.head_size, b.dropout, b.attention_dropout, b.layer_norm_eps),
        FeedForward(b.hidden, neurons, b.dropout, b.layer_norm_eps, b.activation),
        index,
    )


def encoder_spec(backbone: BackboneConfig, head: Head, layers: Sequence[TransformerLayer]) -> NetworkSpec:
    """A network of these layers: the backbone's stem and the task's head around them."""
    return NetworkSpec(make_stem(backbone), Chain(tuple(layers)), backbone_head(head, backbone), head)


def full_spec(backbone: BackboneConfig, head: Head) -> NetworkSpec:
    """The whole backbone with the task's head: the teacher."""
    return encoder_spec(
        backbone, head, [transformer_layer(backbone, i, backbone.heads, backbone.intermediate) for i in range(backbone.layers)]
    )


def architecture_of(layers: Sequence[int], heads: Sequence[int], neurons: Sequence[int], method: str = METHOD_NAME) -> Architecture:
    """Kept layers (indices from 0), and per kept layer its heads and neurons."""
    return Architecture.of(method, {"layers": list(layers), "heads": list(heads), "neurons": list(neurons)})


def spec_of(architecture: Architecture, backbone: BackboneConfig, head: Head) -> NetworkSpec:
    """The network of `architecture_of`: hosted and deployed are one for DynaBERT."""
    genes = architecture.choices
    rows = zip(genes["layers"], genes["heads"], genes["neurons"], strict=True)
    return encoder_spec(backbone, head, [transformer_layer(backbone, i, a, f) for i, a, f in rows])


class DynaBertSpace(SearchSpace):
    """`widths` x `depths`: every layer keeps the same share of heads and neurons, an evenly spaced subset of layers stays."""

    method = METHOD_NAME

    def __init__(
        self,
        backbone: BackboneConfig,
        widths: Sequence[float] = (0.25, 0.5, 0.75, 1.0),
        depths: Sequence[float] = (0.5, 0.75, 1.0),
        depth_rule: DepthRule = "floor",
        method: str = METHOD_NAME,
    ) -> None:
        self.backbone, self.method = backbone, method
        self.depth_rule: DepthRule = depth_rule
        self.choices = (
            Choice("width", tuple(sorted(set(widths))), ordered=True, monotone=True),
            Choice("depth", tuple(sorted(set(depths))), ordered=True, monotone=True),
        )
        self._check()
        self._assignments: dict[Architecture, dict[str, Value]] = {}
        for depth in self.choices[1].values:
            for width in self.choices[0].values:
                self._assignments.setdefault(self.decode({"width": width, "depth": depth}), {"width": width, "depth": depth})

    def _check(self) -> None:
        b = self.backbone
        for key, choice in zip(("widths", "depths"), self.choices, strict=True):
            for value in choice.values:
                if not 0 < float(value) <= 1:
                    raise UserError(f"{key}: {value} is no multiplier; each lies above 0 and at most at 1")
        for width in self.choices[0].values:
            heads = kept_heads(b.heads, float(width))
            if heads < 1:
                raise UserError(f"widths: {width} leaves no head of {b.heads}; at least {0.5 / b.heads:.3g} rounds to one head")
            if kept_neurons(b.intermediate, b.heads, heads) < 1:
                raise UserError(f"widths: {width} leaves no neuron of {b.intermediate}")
        for depth in self.choices[1].values:
            if round(b.layers * exact(float(depth))) < 1:
                raise UserError(f"depths: {depth} leaves no layer of {b.layers}; at least {0.5 / b.layers:.3g} rounds to one layer")

    def decode(self, assignment: Assignment) -> Architecture:
        b = self.backbone
        heads = kept_heads(b.heads, float(assignment["width"]))
        layers = kept_layers(b.layers, float(assignment["depth"]), self.depth_rule)
        neurons = kept_neurons(b.intermediate, b.heads, heads)
        return architecture_of(layers, [heads] * len(layers), [neurons] * len(layers), self.method)

    def encode(self, architecture: Architecture) -> dict[str, Value]:
        if architecture not in self._assignments:
            raise ValueError(f"{architecture.canonical} is not in the space")
        return dict(self._assignments[architecture])

    def full_depth(self) -> DynaBertSpace:
        """The widths with all layers."""
        return DynaBertSpace(self.backbone, [float(w) for w in self.choices[0].values], (1.0,), self.depth_rule, self.method)

    def size(self) -> int:
        return len(self._assignments)

    def anchors(self) -> list[Architecture]:
        """The corners of the grid."""
        width, depth = self.choices
        corners = [{"width": w, "depth": d} for w in (width.values[0], width.values[-1]) for d in (depth.values[0], depth.values[-1])]
        return list(dict.fromkeys(self.decode(corner) for corner in corners))

    def spec(self, architecture: Architecture, backbone: BackboneConfig, head: Head, form: Form = "deployed") -> NetworkSpec:  # noqa: ARG002
        return spec_of(architecture, backbone, head)

    def batch_costs(
        self, assignments: Mapping[str, npt.NDArray[Any]], backbone: BackboneConfig, head: Head, length: int = 128, batch: int = 1
    ) -> CostArrays:
        b = backbone
        widths, depths = (c.values for c in self.choices)
        heads = np.array([kept_heads(b.heads, float(w)) for w in widths])[assignments["width"]]
        layers = np.array([len(kept_layers(b.layers, float(d), self.depth_rule)) for d in depths])[assignments["depth"]]
        layer = transformer_layer(b, 0, heads, b.intermediate * heads // b.heads)
        rest = encoder_spec(b, head, []).parts
        return CostArrays.of(
            len(heads),
            sum(part.embedding_parameters() for part in rest),
            sum(part.other_parameters() for part in rest) + layers * layer.other_parameters(),
            sum(part.flops(length) for part in rest) + layers * layer.flops(length),
            length,
            batch,
        )
