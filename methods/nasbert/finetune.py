"""Fine-tuning of a pre-trained network on a task, taught by the fine-tuned teacher, over a small grid (paper, section 3.5)."""

from __future__ import annotations

import copy
import itertools
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from methods.errors import UserError
from methods.evaluation import evaluate, weights_digest
from methods.nasbert.initialise import initialise_network
from methods.nasbert.options import Finetuning
from methods.network import Network, NetworkSpec, distributions, task_loss
from methods.recipe import Context, StageRecord, stage_of
from methods.space import Architecture
from methods.supernet import inputs
from methods.tasks.batches import joint
from methods.tasks.head import Head
from methods.training.checkpoint import write_atomically
from methods.training.distillation import soft_divergence
from methods.training.loop import Backward, Batch
from methods.training.options import Schedule
from methods.training.processes import is_main_process, of_main_process, wait_for_everyone
from methods.training.stage import DONE, WEIGHTS, run_stage, training_flops

STAGE = "finetune"


def finetune(
    context: Context, pretrained: Network, architecture: Architecture, options: Finetuning, spec: NetworkSpec, start: Network | None = None
) -> Network:
    """The network of `spec` with the stem and encoder of `start` (else `pretrained`) and a new head, fine-tuned on the task; eval mode.

    Every point of the grid is a stage; the one that is best on `search` stays, the weights of the others are removed once that is
    written down. Without a teacher, or with `distillation: 0`, plain fine-tuning. Raises UserError for a task whose outputs can't be
    compared this way.
    """
    _check_task(context)
    source = start or pretrained
    if (source.spec.stem, source.spec.encoder) != (spec.stem, spec.encoder):
        raise UserError(f"nasbert: task {context.task.name!r}: finetune.init_from: the network to start from has another encoder")
    teacher = context.teacher if options.distillation else None
    if teacher is not None:
        teacher = copy.deepcopy(teacher).to(context.hardware.device).eval().requires_grad_(False)
    grid = _Grid(context, source, teacher, architecture, options, spec)
    chosen = grid.read_choice()
    return grid.search() if chosen is None else grid.read_back(chosen)


def _check_task(context: Context) -> None:
    kind = context.task.head.kind
    if kind not in ("classification", "regression", "span"):
        known = "classification, regression and spans"
        raise UserError(f"nasbert: task {context.task.name!r} asks for {kind} outputs; fine-tuning knows {known}")


