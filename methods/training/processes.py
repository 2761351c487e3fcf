"""Several processes of one training (`accelerate launch`): who writes, what all agree on, and what the part of each weighs."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

from methods.recipe import Hardware

Value = TypeVar("Value")


def join_processes(hardware: Hardware) -> None:
    """Lets processes that were launched together find each other; from then on `cuda` is a process's own device. Sets the threads of each.
    May be called again, and where there is one process alone."""
    from accelerate import PartialState

    PartialState(cpu=hardware.device == "cpu")
    torch.set_num_threads(hardware.threads)  # accelerate chooses for itself where several processes share a machine


def processes() -> int:
    """How many train together."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def is_main_process() -> bool:
    """Whether this process is the one that writes; always, where there is only one."""
    return processes() == 1 or distributed.get_rank() == 0


def wait_for_everyone() -> None:
    """All processes meet here."""
    if processes() > 1:
        distributed.barrier()


def of_main_process(value: Value) -> Value:
    """The main process's value, in all processes."""
    if processes() == 1:
        return value
    values: list[Any] = [value]
    distributed.broadcast_object_list(values)
    found: Value = values[0]
    return found


def summed(tensor: Tensor) -> Tensor:
    """The sum over all processes, without a gradient; the tensor itself where there is one process."""
    if processes() > 1:
        tensor = tensor.detach().clone()
        distributed.all_reduce(tensor)
    return tensor


def weighed(mean: Tensor, count: Tensor | int, rows: int) -> Tensor:
    """A mean over `count` items (tokens, masked words) of `rows` rows, so weighed that the mean over the rows of all processes, which the
    loop takes, is the mean over the items of all processes."""
    if processes() == 1:
        return mean
    own = torch.tensor([float(count), float(rows)], dtype=torch.float64, device=mean.device)
    items, everyones = own[0] / own[1], summed(own)
    return mean * (items * everyones[1] / everyones[0]).to(mean.dtype)
