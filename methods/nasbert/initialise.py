"""How NAS-BERT's weights start (values of the model's port in ML.NET)."""

from __future__ import annotations

from math import sqrt

import torch
from torch import nn

from methods.layers.attention import ElasticSelfAttention
from methods.layers.convolution import SeparableStage
from methods.layers.embedding import StemModule
from methods.training.initialisation import initialise


@torch.no_grad()
def initialise_network(module: nn.Module, deviation: float = 0.02, dropout: float = 0.1) -> None:
    """Linear maps and tables N(0, deviation), biases 0; attention and the stem's projection Xavier-uniform, queries, keys and values
    with gain 1/sqrt(2); both weights of a convolution stage N(0, sqrt(4 (1 - dropout) / (k h)))."""
    initialise(module, deviation)
    for part in module.modules():
        if isinstance(part, ElasticSelfAttention):
            for layer in (part.query, part.key, part.value):
                nn.init.xavier_uniform_(layer.weight, gain=sqrt(0.5))
            nn.init.xavier_uniform_(part.output.weight)
        elif isinstance(part, SeparableStage):
            _initialise_convolution(part, dropout)
        elif isinstance(part, StemModule) and part.projection is not None:
            nn.init.xavier_uniform_(part.projection.weight)


def _initialise_convolution(stage: SeparableStage, dropout: float) -> None:
    hidden, _, kernel = stage.depthwise.weight.shape
    for weight in (stage.depthwise.weight, stage.pointwise.weight):
        nn.init.normal_(weight, std=sqrt(4 * (1 - dropout) / (kernel * hidden)))
    if stage.depthwise.bias is not None:
        nn.init.zeros_(stage.depthwise.bias)
