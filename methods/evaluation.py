"""Runs a network, or one architecture of a supernet, over a split: metrics and per-example predictions."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from transformers.utils.generic import ModelOutput

from methods.recipe import Hardware
from methods.tasks.batches import token_batches
from methods.tasks.metrics import compute

if TYPE_CHECKING:
    from methods.tasks.batches import Collate, Encoded
    from methods.tasks.task import Split, TaskSpec

Run = Callable[[Mapping[str, Tensor]], ModelOutput]
Batch = tuple[list[int], dict[str, Tensor]]
TOKENS = {"cpu": 1024, "cuda": 32_768}
"""Of a batch: states that stay in the processor's cache; on a GPU enough to keep it busy."""


@dataclass(frozen=True)
class Evaluation:
    """`metrics` by name; `logits` (n, outputs) float32 and `ids` (n,) in the split's order; `seconds` of the forward passes.

    Of questions `logits` holds what the answers are worth: F1 and exact match, (n, 2).
    """

    metrics: dict[str, float]
    logits: npt.NDArray[np.float32]
    ids: npt.NDArray[np.int64]
    seconds: float


def evaluate(run: Run, collate: Collate, split: Split, task: TaskSpec, hardware: Hardware | None = None) -> Evaluation:
    """Scores `run` (batch -> output with logits) on every row of the split; the model behind it is expected in eval mode."""
    hardware = hardware or Hardware()
    encoded, batches = _batches(cast(Hashable, collate), split.digest, hardware.device, _Held(split))
    started = time.monotonic()
    order, found = _logits(run, encoded, batches, hardware)
    kept = np.empty((len(encoded), found.shape[-1]), dtype=np.float32)
    kept[order] = found
    logits = encoded.outputs(kept)
    seconds = time.monotonic() - started
    return Evaluation(compute(task, logits, split.labels), logits, np.asarray(split.ids), seconds)


def evaluate_in_parts(
    run: Run, collate: Collate, split: Split, parts: Sequence[npt.NDArray[np.int64]], hardware: Hardware | None = None
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
    """The rows read so far (n,) and their logits (n, outputs), after each of the parts: for whoever may not need them all.

    `parts`: row numbers of the split, each in one part; the batches of a part are of its rows alone, the shortest first, and half as large
    as those of the whole, since few rows are less alike in length. Not for questions, of which several rows make one answer.
    """
    hardware = hardware or Hardware()
    encoded, _ = _batches(cast(Hashable, collate), split.digest, hardware.device, _Held(split))
    rows, logits = np.empty(0, dtype=np.int64), np.empty((0, 0), dtype=np.float32)
    for part in parts:
        groups = [part[places].tolist() for places in token_batches(encoded.lengths[part], TOKENS[hardware.device] // 2)]
        order, found = _logits(run, encoded, _collated(collate, encoded, groups, hardware.device), hardware)
        rows, logits = np.concatenate([rows, order]), np.concatenate([logits, found]) if len(logits) else found
        yield rows, logits


def _logits(
    run: Run, encoded: Encoded, batches: Iterable[Batch], hardware: Hardware
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Row numbers of all batches (n,) and what is kept of their logits (n, outputs), in that order."""
    pieces, order = [], []
    with torch.inference_mode(), torch.autocast(hardware.device, torch.bfloat16, enabled=hardware.precision == "bf16"):
        for rows, batch in batches:
            pieces.append(encoded.kept(run(batch)["logits"], batch).float().cpu())
            order.extend(rows)
    return np.array(order, dtype=np.int64), torch.cat(pieces).numpy()


def _collated(collate: Collate, encoded: Encoded, groups: Iterable[list[int]], device: str) -> Iterator[Batch]:
    return ((rows, {name: tensor.to(device) for name, tensor in collate(encoded, rows).items()}) for rows in groups)


class _Held:
    """A split that the cache below does not look at: its digest stands for it."""

    def __init__(self, split: Split) -> None:
        self.split = split

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Held)

    def __hash__(self) -> int:
        return 0


@lru_cache(maxsize=8)
def _batches(collate: Collate, digest: str, device: str, held: _Held) -> tuple[Encoded, list[Batch]]:  # noqa: ARG001
    """The tokenised split and its length-bucketed batches, made once per collate and split."""
    encoded = collate.encode(held.split)
    groups = token_batches(encoded.lengths, TOKENS[device])
    return encoded, list(_collated(collate, encoded, groups, device))


def weights_digest(module: nn.Module) -> str:
    """SHA-256 (hex) of all parameters and buffers, names included."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(tensor.detach().cpu().numpy()).tobytes())
    return digest.hexdigest()
