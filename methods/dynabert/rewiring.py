"""Network rewiring: heads and neurons sorted by importance, so that the best are shared by most sub-networks (paper, section 2.1)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor

from methods.dynabert.supernet import DynaBertSupernet
from methods.layers.encoder import ElasticTransformerLayer

Mode = Literal["per_batch", "accumulate"]
Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Importance:
    """`heads` (layers, heads) and `neurons` (layers, neurons): first-order change of the loss on removal, summed over batches."""

    heads: Tensor
    neurons: Tensor


def importance(
    supernet: DynaBertSupernet, batches: Iterable[Batch], loss: Callable[[Batch], Tensor], mode: Mode = "per_batch"
) -> Importance:
    """Scores every head and neuron of the whole network, in eval mode.

    A head's score is |sum of W_o[:, block] x gradient|, which equals |d loss / d gate| of a gate of one on its attention map. A neuron's
    is |W_1[j] . gradient + b_1[j] x gradient| + |W_2[:, j] . gradient|. `accumulate` never zeroes gradients between batches, so batch t
    contributes |g_1 + ... + g_t| (the released code).
    """
    layers = [cast(ElasticTransformerLayer, layer) for layer in supernet.encoder]
    b = supernet.backbone
    heads = torch.zeros(b.layers, b.heads)
    neurons = torch.zeros(b.layers, b.intermediate)
    supernet.eval()
    supernet.zero_grad(set_to_none=True)
    for batch in batches:
        if mode == "per_batch":
            supernet.zero_grad(set_to_none=True)
        loss(batch).backward()
        for i, layer in enumerate(layers):
            heads[i] += _product(layer.attention.output.weight).sum(0).view(b.heads, b.head_size).sum(1).abs().cpu()
            first = _product(layer.feed_forward.intermediate.weight).sum(1) + _product(layer.feed_forward.intermediate.bias)
            neurons[i] += (first.abs() + _product(layer.feed_forward.output.weight).sum(0).abs()).cpu()
    supernet.zero_grad(set_to_none=True)
    return Importance(heads, neurons)


def _product(parameter: Tensor) -> Tensor:
    if parameter.grad is None:
        raise ValueError("importance needs a gradient in every layer")
    return (parameter * parameter.grad).detach()


@torch.no_grad()
def rewire(supernet: DynaBertSupernet, scores: Importance) -> None:
    """Permutes heads and neurons of each layer by descending score (ties: the earlier first). The whole network's function is unchanged."""
    size = supernet.backbone.head_size
    for i, module in enumerate(supernet.encoder):
        layer = cast(ElasticTransformerLayer, module)
        heads = scores.heads[i].sort(descending=True, stable=True).indices
        rows = (heads[:, None] * size + torch.arange(size)).flatten()
        for linear in (layer.attention.query, layer.attention.key, layer.attention.value):
            linear.weight.copy_(linear.weight[rows].clone())
            linear.bias.copy_(linear.bias[rows].clone())
        layer.attention.output.weight.copy_(layer.attention.output.weight[:, rows].clone())
        order = scores.neurons[i].sort(descending=True, stable=True).indices
        layer.feed_forward.intermediate.weight.copy_(layer.feed_forward.intermediate.weight[order].clone())
        layer.feed_forward.intermediate.bias.copy_(layer.feed_forward.intermediate.bias[order].clone())
        layer.feed_forward.output.weight.copy_(layer.feed_forward.output.weight[:, order].clone())
