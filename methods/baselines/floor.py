"""Floor controls of AdaBERT (its diagnostic D13): what its cells and its search are worth beyond the embeddings and any convolutions.

They have AdaBERT's embeddings, output layer, losses and length of training, and no search of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from methods.adabert.finish import Student, deployed, fresh, train
from methods.adabert.space import AdaBertSpace
from methods.layers.cell import Cell, CellStack
from methods.network import Network, NetworkSpec
from methods.space import Architecture, Form

if TYPE_CHECKING:
    from methods.adabert.options import AdaBertOptions, OperationName
    from methods.adabert.taught import Rows
    from methods.backbone import BackboneConfig
    from methods.recipe import Context
    from methods.tasks.head import Head

BAG, CONVOLUTIONS = "bag-of-embeddings", "fixed-cnn"
_KERNELS: tuple[OperationName, ...] = ("conv_3", "conv_5", "conv_7")


def bag_of_embeddings(space: AdaBertSpace) -> Architecture:
    """AdaBERT without a cell (K = 0): the teacher's tables, projected, their mean over tokens, tanh and a linear map."""
    return Architecture.of(BAG, {"width": space.options.width})


def bag_spec(space: AdaBertSpace, backbone: BackboneConfig, head: Head, form: Form = "deployed") -> NetworkSpec:
    """The network of `bag_of_embeddings`."""
    stem, output = space.ends(backbone, head, 0, form)
    return NetworkSpec(stem, CellStack(Cell(()), 0), output, head)


def fixed_cnn(space: AdaBertSpace, cells: int) -> Architecture | None:
    """Cells with kernels 3, 5 and 7 on the inner nodes in turn, each on the last sources; None where the space has none of them."""
    kernels = [name for name in _KERNELS if name in space.options.operations]
    if not kernels:
        return None
    nodes = [[(source, kernels[n % len(kernels)]) for source in range(n + 2 - space.kept(n), n + 2)] for n in range(space.options.nodes)]
    return space.architecture(cells, nodes)


def deepest_cnn(space: AdaBertSpace, fits: Callable[[Architecture], bool]) -> Architecture | None:
    """The deepest fixed CNN that satisfies `fits`; None where not even one cell does."""
    for cells in range(space.options.cells, 0, -1):
        found = fixed_cnn(space, cells)
        if found is not None and fits(found):
            return found
    return None


def train_bag(context: Context, options: AdaBertOptions, space: AdaBertSpace, rows: Rows, folder: str = "") -> Network:
    """The deployed bag of embeddings, trained for as many steps as a searched network's weights are, with labels and the teacher's final
    logits (it has no hidden layer for the probes). Its stage lies in `context.folder`, or in a folder of that name beneath it."""
    torch.manual_seed(context.seed)
    network = fresh(context, bag_spec(space, context.backbone.config, context.task.head, "hosted"))
    o, settings = options.search, {"architecture": bag_of_embeddings(space).canonical}
    searched = o.steps or max(1, round(ceil(len(rows.split) / o.batch_size) * o.epochs))
    train(context, options, Student(network, 0), Path(folder) / BAG, settings, rows, searched)
    return deployed(context, options, network)
