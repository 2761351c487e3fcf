"""The search's loss (paper): (1 - gamma) labels + gamma distillation + efficiency, the first two mixed over depths.

Depths mix losses, not hidden states: the loss of depth k reads cells 1..k only and counts by depth k's weight.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from methods.adabert.mapping import teacher_layer
from methods.adabert.options import LossOptions
from methods.adabert.relaxation import Relaxation
from methods.adabert.search_model import SearchOutput
from methods.supernet import Batch
from methods.tasks.head import Head


@dataclass(frozen=True)
class Terms:
    """Weighted scalars that add up to the loss."""

    labels: Tensor
    distillation: Tensor
    efficiency: Tensor
    penalties: Tensor

    @property
    def total(self) -> Tensor:
        return self.labels + self.distillation + self.efficiency + self.penalties

    def figures(self) -> dict[str, float]:
        return {name: float(term.detach()) for name, term in vars(self).items()}


def label_loss(head: Head, logits: Tensor, labels: Tensor) -> Tensor:
    """(...,) means over the batch of cross-entropy, for regression of squared error; `logits` (..., B, C), `labels` (B,)."""
    logits = logits.float()
    if head.kind == "regression":
        return (logits.squeeze(-1) - labels.float()).square().mean(-1)
    return -logits.log_softmax(-1).gather(-1, labels.expand(logits.shape[:-1])[..., None])[..., 0].mean(-1)


def distance(head: Head, student: Tensor, teacher: Tensor, options: LossOptions) -> Tensor:
    """(...,) soft cross-entropy at temperature T, less the teacher's entropy and times T^2 where asked for; squared error for regression.
    Logits (..., C)."""
    student, teacher = student.float(), teacher.float()
    if head.kind == "regression":
        return (student - teacher).square().squeeze(-1)
    t = options.temperature
    taught = (teacher / t).log_softmax(-1)
    sure = taught if options.teacher_entropy == "subtracted" else torch.zeros_like(taught)
    soft = (taught.exp() * (sure - (student / t).log_softmax(-1))).sum(-1)
    return soft * t**2 if options.temperature_squared else soft


def layer_weights(probe_losses: Tensor, mode: str) -> Tensor:
    """(B, layers): softmax over layers of the negative probe loss (B, layers), per example or of the batch's mean; rows add up to 1."""
    losses = probe_losses if mode == "example" else probe_losses.mean(0, keepdim=True).expand_as(probe_losses)
    return F.softmax(-losses.float(), dim=-1)


class Objective:
    """`layers`: J of the teacher. Batches hold `labels` and what `teacher_signals` adds to them."""

    def __init__(self, options: LossOptions, head: Head, layers: int) -> None:
        self.options, self.head, self.layers = options, head, layers

    def __call__(self, batch: Batch, output: SearchOutput, weights: Relaxation) -> Terms:
        """The terms that data have a say in; the others are 0."""
        o = self.options
        labels = (weights.depth * label_loss(self.head, output.depth_logits, batch["labels"])).sum()
        distilled = labels.new_zeros(())
        if o.gamma:
            hidden = output.hidden_logits
            pairs = ((own, None if hidden is None else hidden[: k + 1]) for k, own in enumerate(output.depth_logits))
            depths = [distillation_loss(self.head, o, self.layers, batch, own, heads) for own, heads in pairs]
            distilled = (weights.depth * torch.stack(depths)).sum()
        nothing = labels.new_zeros(())
        return Terms((1 - o.gamma) * labels, o.gamma * distilled, nothing, nothing)


def distillation_loss(head: Head, options: LossOptions, layers: int, batch: Batch, own: Tensor, hidden: Tensor | None) -> Tensor:
    """Of a student of K cells against a teacher of J = `layers`, a mean over the batch, which holds what `teacher_signals` adds to it.

    `own` (B, C): the student's logits, in which its last layer speaks; `hidden` (K, B, C): those of heads on its layers 0..K - 1,
    which are not looked at where only the teacher's final logits teach.
    """
    final = distance(head, own, batch["teacher_logits"], options).mean()
    if options.distillation == "final":
        return final
    if hidden is None:
        raise ValueError(f"distillation {options.distillation!r} needs a head on every hidden layer")
    cells = len(hidden)
    students = [*hidden, own] if options.distillation == "probes" else [*hidden]
    taught = [teacher_layer(i, cells, layers) for i in range(len(students))]
    each = distance(head, torch.stack(students, 1), batch["probe_logits"][:, taught], options)
    probed = (layer_weights(batch["probe_losses"][:, taught], options.layer_weights) * each).sum(1).mean()
    return probed if options.distillation == "probes" else (final + probed) / 2
