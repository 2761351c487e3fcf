"""One training step of DynaBERT: every sub-network in turn, one graph alive at a time, gradients summed (paper, algorithms 1 and 2)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.utils.generic import ModelOutput

from methods.backbone import BackboneConfig
from methods.dynabert.space import architecture_of
from methods.dynabert.supernet import DynaBertSupernet
from methods.network import distributions, task_loss
from methods.space import Architecture
from methods.training.distillation import hidden_loss, soft_cross_entropy
from methods.training.loop import Backward, Batch


def whole_network(backbone: BackboneConfig) -> Architecture:
    """All layers, heads and neurons."""
    n = backbone.layers
    return architecture_of(range(n), [backbone.heads] * n, [backbone.intermediate] * n)


def teacher_of(architecture: Architecture, backbone: BackboneConfig, width: Literal["full", "matched"]) -> Architecture:
    """Who teaches a sub-network: the whole network, or the one of the same width at full depth."""
    if width == "full":
        return whole_network(backbone)
    genes = architecture.choices  # of a grid, whose layers are of one width
    return architecture_of(range(backbone.layers), [genes["heads"][0]] * backbone.layers, [genes["neurons"][0]] * backbone.layers)


def big_first(architectures: Sequence[Architecture]) -> list[Architecture]:
    """Depth descending, width descending."""

    def size(architecture: Architecture) -> tuple[int, int, int]:
        genes = architecture.choices
        return len(genes["layers"]), sum(genes["heads"]), sum(genes["neurons"])

    return sorted(architectures, key=size, reverse=True)


@contextmanager
def looked_up(student: DynaBertSupernet, batch: Batch) -> Iterator[Batch]:
    """The batch with its words looked up once for all sub-networks: the word table, often half of all parameters, then gets the sum of
    their gradients at once."""
    words = student.stem.word(batch["input_ids"])
    shared = words.detach().requires_grad_()
    yield {**batch, "inputs_embeds": shared}
    if shared.grad is not None:
        words.backward(shared.grad)


@dataclass(frozen=True)
class DistillationStep:
    """Loss of a sub-network: lambda_logits x soft cross-entropy + lambda_hidden x hidden states (equations 4 to 8).

    State i of the student faces the teacher's input to the same layer of the backbone, its last state the teacher's last.
    """

    student: DynaBertSupernet
    teacher: DynaBertSupernet
    architectures: tuple[Architecture, ...]
    lambda_logits: float
    lambda_hidden: float
    teacher_width: Literal["full", "matched"] = "full"
    padded: bool = False
    regression_loss: Literal["none", "mse"] = "none"

    def __call__(self, batch: Batch, backward: Backward) -> dict[str, float]:
        taught: dict[Architecture, ModelOutput] = {}
        logits_total = hidden_total = 0.0
        with looked_up(self.student, batch) as words:
            for architecture in big_first(self.architectures):
                guide = teacher_of(architecture, self.student.backbone, self.teacher_width)
                if guide not in taught:
                    with torch.no_grad():
                        taught[guide] = self.teacher(batch, guide)
                teacher = taught[guide]
                student = self.student(words, architecture)
                states = teacher["hidden_states"]
                faced = [states[layer] for layer in architecture.choices["layers"]] + [states[-1]]
                hidden = hidden_loss(student["hidden_states"], faced, batch["attention_mask"], self.padded)
                logits = self._prediction(student["logits"], teacher["logits"])
                backward(self.lambda_logits * logits + self.lambda_hidden * hidden)
                logits_total += float(logits.detach())
                hidden_total += float(hidden.detach())
        n = len(self.architectures)
        return {"logits": logits_total / n, "hidden": hidden_total / n}

    def _prediction(self, student: Tensor, teacher: Tensor) -> Tensor:
        if self.student.head_kind.kind != "regression":
            head = self.student.head_kind
            return soft_cross_entropy(distributions(head, student), distributions(head, teacher))
        if self.regression_loss == "mse":
            return F.mse_loss(student.float(), teacher.float())
        return student.new_zeros(())


@dataclass(frozen=True)
class TaskStep:
    """The task's own loss of every sub-network on the labels (stage 3; stage 1 without distillation)."""

    student: DynaBertSupernet
    architectures: tuple[Architecture, ...]

    def __call__(self, batch: Batch, backward: Backward) -> dict[str, float]:
        total = 0.0
        with looked_up(self.student, batch) as words:
            for architecture in big_first(self.architectures):
                loss = task_loss(self.student.head_kind, self.student(words, architecture)["logits"], batch["labels"])
                backward(loss)
                total += float(loss.detach())
        return {"loss": total / len(self.architectures)}
