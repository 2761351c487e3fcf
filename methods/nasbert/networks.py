"""What a NAS-BERT architecture is as a network: its operations and its hosted and deployed forms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from methods.layers.attention import SelfAttention
from methods.layers.convolution import SeparableConvolution
from methods.layers.embedding import Stem
from methods.layers.encoder import Chain, Link, TransformerLayer
from methods.layers.feed_forward import FeedForward
from methods.layers.part import Part
from methods.nasbert.encoding import kernel_size
from methods.network import NetworkSpec, backbone_head, make_head, make_stem

if TYPE_CHECKING:
    from methods.backbone import BackboneConfig
    from methods.tasks.head import Head


@dataclass(frozen=True)
class Settings:
    """What all operations of a space share. `widest`: the largest hidden size, to which dropout is scaled where `dynamic_dropout`."""

    head_size: int = 64
    dropout: float = 0.1
    attention_dropout: float = 0.1
    convolution_dropout: float = 0.0
    dynamic_dropout: bool = False
    widest: int = 512

    def scaled(self, dropout: float, hidden: int) -> float:
        return dropout * hidden / self.widest if self.dynamic_dropout else dropout


@lru_cache(maxsize=4096)
def operation(name: str, hidden: int, eps: float, settings: Settings) -> Part:
    """The sub-layer of that name, `hidden` wide; feed-forward has 4 x hidden neurons (paper, section 3)."""
    dropout = settings.scaled(settings.dropout, hidden)
    if name == "M":
        attention_dropout = settings.scaled(settings.attention_dropout, hidden)
        return SelfAttention(hidden, hidden // settings.head_size, settings.head_size, dropout, attention_dropout, eps)
    if name == "F":
        return FeedForward(hidden, 4 * hidden, dropout, eps)
    return SeparableConvolution(hidden, kernel_size(name), settings.scaled(settings.convolution_dropout, hidden), eps)


@lru_cache(maxsize=4096)
def link(inputs: int, outputs: int) -> Link:
    return Link(inputs, outputs)


def deployed_stem(backbone: BackboneConfig, embedding: int, hidden: int, dropout: float) -> Stem:
    """Own width, no types, LayerNorm, and a projection where the first block has another width."""
    return Stem(
        vocabulary=backbone.vocabulary,
        positions=backbone.positions,
        types=0,
        width=embedding,
        projection=0 if embedding == hidden else hidden,
        dropout=dropout,
        layer_norm_eps=backbone.layer_norm_eps,
        padding_id=backbone.padding_id,
        zero_padding=True,
        position_offset=backbone.position_offset,
    )


def teacher_head(backbone: BackboneConfig, head: Head) -> Part:
    """The output layer of the teacher, which the supernet and its hosted networks share."""
    return backbone_head(head, backbone)


def teacher_spec(backbone: BackboneConfig, head: Head) -> NetworkSpec:
    """The whole backbone with its output layer."""
    b = backbone
    layer = TransformerLayer(
        SelfAttention(b.hidden, b.heads, b.head_size, b.dropout, b.attention_dropout, b.layer_norm_eps),
        FeedForward(b.hidden, b.intermediate, b.dropout, b.layer_norm_eps, b.activation),
    )
    layers = tuple(replace(layer, index=i) for i in range(b.layers))
    return NetworkSpec(make_stem(b), Chain(layers), teacher_head(b, head), head)


def network_spec(genes: Mapping[str, Any], settings: Settings, backbone: BackboneConfig, head: Head, hosted: bool) -> NetworkSpec:
    """The network of an architecture's choices in its hosted form, else in its deployed one.

    Hosted: teacher's stem with In of the first block, at every border Out and In as one link, Out of the last block, teacher's head.
    Deployed: links only between different widths, and a head without pooler.
    """
    blocks: Sequence[Mapping[str, Any]] = genes["blocks"]
    first, last = blocks[0]["hidden"], blocks[-1]["hidden"]
    layers: list[Part] = []
    for n, block in enumerate(blocks):
        hidden = block["hidden"]
        if n and (hosted or blocks[n - 1]["hidden"] != hidden):
            layers.append(link(blocks[n - 1]["hidden"], hidden))
        layers += [operation(name, hidden, backbone.layer_norm_eps, settings) for name in block["ops"]]
    if hosted:
        stem = replace(make_stem(backbone), projection=first, zero_padding=True)
        return NetworkSpec(stem, Chain((*layers, link(last, backbone.hidden))), teacher_head(backbone, head), head)
    stem = deployed_stem(backbone, genes["embedding"], first, settings.dropout)
    return NetworkSpec(stem, Chain(tuple(layers)), make_head(head, last, False, stem, settings.dropout), head)
