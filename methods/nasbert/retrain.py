"""Pre-training of the chosen network: masked words and the teacher's distribution over them (paper, section 3.5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from methods.corpus.masked_words import masked_word_logits, masked_word_loss, word_flops
from methods.corpus.masking import SHARE
from methods.evaluation import weights_digest
from methods.layers.encoder import Link
from methods.nasbert.assembly import last_state
from methods.nasbert.inherit import inherit_with_out
from methods.nasbert.initialise import initialise_network
from methods.nasbert.options import Retraining
from methods.nasbert.ranking import block_error, variance
from methods.network import Network
from methods.recipe import CorpusContext, stage_of
from methods.space import Architecture
from methods.tasks.head import Head
from methods.training.distillation import soft_divergence
from methods.training.loop import Backward, Batch
from methods.training.options import StepSchedule
from methods.training.processes import summed, weighed
from methods.training.stage import train_stage

if TYPE_CHECKING:
    from methods.corpus.masking import Masker
    from methods.nasbert.supernet import NasBertSupernet

STAGE = "retrain"
WORDS = Head("mlm")


def retrain(
    context: CorpusContext,
    supernet: NasBertSupernet,
    teacher: Network,
    architecture: Architecture,
    options: Retraining,
    start: Literal["scratch", "inherit"],
) -> Network:
    """The deployed network with a masked-language-model head, pre-trained with the teacher, in eval mode.

    The stage lies in `context.folder`; that of the start which the options do not choose, in a folder of that name beneath it.
    """
    length = options.length
    torch.manual_seed(context.seed)
    taught = options.distillation > 0
    student, out = _start(supernet, architecture, start)
    bridge = out if taught and options.objective == "hidden" else None
    teacher = teacher.to(context.hardware.device).eval().requires_grad_(False)
    settings: dict[str, Any] = {"architecture": architecture.canonical, "start": start}
    settings |= options.model_dump(include={"objective", "distillation", "temperature"})
    settings |= {"supernet": weights_digest(supernet)} if start == "inherit" else {}
    settings |= {"teacher": weights_digest(teacher)} if taught else {}
    per_text = _flops(student, teacher, bridge, taught, length)
    train_stage(
        context.folder if start == options.start else context.folder / start,
        stage_of(STAGE, architecture),
        nn.ModuleDict({"student": student} | ({} if bridge is None else {"bridge": bridge})),
        DistilledStep(student, teacher, context.corpus.masker, options, bridge),
        context.corpus.packed("train", length),
        lambda packed, rows: packed.batch(rows),
        StepSchedule(total=options.steps, batch_size=options.batch_size, optimiser=options.optimiser, accumulation=options.accumulation),
        seed=context.seed,
        hardware=context.hardware,
        flops=lambda batch, _: batch * per_text,
        settings=settings,
        record=context.record,
    )
    return student


@dataclass
class DistilledStep:
    """(1 - l) x masked words + l x KL to the teacher at the masked places; with a `bridge` (last state to the teacher's width) the mean
    squared error of the last states, over the variance of the teacher's, in the place of the KL."""

    student: Network
    teacher: Network
    masked: Masker
    options: Retraining
    bridge: nn.Module | None = None

    def __call__(self, batch: Batch, backward: Backward) -> dict[str, float]:
        masked = self.masked(batch)
        state = last_state(self.student)(masked)
        logits = masked_word_logits(self.student.head, state, masked["labels"], self.student.stem.word.weight)
        words = masked_word_loss(logits, masked["labels"])
        share = self.options.distillation
        if not share:
            backward(weighed(words, len(logits), len(state)))
            return {"words": float(words.detach())}
        distilled, over = self._distilled(masked, state, logits)
        backward((1 - share) * weighed(words, len(logits), len(state)) + share * weighed(distilled, over, len(state)))
        return {"words": float(words.detach()), "distilled": float(distilled.detach())}

    def _distilled(self, masked: Batch, state: torch.Tensor, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | int]:
        """The loss, and over how many masked words or tokens it is the mean."""
        with torch.no_grad():
            target = last_state(self.teacher)(masked)
            if self.bridge is None:
                target = masked_word_logits(self.teacher.head, target, masked["labels"], self.teacher.stem.word.weight)
        if self.bridge is None:
            return soft_divergence(logits, target, self.options.temperature), len(logits)
        mask = masked["attention_mask"]
        return block_error(self.bridge(state), target, mask) / variance(target, mask, summed), mask.sum()


def _start(supernet: NasBertSupernet, architecture: Architecture, start: str) -> tuple[Network, nn.Linear]:
    """The network before its first step, and a map from its last state to the teacher's width, which this stage alone may need."""
    config = supernet.backbone
    bridge = nn.Linear(architecture.choices["blocks"][-1]["hidden"], config.hidden)
    if start == "inherit":
        student, out = inherit_with_out(supernet, architecture, WORDS)
        out.write(bridge)
    else:
        student = Network(supernet.space.spec(architecture, config, WORDS))
        initialise_network(student, config.initializer_range, supernet.nasbert.settings.dropout)
        initialise_network(bridge, config.initializer_range)
    return student, bridge


def _flops(student: Network, teacher: Network, bridge: nn.Linear | None, taught: bool, length: int) -> float:
    """Of one text: 3 x student and its bridge, 1 x teacher, which needs no output layer where states are compared."""
    total = 3 * word_flops(student.spec, length) + (word_flops(teacher.spec, length) if taught else 0)
    if bridge is not None:
        total += 3 * Link(bridge.in_features, bridge.out_features).flops(length) - SHARE * teacher.spec.head.flops(length)
    return total
