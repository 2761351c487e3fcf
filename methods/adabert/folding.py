"""From the hosted to the deployed form: the projection goes into the tables, batch norms into the convolutions before them.

Both are exact because nothing non-linear lies between: word + position -> projection without bias, and convolution -> batch norm.
"""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import torch

from methods.layers.cell import Cell, CellStack, Edge
from methods.layers.embedding import Stem, StemModule
from methods.layers.operations import CellConvolution, CellConvolutionModule, MaskedBatchNorm
from methods.network import Network, NetworkSpec


def folded_stem(stem: Stem) -> Stem:
    """Tables of the projection's width instead of a projection; a stem without one, or with a norm before it, stays as it is."""
    if not stem.projection or stem.norm_before or stem.projection_bias:
        return stem
    return replace(stem, width=stem.projection, projection=0)


def folded_spec(spec: NetworkSpec) -> NetworkSpec:
    """The deployed form of a hosted network."""
    encoder = cast(CellStack, spec.encoder)
    nodes = tuple(tuple(_folded_edge(edge) for edge in node) for node in encoder.cell.nodes)
    return replace(spec, stem=folded_stem(spec.stem), encoder=CellStack(Cell(nodes), encoder.count))


def _folded_edge(edge: Edge) -> Edge:
    return Edge(edge.source, edge.operation.folded()) if isinstance(edge.operation, CellConvolution) else edge


@torch.no_grad()
def fold(network: Network) -> Network:
    """The deployed network of a hosted one, on its device, in eval mode: the same logits but for rounding.

    The batch norms' running statistics become part of the convolutions, so they must be estimated before.
    """
    deployed = Network(folded_spec(network.spec)).to(next(network.parameters()).device)
    changed = deployed.spec.stem != network.spec.stem
    tables = ("stem.word.", "stem.position.") if changed else ()
    names = deployed.state_dict().keys()
    unchanged = {name: tensor for name, tensor in network.state_dict().items() if name in names and not name.startswith(tables)}
    deployed.load_state_dict(unchanged, strict=False)
    if changed:
        _fold_tables(network.stem, deployed.stem)
    convolutions = {name: module for name, module in deployed.named_modules() if isinstance(module, CellConvolutionModule)}
    for name, target in convolutions.items():
        _fold_norm(cast(CellConvolutionModule, network.get_submodule(name)), target)
    return deployed.eval()


def _fold_tables(source: StemModule, target: StemModule) -> None:
    projection = cast(torch.nn.Linear, source.projection).weight
    target.word.weight.copy_(source.word.weight @ projection.T)
    target.position.weight.copy_(source.position.weight @ projection.T)


def _fold_norm(source: CellConvolutionModule, target: CellConvolutionModule) -> None:
    if not isinstance(source.norm, MaskedBatchNorm) or target.convolution.bias is None:
        return
    scale, shift = source.norm.affine()
    target.convolution.weight.copy_(source.convolution.weight * scale[:, None, None])
    target.convolution.bias.copy_(shift)
