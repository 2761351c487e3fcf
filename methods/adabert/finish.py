"""Stage `finish` (paper): the derived network trained on from the supernet's weights, or from scratch, with the search's losses."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor, nn

from methods.adabert.folding import fold
from methods.adabert.objective import distillation_loss, label_loss
from methods.adabert.plan import FINISH, SEARCH
from methods.adabert.search_data import SearchRows
from methods.adabert.statistics import reestimate, training_sample
from methods.adabert.steppers import stepping
from methods.adabert.taught import Rows
from methods.adabert.teacher_signals import Signals
from methods.errors import UserError
from methods.evaluation import weights_digest
from methods.layers.cell import CellStack, attended
from methods.network import Network, NetworkSpec
from methods.recipe import Context, stage_of
from methods.space import Architecture
from methods.supernet import Batch, inputs
from methods.tasks.batches import Collate, separate
from methods.tasks.head import Head
from methods.training.initialisation import initialise
from methods.training.loop import Backward
from methods.training.options import Optimiser, StepSchedule
from methods.training.stage import WEIGHTS, train_stage, training_flops

if TYPE_CHECKING:
    from methods.adabert.options import AdaBertOptions, LossOptions
    from methods.adabert.supernet import AdaBertSupernet

Start = Literal["inherit", "scratch"]
_UNCLIPPED = 0.0


def finish(
    context: Context,
    options: AdaBertOptions,
    supernet: AdaBertSupernet,
    architecture: Architecture,
    start: Start,
    rows: Rows,
    folder: str = "",
) -> Network:
    """The deployed network of an architecture, in eval mode: trained, statistics re-estimated, folded.

    Its stage, one per architecture, lies in `context.folder`, or in a folder of that name beneath it. Raises UserError for an
    architecture that is none of the space.
    """
    if not supernet.space.contains(architecture):
        raise UserError(f"adabert: {architecture.canonical} is no architecture of its space: it can't be finished")
    torch.manual_seed(context.seed)
    network = supernet.extract(architecture) if start == "inherit" else fresh(context, supernet.spec(architecture))
    student = Student(network, _hidden_layers(network, options))
    if start == "inherit":
        _inherit_heads(context, student)
    settings = {"architecture": architecture.canonical, "start": start}
    train(context, options, student, Path(folder) / stage_of(FINISH, architecture), settings, rows)
    return deployed(context, options, network)


def fresh(context: Context, spec: NetworkSpec) -> Network:
    """A hosted network with initial weights and the teacher's tables, as the supernet begins."""
    network = Network(spec)
    initialise(network, context.backbone.config.initializer_range)
    if context.teacher is None:
        raise UserError("adabert: needs a fine-tuned teacher (section `teacher` of the experiment)")
    with torch.no_grad():
        for name in ("word", "position"):
            getattr(network.stem, name).weight.copy_(getattr(context.teacher.stem, name).weight)
    return network


