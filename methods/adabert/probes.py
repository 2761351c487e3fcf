"""Linear probes of the fine-tuned, frozen teacher: one per layer, from 0 (the embedding) to J (paper; `spec` section 2)."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from functools import cached_property
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from methods.adabert.objective import label_loss
from methods.adabert.options import ProbeOptions
from methods.adabert.plan import PROBES
from methods.errors import UserError
from methods.evaluation import weights_digest
from methods.network import Network
from methods.recipe import Context
from methods.supernet import inputs
from methods.tasks.batches import Encoded, evaluation_batches, joint
from methods.tasks.metrics import compute
from methods.tasks.split import Split
from methods.training.checkpoint import write_atomically
from methods.training.loop import Backward, Batch
from methods.training.options import Optimiser, StepSchedule
from methods.training.stage import train_stage, training_flops

ACCURACY = "accuracy.csv"
BATCH = 128
"""Rows that the frozen teacher reads at once."""


class Probes(nn.Module):
    """J + 1 linear maps from the teacher's width to the task's outputs."""

    def __init__(self, hidden: int, layers: int, labels: int) -> None:
        super().__init__()
        self.maps = nn.ModuleList(nn.Linear(hidden, labels) for _ in range(layers + 1))

    def forward(self, features: Tensor) -> Tensor:
        """(B, J + 1, H) -> logits (B, J + 1, C)."""
        return torch.stack([probe(features[:, layer]) for layer, probe in enumerate(self.maps)], 1)


def teacher_of(context: Context) -> Network:
    """The fine-tuned teacher on the context's device, in eval mode. Raises UserError where there is none."""
    if context.teacher is None:
        raise UserError("adabert: needs a fine-tuned teacher (section `teacher` of the experiment)")
    return context.teacher.to(context.hardware.device).eval()


def features_of(teacher: Network, batch: Batch, feature: str) -> tuple[Tensor, Tensor]:
    """What probes read (B, J + 1, H), and the teacher's own logits (B, C).

    Layer 0: the mean of the embedding over tokens, padding left out; others: the first token, or what the teacher's pooler makes of it.
    """
    output = teacher(**inputs(batch))
    states, mask = output["hidden_states"], batch["attention_mask"]
    mean = (states[0] * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    first = torch.stack([state[:, 0] for state in states[1:]], 1)
    if feature == "pooled":
        if not isinstance(pooler := getattr(teacher.head, "pooler", None), nn.Linear):
            raise UserError("probes.feature: pooled; the teacher has no pooler: write first_token")
        first = torch.tanh(pooler(first))
    return torch.cat([mean[:, None], first], 1), output["logits"]


@torch.no_grad()
def teacher_pass(context: Context, encoded: Encoded, feature: str) -> Iterator[tuple[list[int], Tensor, Tensor]]:
    """Over all rows: their places, features and teacher's logits, on the CPU in float32."""
    teacher, device = teacher_of(context), context.hardware.device
    collate = joint(context.backbone.tokenizer, context.max_length)
    for rows in evaluation_batches(encoded.lengths, BATCH):
        batch = {name: tensor.to(device) for name, tensor in collate(encoded, rows).items()}
        features, logits = features_of(teacher, batch, feature)
        yield rows, features.float().cpu(), logits.float().cpu()


class ProbedRows:
    """Training rows as probes see them; the frozen teacher reads them once, when they are first needed."""

    def __init__(self, context: Context, split: Split, feature: str) -> None:
        self.context, self.split, self.feature, self.digest = context, split, feature, split.digest

    def __len__(self) -> int:
        return len(self.split)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """All alike: features have no length."""
        return np.ones(len(self), dtype=np.int64)

    @cached_property
    def encoded(self) -> Encoded:
        return joint(self.context.backbone.tokenizer, self.context.max_length).encode(self.split)

    @cached_property
    def features(self) -> Tensor:
        """(rows, J + 1, H)."""
        config = self.context.backbone.config
        found = torch.empty(len(self), config.layers + 1, config.hidden)
        for rows, features, _ in teacher_pass(self.context, self.encoded, self.feature):
            found[rows] = features
        return found

    def batch(self, rows: Sequence[int]) -> Batch:
        return {"features": self.features[list(rows)], "labels": torch.from_numpy(self.split.labels[list(rows)])}

    @cached_property
    def teacher_flops(self) -> float:
        """Of reading all rows once."""
        flops, lengths = training_flops([], [teacher_of(self.context).spec]), self.encoded.lengths
        return sum(flops(len(rows), int(lengths[rows].max())) for rows in evaluation_batches(lengths, BATCH))


def train_probes(context: Context, options: ProbeOptions, split: Split | None = None) -> Probes:
    """The probes after stage `probes`, in eval mode; trained with Adam on `split`, by default the task's train.

    `accuracy.csv` in the stage's folder has the task's metrics per layer on those rows: where the teacher's knowledge sits.
    """
    split = context.task.split("train") if split is None else split
    config, head, o = context.backbone.config, context.task.head, options
    torch.manual_seed(context.seed)
    probes, rows = Probes(config.hidden, config.layers, head.labels), ProbedRows(context, split, o.feature)
    steps = max(1, round(ceil(len(split) / o.batch_size) * o.epochs))

    def step(batch: Batch, backward: Backward) -> dict[str, float]:
        losses = label_loss(head, probes(batch["features"]).transpose(0, 1), batch["labels"])
        backward(losses.sum())
        return {"loss": float(losses.detach().mean())}

    def flops(batch: int, length: int) -> float:  # noqa: ARG001 (features have no length)
        return batch * (6.0 * head.labels * config.hidden * (config.layers + 1) + rows.teacher_flops / (len(rows) * o.epochs))

    adam = Optimiser(learning_rate=o.learning_rate, schedule="constant", warmup_steps=0, weight_decay=0.0, clip=o.clip)
    schedule = StepSchedule(total=steps, batch_size=o.batch_size, optimiser=adam)
    settings = {"teacher": weights_digest(teacher_of(context)), "feature": o.feature, "max_length": context.max_length}
    more: dict[str, Any] = {"seed": context.seed, "hardware": context.hardware, "settings": settings, "record": context.record}
    train_stage(
        context.folder,
        PROBES,
        probes,
        step,
        rows,
        ProbedRows.batch,
        schedule,
        flops=flops,
        companion=_Accuracy(probes, rows, context),
        **more,
    )
    return probes.eval()


class _Accuracy:
    """Measures the finished probes; see `methods.training.stage.StageCompanion`."""

    def __init__(self, probes: Probes, rows: ProbedRows, context: Context) -> None:
        self.probes, self.rows, self.context = probes, rows, context

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        pass

    def after(self, step: int) -> bool:  # noqa: ARG002
        return False

    @torch.no_grad()
    def write(self, folder: Path) -> tuple[str, ...]:
        device = next(self.probes.parameters()).device
        logits = self.probes(self.rows.features.to(device)).cpu()
        labels = self.rows.split.labels
        losses = label_loss(self.context.task.head, logits.transpose(0, 1), torch.from_numpy(labels))
        measured = [
            {"layer": layer, "loss": float(losses[layer]), **compute(self.context.task.spec, logits[:, layer].numpy(), labels)}
            for layer in range(logits.shape[1])
        ]
        text = io.StringIO()
        writer = csv.DictWriter(text, list(measured[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(measured)
        write_atomically(folder / ACCURACY, text.getvalue())
        return ()
