"""Compares an ONNX file with the network that it was written from."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from methods.errors import UserError
from methods.network import Network
from methods.onnx.graph import input_names, output_names
from methods.onnx.runtime import OnnxNetwork

TOLERANCE = 1e-4
"""Of the largest logit."""
SHAPES = ((1, 2), (2, 16), (3, 5), (5, 64), (1, 3), (4, 31))
"""Batch and length; what the network has no positions for is cut. The longest text that it takes comes with them."""
_MASKED = 1e30
"""Scores beyond this stand for minus infinity."""


def check_against_torch(network: Network, path: Path) -> float:
    """The greatest difference of outputs on ragged random batches, over the largest output. Raises UserError beyond `TOLERANCE`."""
    try:
        found = difference(network, OnnxNetwork(path))
    except RuntimeError as error:
        raise UserError(f"{path.name}: {error}") from error
    if not found <= TOLERANCE:
        raise UserError(f"{path.name}: onnxruntime's logits differ from torch's by {found:.1e} of the largest; {TOLERANCE:g} is allowed")
    return found


@torch.inference_mode()
def difference(network: Network, other: OnnxNetwork, seed: int = 0) -> float:
    """As `check_against_torch`, whatever it is; infinite where one has a number and the other none. Raises RuntimeError where it
    does not run."""
    generator, longest = torch.Generator().manual_seed(seed), network.spec.stem.positions
    apart, largest = 0.0, 0.0
    for batch, length in (*SHAPES, (1, longest)):
        inputs = ragged(network, batch, min(length, longest), generator)
        mine = network(**inputs)
        try:
            its = other(inputs)
        except Exception as error:
            said = " ".join(str(error).split())
            raise RuntimeError(f"does not run on {batch} x {inputs['input_ids'].shape[1]} tokens ({said})") from error
        for name in output_names(network.spec):
            if not torch.equal(mine[name].abs() < _MASKED, its[name].abs() < _MASKED):
                return float("inf")
            numbers = mine[name].abs() < _MASKED
            largest = max(largest, mine[name][numbers].abs().max().item())
            apart = max(apart, (mine[name] - its[name])[numbers].abs().max().item())
    return apart / largest if largest else apart


def ragged(network: Network, batch: int, length: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Random texts, the first of the full length, the others of any; of a pair read apart the last second text has the full length."""
    stem, made = network.spec.stem, {}
    for name in input_names(network.spec):
        lengths = torch.randint(1, length + 1, (batch,), generator=generator)
        lengths[-1 if name.endswith("_b") else 0] = length
        if name.startswith("input_ids"):
            mask = (torch.arange(length) < lengths[:, None]).long()
            ids = torch.randint(stem.vocabulary, (batch, length), generator=generator)
            made[name], made[name.replace("input_ids", "attention_mask")] = torch.where(mask.bool(), ids, stem.padding_id), mask
        elif name == "token_type_ids":
            made[name] = torch.randint(stem.types, (batch, length), generator=generator) * made["attention_mask"]
    return made
