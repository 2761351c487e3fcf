"""Several processes of one training (`accelerate launch`): who writes, what all agree on, and what the part of each weighs."""

from __future__ import annotations

import atexit
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

from methods.errors import UserError
from methods.recipe import Hardware

Value = TypeVar("Value")
PATIENCE = timedelta(days=30)
"""So long the others wait for what the main process does by itself, such as a search. Whoever launched them ends them where it dies."""

_alone: ContextVar[bool] = ContextVar("alone", default=False)


def join_processes(hardware: Hardware) -> None:
    """Lets processes that were launched together find each other; from then on `cuda` is a process's own device. Sets the threads of each.
    May be called again, and where there is one process alone."""
    from accelerate import PartialState

    PartialState(cpu=hardware.device == "cpu", timeout=PATIENCE)
    torch.set_num_threads(hardware.threads)  # accelerate chooses for itself where several processes share a machine
    if processes() > 1:
        atexit.unregister(_part)
        atexit.register(_part)


def _part() -> None:
    if distributed.is_initialized():
        distributed.destroy_process_group()


def processes() -> int:
    """How many work together; one inside of what the main process does by itself."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() and not _alone.get() else 1


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


def by_main_process(make: Callable[[], Value]) -> Value:
    """What `make` returns in the main process, in all processes; the others wait and do nothing. A user's mistake there is raised in all.

    Inside of it the main process is alone. The value is plain data that can be pickled.
    """
    if processes() == 1:
        return make()
    value: Value | None = None
    mistake: UserError | None = None
    if is_main_process():
        with _by_itself():
            try:
                value = make()
            except UserError as error:
                mistake = error
    found, raised = of_main_process((value, mistake))
    if raised is not None:
        raise raised
    return found  # type: ignore[return-value]


@contextmanager
def _by_itself() -> Iterator[None]:
    token = _alone.set(True)
    try:
        yield
    finally:
        _alone.reset(token)


def summed(tensor: Tensor) -> Tensor:
    """The sum over all processes, without a gradient; the tensor itself where there is one process."""
    if processes() > 1:
        tensor = tensor.detach().clone()
        distributed.all_reduce(tensor)
    return tensor


def not_in_all(holds: bool, device: torch.device) -> bool:
    """Whether something does not hold in one of the processes, so that all of them know."""
    return not holds if processes() == 1 else bool(summed(torch.tensor(float(not holds), device=device)))


def weighed(mean: Tensor, count: Tensor | int, rows: int) -> Tensor:
    """A mean over `count` items (tokens, masked words) of `rows` rows, so weighed that the mean over the rows of all processes, which the
    loop takes, is the mean over the items of all processes."""
    if processes() == 1:
        return mean
    own = torch.tensor([float(count), float(rows)], dtype=torch.float64, device=mean.device)
    items, everyones = own[0] / own[1], summed(own)
    return mean * (items * everyones[1] / everyones[0]).to(mean.dtype)
