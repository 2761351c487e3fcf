"""Operation-level early stopping (OLES): an operation whose train and held-out gradients disagree is no longer trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, distributed, nn

from methods.adabert.supernet import AdaBertSupernet


def operations(supernet: AdaBertSupernet) -> dict[str, list[nn.Parameter]]:
    """The parameters of each operation that has some, by its place: `<cell>.nodes.<node>.<source>.<operation>`."""
    found: dict[str, list[nn.Parameter]] = {}
    for name, parameter in supernet.cells.named_parameters():
        place = name.split(".")
        if place[1] == "nodes":
            found.setdefault(".".join(place[:5]), []).append(parameter)
    return found


def _of_all_processes(sums: dict[str, list[float]]) -> dict[str, list[float]]:
    """Added up over processes, whose shares of a batch differ, so that all freeze the same."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return sums
    gathered: list[dict[str, list[float]]] = [{} for _ in range(distributed.get_world_size())]
    distributed.all_gather_object(gathered, sums)
    places = sorted({place for part in gathered for place in part})
    return {place: [sum(part.get(place, [0.0, 0.0])[i] for part in gathered) for i in range(2)] for place in places}


@dataclass
class OperationStop:
    """Cosines are added up per operation; every `every` steps those with a mean below `threshold` are frozen and all are counted anew."""

    supernet: AdaBertSupernet
    threshold: float
    every: int
    frozen: list[str] = field(default_factory=list)
    sums: dict[str, list[float]] = field(default_factory=dict)

    def trained(self) -> dict[str, list[nn.Parameter]]:
        """The operations that are still trained."""
        return {place: own for place, own in operations(self.supernet).items() if place not in self.frozen}

    def compare(self, held_out: Mapping[str, Tensor]) -> None:
        """Takes the train gradients that the operations hold and the held-out ones (flat, by place); an operation that was not run, and
        so has none, is left out."""
        for place, own in self.trained().items():
            if place not in held_out or any(parameter.grad is None for parameter in own):
                continue
            train = torch.cat([parameter.grad.flatten() for parameter in own if parameter.grad is not None])
            scale = float(train.norm() * held_out[place].norm())
            if scale > 0:
                sums = self.sums.setdefault(place, [0.0, 0.0])
                sums[0] += float(train @ held_out[place]) / scale
                sums[1] += 1

    def after(self, step: int) -> bool:
        """Called after every step; never ends the search."""
        if step % self.every == 0:
            sums = _of_all_processes(self.sums)
            self._freeze([place for place, (total, count) in sums.items() if total / count < self.threshold])
            self.sums.clear()
        return False

    def _freeze(self, places: list[str]) -> None:
        every = operations(self.supernet)
        for place in places:
            for parameter in every[place]:
                parameter.requires_grad_(False)
        self.frozen += places

    def state(self) -> dict[str, Any]:
        return {"frozen": list(self.frozen), "sums": {place: list(sums) for place, sums in self.sums.items()}}

    def restore(self, state: dict[str, Any]) -> None:
        self.frozen, self.sums = [], state["sums"]
        self._freeze(state["frozen"])
