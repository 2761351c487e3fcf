"""From a network, or any module, to an ONNX file (torch.onnx.export, by way of torch.export)."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from methods.errors import UserError
from methods.network import Network, NetworkSpec

LIBRARIES = ("onnx", "onnxscript", "onnxruntime")
LARGEST = 1_900_000_000
"""Bytes of weights up to which a file holds them itself: protobuf takes no more than 2 GB."""
EXAMPLE = (2, 7)
"""Batch and length that the network is traced with."""


def lacking() -> str:
    """What has to be installed; empty where nothing has to be."""
    absent = [name for name in LIBRARIES if find_spec(name) is None]
    return f"{', '.join(absent)}: pip install 'elastibench[onnx]'" if absent else ""


def input_names(spec: NetworkSpec) -> tuple[str, ...]:
    """The inputs of a network's graph, each (batch, length) of int64; token types only where the network tells them apart."""
    types = ("token_type_ids",) if spec.stem.types > 1 else ()
    second = ("input_ids_b", "attention_mask_b") if spec.stem.texts == 2 else ()
    return ("input_ids", "attention_mask", *types, *second)


def output_names(spec: NetworkSpec) -> tuple[str, ...]:
    """What `transformers` calls them."""
    return {"span": ("start_logits", "end_logits"), "none": ("last_hidden_state",)}.get(spec.task.kind, ("logits",))


def write_network(network: Network, path: Path) -> None:
    """The network in eval mode as a graph for any batch and any length that it has positions for.

    Raises UserError where onnx, onnxscript or onnxruntime is not installed.
    """
    spec = network.spec
    batch, length = EXAMPLE[0], min(EXAMPLE[1], spec.stem.positions)
    names = input_names(spec)
    arguments = tuple(torch.ones(batch, length, dtype=torch.int64) for _ in names)
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", max=spec.stem.positions)}
    module = _Positional(network, names, output_names(spec)).eval()
    write_graph(module, arguments, path, names, output_names(spec), (tuple(axes for _ in names),))


def write_graph(
    module: nn.Module,
    arguments: tuple[Any, ...],
    path: Path,
    inputs: Sequence[str] | None = None,
    outputs: Sequence[str] | None = None,
    dynamic_shapes: Any = None,
) -> None:
    """A module as a graph; without `dynamic_shapes` for the shapes of these arguments alone. Raises UserError as `write_network` does."""
    if absent := lacking():
        raise UserError(f"ONNX needs {absent}")
    size = sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())
    with quiet():
        program = torch.onnx.export(
            module, arguments, input_names=inputs, output_names=outputs, dynamic_shapes=dynamic_shapes, dynamo=True, verbose=False
        )
        assert program is not None
        program.save(str(path), external_data=size > LARGEST)


def write_fixed(module: nn.Module, arguments: tuple[Any, ...], path: Path) -> None:
    """A part, or a network with the outputs that it ships with, for the shapes of these arguments (positional, None for none) alone."""
    if isinstance(module, Network):
        names = ("input_ids", "attention_mask", "token_type_ids", "input_ids_b", "attention_mask_b")
        given = {name: tensor for name, tensor in zip(names, arguments, strict=False) if tensor is not None}
        module, arguments = _Positional(module, tuple(given), output_names(module.spec)).eval(), tuple(given.values())
    write_graph(module, arguments, path)


@contextmanager
def quiet() -> Iterator[None]:
    """Without the exporter's warnings about its own insides."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


class _Positional(nn.Module):
    """A network whose inputs come by place; gives its outputs as a tuple."""

    def __init__(self, network: Network, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        super().__init__()
        self.network = network
        self.inputs = inputs
        self.outputs = outputs

    def forward(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        found = self.network(**dict(zip(self.inputs, arguments, strict=True)))
        return tuple(found[name] for name in self.outputs)
