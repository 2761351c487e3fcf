"""What runs a module on the device. A new one is a subclass of `Backend` and an entry of `BACKENDS`."""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from methods.errors import UserError

if TYPE_CHECKING:
    from torch import nn


class Backend(ABC):
    """`summary`: what it does, in a few words. Libraries are imported where they are used; the object itself costs nothing."""

    summary: ClassVar[str]

    def missing(self) -> str:
        """What has to be installed before it can run here; empty where nothing has to be."""
        return ""

    @abstractmethod
    def version(self) -> str:
        """Name and version of what runs the module: a part of the device's fingerprint."""

    @abstractmethod
    def prepare(self, module: nn.Module, arguments: tuple[Any, ...]) -> Callable[[], object]:
        """A call that runs `module`, which is in eval mode, once on `arguments`: tensors, None, and tuples of these.

        Whatever has to be done once (export, compilation) is done here. It is called in inference mode.
        """


class Eager(Backend):
    summary = "the module as it is"

    def version(self) -> str:
        import torch

        return f"torch {torch.__version__}"

    def prepare(self, module: nn.Module, arguments: tuple[Any, ...]) -> Callable[[], object]:
        return partial(module, *arguments)


class Compiled(Eager):
    """`compiler`: a backend of `torch.compile`."""

    summary = "compiled by torch.compile for its own shapes"

    def __init__(self, compiler: Any = "inductor") -> None:
        self.compiler = compiler
        self._numbers = count()

    def missing(self) -> str:
        if any(map(shutil.which, ("c++", "g++", "clang++", "cl"))):
            return ""
        return "a C++ compiler (g++ or clang++), which torch.compile needs on the processor"

    def prepare(self, module: nn.Module, arguments: tuple[Any, ...]) -> Callable[[], object]:
        import torch

        def forward(*arguments: Any) -> object:
            return module(*arguments)

        # What was compiled is found again by its code object, and few are kept of each: every module needs one of its own.
        forward.__code__ = forward.__code__.replace(co_name=f"forward_{next(self._numbers)}")
        call = partial(torch.compile(forward, backend=self.compiler, dynamic=False, fullgraph=True), *arguments)
        call()
        return call


class OnnxRuntime(Backend):
    """A graph of fixed shapes, as fast as one can be; a session of its own, and so weights of its own, for each call that is prepared."""

    summary = "exported to ONNX and run by onnxruntime"

    def __init__(self) -> None:
        self._last: tuple[tuple[Any, ...], bytes] | None = None

    def missing(self) -> str:
        from methods.onnx.graph import lacking

        return lacking()

    def version(self) -> str:
        import onnxruntime

        return f"onnxruntime {onnxruntime.__version__}"

    def prepare(self, module: nn.Module, arguments: tuple[Any, ...]) -> Callable[[], object]:
        import torch

        from methods.onnx.runtime import open_session

        session = open_session(self._graph(module, arguments), torch.get_num_threads())
        inputs = [value.name for value in session.get_inputs()]
        feed = {name: tensor.cpu().numpy() for name, tensor in zip(inputs, _tensors(arguments), strict=True)}
        return partial(session.run, None, feed)

    def _graph(self, module: nn.Module, arguments: tuple[Any, ...]) -> bytes:
        """Copies of one part come one after another with the same arguments: they are exported once."""
        from methods.onnx.graph import write_fixed

        if self._last is None or self._last[0] is not arguments:
            with TemporaryDirectory() as folder:
                path = Path(folder) / "model.onnx"
                write_fixed(module, arguments, path)
                self._last = arguments, path.read_bytes()
        return self._last[1]


def _tensors(value: Any) -> Iterator[Any]:
    """The tensors in nested tuples, first to last."""
    if isinstance(value, tuple):
        for item in value:
            yield from _tensors(item)
    elif value is not None:
        yield value


BACKENDS: Mapping[str, Backend] = MappingProxyType({"torch": Eager(), "torch-compile": Compiled(), "onnxruntime": OnnxRuntime()})


def check_backend(name: str) -> None:
    """Raises UserError where there is none of that name, or where it lacks something here."""
    if name not in BACKENDS:
        raise UserError(f"--backend {name}: there is no such backend; there are {', '.join(BACKENDS)}")
    if missing := BACKENDS[name].missing():
        raise UserError(f"--backend {name}: needs {missing}")
