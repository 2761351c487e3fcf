"""What the teacher says of every training row, computed once: its probes' logits and losses, and its own logits."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from methods.adabert.options import ProbeOptions
from methods.adabert.probes import Probes, teacher_of, teacher_pass
from methods.errors import UserError
from methods.evaluation import weights_digest
from methods.recipe import Context
from methods.tasks.batches import Collate, Encoded, joint
from methods.tasks.head import Head
from methods.tasks.split import Split
from methods.tasks.task import AUGMENTED
from methods.training.checkpoint import written_aside

FILE = "signals.safetensors"


@dataclass(frozen=True, eq=False)
class TeacherSignals:
    """By place in the training rows: `probe_logits` (rows, J + 1, C), `final_logits` (rows, C) of the teacher itself, `probe_losses`
    (rows, J + 1): cross-entropy with the gold label, for regression the squared error. `made_of`: digests of teacher, probes and data."""

    probe_logits: Tensor
    final_logits: Tensor
    probe_losses: Tensor
    made_of: dict[str, str]

    def __len__(self) -> int:
        return len(self.final_logits)

    def batch(self, rows: Sequence[int]) -> dict[str, Tensor]:
        """What joins a batch of these rows: `probe_logits`, `teacher_logits`, `probe_losses`."""
        places = torch.as_tensor(np.asarray(rows, dtype=np.int64))
        return {
            "probe_logits": self.probe_logits[places],
            "teacher_logits": self.final_logits[places],
            "probe_losses": self.probe_losses[places],
        }


@dataclass(frozen=True)
class Signals:
    """A collate whose batches hold the teacher's signals too: of all rows that the teacher has read, or of train, which comes first there.

    Raises UserError for other rows.
    """

    collate: Collate
    signals: TeacherSignals

    def encode(self, split: Split) -> Encoded:
        if split.digest not in (self.signals.made_of["data"], self.signals.made_of["train"]):
            raise UserError(f"adabert: the teacher's signals are of other rows than these {len(split)} of split {split.name!r}")
        return self.collate.encode(split)

    def __call__(self, encoded: Encoded, rows: Sequence[int]) -> dict[str, Tensor]:
        return self.collate(encoded, rows) | self.signals.batch(rows)


def teacher_signals(context: Context, options: ProbeOptions, probes: Probes, split: Split | None = None) -> TeacherSignals:
    """The signals of every row of `split`, from `signals.safetensors` in the recipe's folder where they lie.

    By default the task's train, followed by the copies of its rows where there are any.

    Raises UserError where that file is damaged, or of another teacher, other probes or other data.
    """
    train = context.task.split("train")
    split = training_split(context, augmented=True) if split is None else split
    made_of = {
        "teacher": weights_digest(teacher_of(context)),
        "probes": weights_digest(probes),
        "data": split.digest,
        "train": train.digest,
        "max_length": str(context.max_length),
        "feature": options.feature,
    }
    path = context.folder / FILE
    if not path.exists():
        _save(path, _compute(context, options, probes, split, made_of))
    return _load(path, made_of)


def training_split(context: Context, augmented: bool) -> Split:
    """The task's train; with the copies of its rows behind it where asked for and where there are any."""
    return context.task.split(AUGMENTED if augmented and AUGMENTED in context.task.split_names else "train")


@torch.no_grad()
def _compute(context: Context, options: ProbeOptions, probes: Probes, split: Split, made_of: dict[str, str]) -> TeacherSignals:
    config, head = context.backbone.config, context.task.head
    probes = probes.cpu().eval()
    encoded = joint(context.backbone.tokenizer, context.max_length).encode(split)
    logits, final = torch.empty(len(split), config.layers + 1, head.labels), torch.empty(len(split), head.labels)
    for rows, features, own in teacher_pass(context, encoded, options.feature):
        logits[rows], final[rows] = probes(features), own
    return TeacherSignals(logits, final, probe_losses(head, logits, torch.from_numpy(split.labels)), made_of)


def probe_losses(head: Head, logits: Tensor, labels: Tensor) -> Tensor:
    """(rows, J + 1): cross-entropy of each probe's logits (rows, J + 1, C) with the label, for regression the squared error."""
    if head.kind == "regression":
        return (logits.squeeze(-1) - labels[:, None].float()).square()
    return F.cross_entropy(logits.transpose(1, 2), labels[:, None].expand(logits.shape[:2]), reduction="none")


def _save(path: Path, signals: TeacherSignals) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: getattr(signals, name).contiguous() for name in ("probe_logits", "final_logits", "probe_losses")}
    with written_aside(path) as aside:
        save_file(tensors, aside, metadata={"made_of": json.dumps(signals.made_of, sort_keys=True)})  # one entry: equal files, equal bytes


def _load(path: Path, made_of: dict[str, str]) -> TeacherSignals:
    try:
        with safe_open(path, framework="pt") as file:
            found = json.loads((file.metadata() or {})["made_of"])
            tensors = {name: file.get_tensor(name) for name in ("probe_logits", "final_logits", "probe_losses")}
    except Exception as error:
        raise UserError(f"{path}: damaged ({str(error).splitlines()[0]}); remove it to have it computed anew") from error
    other = [name for name, value in made_of.items() if found.get(name) != value]
    if other:
        raise UserError(
            f"{path}: the teacher's signals were computed with other {', '.join(other)}; choose another run folder, or remove it"
        )
    return TeacherSignals(**tensors, made_of=made_of)