@dataclass(frozen=True)
class _Grid:
    """All runs of one architecture on one task."""

    context: Context
    source: Network
    teacher: Network | None
    architecture: Architecture
    options: Finetuning
    spec: NetworkSpec

    @cached_property
    def points(self) -> dict[str, Schedule]:
        """Each run's stage and schedule, in the order of the options."""
        o = self.options
        triples = list(dict.fromkeys(itertools.product(o.learning_rates, o.batch_sizes, o.epochs)))
        common: dict[str, Any] = {"rows": o.rows, "warmup": o.warmup, "weight_decay": o.weight_decay, "clip": o.clip or sys.float_info.max}
        found = {}
        for rate, size, epochs in triples:
            name = STAGE if len(triples) == 1 else f"{STAGE}-lr{rate}-b{size}-e{epochs}"
            found[stage_of(name, self.architecture)] = Schedule(learning_rate=rate, batch_size=size, epochs=epochs, **common)
        return found

    @property
    def choice_file(self) -> Path:
        return self.context.folder / stage_of(f"{STAGE}-choice", self.architecture) / "choice.json"

    def search(self) -> Network:
        """Trains (or reads back) every run and keeps the best; of equal ones the first."""
        scores: dict[str, float] = {}
        best: Network | None = None
        for stage, schedule in self.points.items():
            network = self.run(stage, schedule)
            if len(self.points) == 1:
                return network
            score = of_main_process(self.score(network))
            if best is None or score > max(scores.values()):
                best = network
            scores[stage] = score
        assert best is not None
        self.choose(scores)
        return best

    def run(self, stage: str, schedule: Schedule) -> Network:
        """One run, from its finished weights, from a checkpoint, or from the start."""
        context = self.context
        torch.manual_seed(context.seed)
        student = Network(self.spec)
        initialise_network(student.head, context.backbone.config.initializer_range)
        student.stem.load_state_dict(self.source.stem.state_dict())
        student.encoder.load_state_dict(self.source.encoder.state_dict())
        step = TaughtStep(student, self.teacher, context.task.head, self.options.distillation, self.options.temperature)
        collate = joint(context.backbone.tokenizer, context.max_length)
        taught = self.teacher is not None and self.options.augmented
        soft_labels = context.soft_labels if taught else None
        if soft_labels is not None:
            collate = soft_labels.attached(collate)
        flops = training_flops([student.spec], [] if self.teacher is None or soft_labels is not None else [self.teacher.spec])
        run_stage(context, stage, student, step, schedule, collate, flops, self.settings, augmented=self.options.augmented)
        return student

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What every run depends on besides its schedule."""
        found: dict[str, Any] = {"architecture": self.architecture.canonical, "max_length": self.context.max_length}
        found["start"] = weights_digest(nn.ModuleList([self.source.stem, self.source.encoder]))
        if self.teacher is not None:
            found |= self.options.model_dump(include={"distillation", "temperature"}) | {"teacher": weights_digest(self.teacher)}
        return found

    def score(self, network: Network) -> float:
        """The task's metric on `search`."""
        context = self.context
        network = network.to(context.hardware.device).eval()
        collate, split = joint(context.backbone.tokenizer, context.max_length), context.task.split("search")
        found = evaluate(lambda batch: network(**inputs(batch)), collate, split, context.task.spec, context.hardware)
        return found.metrics[context.task.spec.metric]

    def choose(self, scores: Mapping[str, float]) -> None:
        """Writes down which run stays, then removes the others' weights."""
        if is_main_process():
            winner = max(scores, key=lambda stage: scores[stage])
            write_atomically(self.choice_file, json.dumps({"winner": winner, "scores": dict(scores)}, indent=1))
            self._remove_losers(winner)
        wait_for_everyone()

    def _remove_losers(self, winner: str) -> None:
        for stage in self.points:
            if stage != winner:
                (self.context.folder / stage / WEIGHTS).unlink(missing_ok=True)

    def read_choice(self) -> str | None:
        """The run that stays, where that is known. Raises UserError where the file is damaged or of another grid."""
        path = self.choice_file
        if len(self.points) == 1 or not path.exists():
            return None
        try:
            data = json.loads(path.read_text())
            winner, stages = str(data["winner"]), list(data["scores"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: damaged ({error}); remove the folders {STAGE}-* beside it to fine-tune anew") from error
        if stages != list(self.points) or winner not in stages:
            raise UserError(f"{path}: was chosen from another grid ({', '.join(stages)}); choose another run folder, or remove {STAGE}-*")
        return winner

    def read_back(self, winner: str) -> Network:
        """The chosen run's network; all runs are recorded as when they were trained."""
        if is_main_process():
            self._remove_losers(winner)
        network: Network | None = None
        for stage, schedule in self.points.items():
            if stage == winner:
                network = self.run(stage, schedule)
            else:
                self.context.record(_record(self.context.folder / stage))
        assert network is not None
        return network


def _record(folder: Path) -> StageRecord:
    try:
        return StageRecord(**json.loads((folder / DONE).read_text())["record"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / DONE}: damaged ({error}); remove the folders {STAGE}-* beside it to fine-tune anew") from error


@dataclass
class TaughtStep:
    """(1 - l) x task loss + l x KL to the teacher; regression: mean squared error of the outputs in the place of the KL.

    The teacher's logits are those of the batch, where it brings them.
    """

    student: Network
    teacher: Network | None
    task: Head
    share: float
    temperature: float

    def __call__(self, batch: Batch, backward: Backward) -> dict[str, float]:
        logits = self.student(**inputs(batch))["logits"]
        loss = task_loss(self.task, logits, batch["labels"])
        if self.teacher is None:
            backward(loss)
            return {"loss": float(loss.detach())}
        with torch.no_grad():
            taught = batch["teacher_logits"] if "teacher_logits" in batch else self.teacher(**inputs(batch))["logits"]
        if self.task.kind == "regression":
            distilled = F.mse_loss(logits.float(), taught.float())
        else:
            distilled = soft_divergence(distributions(self.task, logits), distributions(self.task, taught), self.temperature)
        backward((1 - self.share) * loss + self.share * distilled)
        return {"loss": float(loss.detach()), "distilled": float(distilled.detach())}
