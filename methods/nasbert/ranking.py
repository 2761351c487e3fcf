"""Losses of many paths of one block on the same held-out text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from methods.nasbert.paths import Indices, Paths
from methods.recipe import Hardware

if TYPE_CHECKING:
    from methods.nasbert.supernet import NasBertSupernet
    from methods.network import Network
    from methods.supernet import Batch


def teacher_states(teacher: Network, batch: Batch, blocks: int) -> tuple[Tensor, ...]:
    """Y_0 ... Y_N: the teacher's states (B, L, teacher width) before its first block and after each (paper, section 3.2)."""
    mask = batch["attention_mask"]
    states, _ = teacher.encoder(((teacher.stem(batch["input_ids"], mask, batch.get("token_type_ids")), mask),))
    step = (len(states) - 1) // blocks
    return tuple(states[n * step] for n in range(blocks + 1))


def block_error(output: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean squared error over valid tokens and features; (B, L, H) each (paper, section 3.2)."""
    weights = mask[..., None].float()
    return ((output.float() - target.float()).square() * weights).sum() / (weights.sum() * target.shape[-1])


def variance(target: Tensor, mask: Tensor, summed: Callable[[Tensor], Tensor] = lambda part: part) -> Tensor:
    """Mean over features of the variance over valid tokens: the error of the best constant answer.

    `summed`: how sums are added up where several processes hold a part of the tokens each.
    """
    weights = mask[..., None].float()
    count = summed(weights.sum())
    mean = summed((target.float() * weights).sum((0, 1))) / count
    return summed(((target.float() - mean).square() * weights).sum()) / (count * target.shape[-1])


def on_device(batch: Batch, hardware: Hardware) -> Batch:
    """The batch where it is computed."""
    return {name: tensor.to(hardware.device) for name, tensor in batch.items()}


@dataclass(frozen=True)
class HeldOut:
    """Teacher states of fixed batches, in the host's memory: `states` (N + 1 tensors (B, L, H)) and masks (B, L)."""

    states: tuple[tuple[Tensor, ...], ...]
    masks: tuple[Tensor, ...]

    @classmethod
    def of(cls, teacher: Network, batches: Sequence[Batch], blocks: int, hardware: Hardware) -> HeldOut:
        """One pass of the teacher over the batches; the device holds one at a time."""
        found = []
        with torch.no_grad(), torch.autocast(hardware.device, torch.bfloat16, enabled=hardware.precision == "bf16"):
            for batch in batches:
                found.append(tuple(state.cpu() for state in teacher_states(teacher, on_device(batch, hardware), blocks)))
        return cls(tuple(found), tuple(batch["attention_mask"].cpu() for batch in batches))

    @property
    def tokens(self) -> int:
        return sum(int(mask.sum()) for mask in self.masks)

    @property
    def texts(self) -> int:
        return sum(len(mask) for mask in self.masks)

    def variance(self, block: int) -> float:
        """Of the block's target, mean over batches."""
        pairs = zip(self.states, self.masks, strict=True)
        return float(np.mean([float(variance(states[block + 1], mask)) for states, mask in pairs]))


def path_losses(
    supernet: NasBertSupernet, block: int, paths: Paths, numbers: Indices, held_out: HeldOut, hardware: Hardware
) -> npt.NDArray[np.float64]:
    """Block loss (n,) of each path, mean over the batches' tokens; the supernet is put into eval mode.

    Paths are visited in the order of their operations, so that what two of them begin with is computed once.
    """
    supernet.eval()
    order = sorted(range(len(numbers)), key=lambda i: paths[int(numbers[i])])
    total = np.zeros(len(numbers))
    tokens = 0.0
    with torch.inference_mode(), torch.autocast(hardware.device, torch.bfloat16, enabled=hardware.precision == "bf16"):
        for states, mask in zip(held_out.states, held_out.masks, strict=True):
            weight = float(mask.sum())
            start, target, valid = (tensor.to(hardware.device) for tensor in (states[block], states[block + 1], mask))
            walk = _Walk(supernet, block, start, valid)
            for i in order:
                output = walk.output(paths[int(numbers[i])])
                total[i] += weight * float(block_error(output, target, valid))
            tokens += weight
    return total / tokens


class _Walk:
    """Runs paths of one block one after the other and keeps the states along the present one."""

    def __init__(self, supernet: NasBertSupernet, block: int, start: Tensor, mask: Tensor) -> None:
        self.supernet, self.block, self.start, self.mask = supernet, block, start, mask
        self.hidden = 0
        self.names: list[str] = []
        self.states: list[Tensor] = []

    def output(self, path: tuple[int, Sequence[str]]) -> Tensor:
        """The block's output (B, L, teacher width)."""
        hidden, names = path
        if hidden != self.hidden:
            self.hidden, self.names = hidden, []
            self.states = [self.supernet.map_of("into", self.block, hidden)(self.start, self.mask)]
        common = 0
        while common < min(len(names), len(self.names)) and names[common] == self.names[common]:
            common += 1
        del self.names[common:], self.states[common + 1 :]
        for name in names[common:]:
            module = self.supernet.module_of(self.block, len(self.names), hidden, name)
            self.states.append(module(self.states[-1], self.mask))
            self.names.append(name)
        output: Tensor = self.supernet.map_of("out", self.block, hidden)(self.states[-1], self.mask)
        return output


def walked(paths: Paths, numbers: Indices, operation_flops: npt.NDArray[np.int64], map_flops: npt.NDArray[np.int64]) -> float:
    """FLOPs of a text in `path_losses`: `operation_flops` (hidden sizes, operations), `map_flops` (hidden sizes,) of In or Out alone."""
    nodes = {(hidden, names[:k]) for hidden, names in (paths[int(i)] for i in numbers) for k in range(1, len(names) + 1)}
    place = {name: i for i, name in enumerate(paths.names)}
    size = {hidden: i for i, hidden in enumerate(paths.sizes)}
    inner = sum(int(operation_flops[size[h], place[names[-1]]]) for h, names in nodes)
    outer = sum(int(map_flops[paths.hidden[int(i)]]) for i in numbers) + sum(int(map_flops[size[h]]) for h in {h for h, _ in nodes})
    return float(inner + outer)
