"""What runs a module on the device. A backend makes, of a module and example arguments, a call that runs it once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from methods.errors import UserError

if TYPE_CHECKING:
    from torch import nn

Backend = Callable[["nn.Module", tuple[Any, ...]], Callable[[], object]]


def torch_eager(module: nn.Module, arguments: tuple[Any, ...]) -> Callable[[], object]:
    """The module as it is."""
    return partial(module, *arguments)


BACKENDS: Mapping[str, Backend] = MappingProxyType({"torch": torch_eager})


def check_backend(name: str) -> None:
    """Raises UserError where there is none of that name."""
    if name not in BACKENDS:
        raise UserError(f"--backend {name}: there is no such backend; there are {', '.join(BACKENDS)}")
