"""The teacher's logits of a task's training rows and their copies: computed once, kept, and put into batches."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save, save_file
from torch import Tensor

from methods.errors import UserError
from methods.evaluation import weights_digest
from methods.recipe import Context, StageRecord
from methods.supernet import inputs
from methods.tasks.batches import Encoded, evaluation_batches, joint
from methods.training.augmentation.parts import in_parts
from methods.training.checkpoint import written_aside
from methods.training.processes import is_main_process, wait_for_everyone
from methods.training.stage import training_flops

if TYPE_CHECKING:
    from methods.network import Network
    from methods.tasks.batches import Collate
    from methods.tasks.split import Split

STAGE = "teacher-logits"
FILE = "logits.safetensors"
PART = 4096
"""Rows whose logits are computed together."""
BATCH = 64


@dataclass
class SoftLabels:
    """The logits of `rows` by `teacher`; `context.folder` keeps them. Nothing is computed before they are asked for."""

    context: Context
    teacher: Network
    rows: Split

    @cached_property
    def digest(self) -> str:
        """SHA-256 of teacher, rows and how these are read."""
        settings = (weights_digest(self.teacher), self.rows.digest, self.context.max_length, self.context.hardware.precision)
        return hashlib.sha256(repr(settings).encode()).hexdigest()

    @cached_property
    def logits(self) -> Tensor:
        """(rows, outputs) float32 in the order of the rows. Those of another teacher or of other rows are replaced."""
        path = self.context.folder / FILE
        if is_main_process():
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(path.with_name(f"{FILE}.lock")):  # of several workers that need them one computes, and all others read
                if _digest_of(path) != self.digest:
                    self._compute(path)
        wait_for_everyone()
        with safe_open(path, framework="pt") as file:
            found: Tensor = file.get_tensor("logits")
            about = file.metadata()
        self.context.record(StageRecord(STAGE, 0, len(found), float(about["flops"]), float(about["seconds"])))
        return found

    def attached(self, collate: Collate) -> Collate:
        """`collate` with `teacher_logits` (B, outputs) in its batches, of any choice of these rows."""
        return _WithLogits(collate, self)

    @cached_property
    def place(self) -> dict[tuple[str, str | None], int]:
        """Where in `logits` a row's are, by its texts."""
        return {key: place for place, key in enumerate(_keys(self.rows))}

    def _compute(self, path: Path) -> None:
        torch.set_num_threads(self.context.hardware.threads)
        chunks = [np.arange(start, min(start + PART, len(self.rows))) for start in range(0, len(self.rows), PART)]
        parts = [
            load(part)
            for part in in_parts(path.parent / "logits", self.digest, [len(c) for c in chunks], lambda n: self._part(chunks[n]), STAGE)
        ]
        about = {name: str(sum(float(part[name]) for part in parts)) for name in ("flops", "seconds")}
        with written_aside(path) as aside:
            save_file({"logits": torch.cat([part["logits"] for part in parts])}, aside, {**about, "digest": self.digest})
        shutil.rmtree(path.parent / "logits")

    @torch.inference_mode()
    def _part(self, places: np.typing.NDArray[np.int64]) -> bytes:
        started, hardware = time.monotonic(), self.context.hardware
        collate = joint(self.context.backbone.tokenizer, self.context.max_length)
        teacher, encoded = self.teacher.to(hardware.device).eval(), collate.encode(self.rows.take(places))
        flops, per_batch = 0.0, training_flops([], [teacher.spec])
        found: dict[int, Tensor] = {}
        with torch.autocast(hardware.device, torch.bfloat16, enabled=hardware.precision == "bf16"):
            for rows in evaluation_batches(encoded.lengths, BATCH):
                batch = {name: tensor.to(hardware.device) for name, tensor in collate(encoded, rows).items()}
                found.update(zip(rows, teacher(**inputs(batch))["logits"].float().cpu(), strict=True))
                flops += per_batch(len(rows), batch["input_ids"].shape[1])
        logits = torch.stack([found[row] for row in range(len(encoded))])
        costs = {"flops": torch.tensor(flops, dtype=torch.float64), "seconds": torch.tensor(time.monotonic() - started)}
        return save({"logits": logits, **costs})


def _digest_of(path: Path) -> str | None:
    """Of whose the logits are that lie there; None where there are none. Raises UserError where the file is damaged."""
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            about: dict[str, str] = file.metadata()
            return about["digest"]
    except (SafetensorError, OSError, KeyError, TypeError) as error:
        raise UserError(f"{path}: damaged ({error}); remove it to compute the teacher's logits anew") from error


def _keys(rows: Split) -> list[tuple[str, str | None]]:
    return list(zip(rows.text, rows.text_b or [None] * len(rows), strict=True))


@dataclass(frozen=True, eq=False)
class _Encoded(Encoded):
    """A tokenised split with the teacher's logits (rows, outputs)."""

    logits: Tensor


@dataclass(frozen=True)
class _WithLogits:
    collate: Collate
    labels: SoftLabels

    def encode(self, split: Split) -> Encoded:
        own = self.collate.encode(split)
        places = [self.labels.place[key] for key in _keys(split)]
        return _Encoded(own.columns, own.lengths, own.labels, own.ids, self.labels.logits[places])

    def __call__(self, encoded: Encoded, rows: Sequence[int]) -> dict[str, Tensor]:
        if not isinstance(encoded, _Encoded):
            raise TypeError("rows are needed that the same collate has encoded")
        return {**self.collate(encoded, rows), "teacher_logits": encoded.logits[list(rows)]}
