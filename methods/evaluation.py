"""Runs a network, or one architecture of a supernet, over a split: metrics and per-example predictions."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from transformers.utils.generic import ModelOutput

from methods.recipe import Hardware
from methods.tasks.batches import evaluation_batches
from methods.tasks.metrics import compute

if TYPE_CHECKING:
    from methods.tasks.batches import Collate
    from methods.tasks.task import Split, TaskSpec

Run = Callable[[Mapping[str, Tensor]], ModelOutput]


@dataclass(frozen=True)
class Evaluation:
    """`metrics` by name; `logits` (n, outputs) float32 and `ids` (n,) in the split's order; `seconds` of the forward passes."""

    metrics: dict[str, float]
    logits: npt.NDArray[np.float32]
    ids: npt.NDArray[np.int64]
    seconds: float


def evaluate(
    run: Run, collate: Collate, split: Split, task: TaskSpec, hardware: Hardware | None = None, batch_size: int = 128
) -> Evaluation:
    """Scores `run` (batch -> output with logits) on every row of the split; the model behind it is expected in eval mode."""
    hardware = hardware or Hardware()
    batches = _batches(cast(Hashable, collate), split.digest, batch_size, hardware.device, _Held(split))
    started = time.monotonic()
    pieces, order = [], []
    with torch.inference_mode(), torch.autocast(hardware.device, torch.bfloat16, enabled=hardware.precision == "bf16"):
        for rows, batch in batches:
            pieces.append(run(batch)["logits"].float().cpu())
            order.extend(rows)
    logits = np.empty((len(split), pieces[0].shape[-1]), dtype=np.float32)
    logits[np.array(order)] = torch.cat(pieces).numpy()
    seconds = time.monotonic() - started
    return Evaluation(compute(task, logits, split.labels), logits, np.asarray(split.ids), seconds)


class _Held:
    """A split that the cache below does not look at: its digest stands for it."""

    def __init__(self, split: Split) -> None:
        self.split = split

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Held)

    def __hash__(self) -> int:
        return 0


@lru_cache(maxsize=8)
def _batches(collate: Collate, digest: str, batch_size: int, device: str, held: _Held) -> list[tuple[list[int], dict[str, Tensor]]]:  # noqa: ARG001
    """Tokenised, length-bucketed batches, made once per collate and split."""
    encoded = collate.encode(held.split)
    groups = evaluation_batches(encoded.lengths, batch_size)
    return [(rows, {name: tensor.to(device) for name, tensor in collate(encoded, rows).items()}) for rows in groups]


def weights_digest(module: nn.Module) -> str:
    """SHA-256 (hex) of all parameters and buffers, names included."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(tensor.detach().cpu().numpy()).tobytes())
    return digest.hexdigest()