class Student(nn.Module):
    """A hosted network, and linear heads on its hidden layers 0..K - 1 (or none) for the teacher's probes, which no one ships."""

    def __init__(self, network: Network, hidden_layers: int) -> None:
        super().__init__()
        self.network = network
        width, labels = cast(nn.Linear, network.head.classifier).in_features, network.spec.task.labels
        self.hidden_heads = nn.ModuleList(nn.Linear(width, labels) for _ in range(hidden_layers))

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Logits (B, C), and those of the hidden heads (K, B, C)."""
        output = self.network(**inputs(batch))
        if not len(self.hidden_heads):
            return output["logits"], None
        mask = batch["attention_mask"]
        if "attention_mask_b" in batch:
            mask = torch.maximum(mask, batch["attention_mask_b"])
        alone = torch.zeros(1, device=mask.device)
        states = zip(self.hidden_heads, output["hidden_states"], strict=False)
        return output["logits"], torch.stack([head(attended((state,), mask, alone)) for head, state in states])


@dataclass
class FinishStep:
    """(1 - gamma) labels + gamma distillation, as in the search; labels alone where gamma is 0. `layers`: J of the teacher."""

    student: Student
    head: Head
    loss: LossOptions
    gamma: float
    layers: int

    def __call__(self, batch: Batch, backward: Backward) -> dict[str, float]:
        logits, hidden = self.student(batch)
        labels = label_loss(self.head, logits, batch["labels"])
        if not self.gamma:
            backward(labels)
            return {"labels": float(labels.detach())}
        distilled = distillation_loss(self.head, self.loss, self.layers, batch, logits, hidden)
        backward((1 - self.gamma) * labels + self.gamma * distilled)
        return {"labels": float(labels.detach()), "distillation": float(distilled.detach())}


def train(
    context: Context, options: AdaBertOptions, student: Student, place: Path, settings: dict[str, Any], rows: Rows, more_steps: int = 0
) -> None:
    """Brings a student to the state after a stage of finishing, which lies at `place` in the context's folder: the last state.
    `more_steps`: beyond those of finishing."""
    o, device = options.finish, context.hardware.device
    gamma = _gamma(options)
    loss = options.search.loss
    if not len(student.hidden_heads):
        loss = loss.model_copy(update={"distillation": "final"})
    collate: Collate = separate(context.backbone.tokenizer, context.max_length)
    if gamma:
        collate = Signals(collate, rows.signals)
        settings = settings | {"signals": rows.signals.made_of}
        settings |= loss.model_dump(include={"distillation", "temperature", "temperature_squared", "teacher_entropy", "layer_weights"})
    data = SearchRows(cache(lambda: collate.encode(rows.split)), collate, np.arange(len(rows.split)), rows.split.digest)
    total = max(1, round(ceil(len(data) / o.batch_size) * o.epochs)) + more_steps
    pace = Optimiser(learning_rate=o.weights.learning_rate, clip=_UNCLIPPED)  # the stepper clips
    settings = settings | {"gamma": gamma, "finish": o.model_dump(exclude={"start", "augmented"}), "max_length": context.max_length}
    train_stage(
        context.folder / place.parent,
        place.name,
        student.to(device),
        FinishStep(student, student.network.spec.task, loss, gamma, context.backbone.config.layers),
        data,
        SearchRows.batch,
        StepSchedule(total=total, batch_size=o.batch_size, optimiser=pace),
        seed=context.seed,
        hardware=context.hardware,
        flops=training_flops([student.network.spec]),
        settings=settings | {"weights": weights_digest(student)},
        record=context.record,
        stepper=stepping(o.weights),
        watch=context.watch,
        shown=student.network,
    )


def deployed(context: Context, options: AdaBertOptions, network: Network) -> Network:
    """Statistics re-estimated on training rows, then folded."""
    collate = separate(context.backbone.tokenizer, context.max_length)
    reestimate(network, training_sample(context, collate, options.derivation.batch_norm_batches, options.finish.batch_size))
    return fold(network)


def _gamma(options: AdaBertOptions) -> float:
    return options.search.loss.gamma if options.finish.objective == "labels_and_distillation" else 0.0


def _hidden_layers(network: Network, options: AdaBertOptions) -> int:
    """How many of a network's layers have a probe to learn from besides the last."""
    wanted = _gamma(options) and options.search.loss.distillation != "final"
    return cast(CellStack, network.spec.encoder).count if wanted else 0


@torch.no_grad()
def _inherit_heads(context: Context, student: Student) -> None:
    """The hidden heads that the search trained, where they are there."""
    path = context.folder / SEARCH / WEIGHTS
    if not len(student.hidden_heads) or not path.exists():
        return
    with safe_open(path, framework="pt") as file:
        known = set(file.keys())
        for name, tensor in student.hidden_heads.state_dict().items():
            if f"hidden_heads.{name}" in known:
                tensor.copy_(file.get_tensor(f"hidden_heads.{name}"))
