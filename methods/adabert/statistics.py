"""Batch-norm statistics for one architecture: those of the supernet mix what every sampled operation saw."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from methods.layers.operations import MaskedBatchNorm
from methods.space import Architecture
from methods.supernet import Batch, inputs
from methods.tasks.batches import Collate, training_batches

if TYPE_CHECKING:
    from methods.adabert.supernet import AdaBertSupernet
    from methods.network import Network
    from methods.recipe import Context

Statistics = dict[str, Tensor]


def norms_of(network: nn.Module) -> dict[str, MaskedBatchNorm]:
    """Its batch norms by name."""
    return {name: module for name, module in network.named_modules() if isinstance(module, MaskedBatchNorm)}


@torch.no_grad()
def reestimate(network: Network, batches: Iterable[Batch]) -> None:
    """Running statistics become the mean over the batches of each batch's own, taken at valid positions with dropout off.

    Changes the network that is given, which should be an extracted copy, and leaves it in eval mode. Without batches, or without batch
    norms, nothing changes.
    """
    norms = list(norms_of(network).values())
    momenta = [norm.momentum for norm in norms]
    network.eval()
    for norm in norms:
        norm.train()
    try:
        for done, batch in enumerate(batches if norms else ()):
            for norm in norms:
                norm.momentum = 1 / (done + 1)
            network(**inputs(batch))
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        network.eval()


def training_sample(context: Context, collate: Collate, batches: int, size: int) -> list[dict[str, Tensor]]:
    """The first so many batches of `train` in the order of the seed, at most one pass over it, on the context's device."""
    if not batches:
        return []
    encoded = collate.encode(context.task.split("train"))
    chosen = training_batches(encoded.lengths, size, context.seed, 0)[:batches]
    return [{name: tensor.to(context.hardware.device) for name, tensor in collate(encoded, rows).items()} for rows in chosen]


class Statistician:
    """Extracted copies of a supernet's architectures with statistics of their own; the supernet is never changed.

    `sample` gives the batches, asked for once. Statistics are kept per supernet and architecture, so that one is estimated once.
    """

    def __init__(self, sample: Callable[[], Sequence[Batch]]) -> None:
        self._sample = sample
        self._batches: Sequence[Batch] | None = None
        self._known: WeakKeyDictionary[nn.Module, dict[str, Statistics]] = WeakKeyDictionary()

    def extract(self, supernet: AdaBertSupernet, architecture: Architecture) -> Network:
        """The hosted form in eval mode, statistics re-estimated."""
        network = supernet.extract(architecture).eval()
        known = self._known.setdefault(supernet, {})
        if architecture.id not in known:
            if self._batches is None:
                self._batches = self._sample()
            reestimate(network, self._batches)
            known[architecture.id] = {name: tensor.clone() for name, tensor in _statistics(network).items()}
        for name, tensor in _statistics(network).items():
            tensor.copy_(known[architecture.id][name])
        return network


def _statistics(network: nn.Module) -> Statistics:
    return {f"{name}.{key}": tensor for name, norm in norms_of(network).items() for key, tensor in norm.named_buffers()}
