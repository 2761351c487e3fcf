"""The teacher of the corpus stages: the backbone with its output layer for masked words (paper, section 4.1), one for all seeds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, cast

import numpy as np
import torch
from torch import nn

from methods.corpus.masked_words import masked_word_logits, masked_word_loss, word_flops
from methods.corpus.masking import SHARE
from methods.errors import UserError
from methods.evaluation import weights_digest
from methods.nasbert.assembly import last_state
from methods.nasbert.networks import teacher_spec
from methods.nasbert.options import CorpusTeacher
from methods.network import Network
from methods.recipe import CorpusContext, StageRecord
from methods.tasks.head import Head
from methods.training.checkpoint import write_atomically
from methods.training.initialisation import initialise, load_backbone, load_masked_word_head
from methods.training.loop import Backward, Batch, Step
from methods.training.options import StepSchedule
from methods.training.processes import is_main_process, join_processes, wait_for_everyone, weighed
from methods.training.stage import train_stage

STAGE = "teacher"
STAGES = (STAGE,)
SEED = 0
"""Of its weights, masks and batches: it serves all seeds."""
ORIGIN = "origin.json"
Origin = Literal["pretrained", "of the backbone", "trained on frozen features"]


def corpus_teacher(context: CorpusContext, options: CorpusTeacher) -> Network:
    """The backbone with a masked-language-model head, in eval mode; trained, or read back, in `context.shared`.

    `source: pretrain` trains all of it from random weights. `source: backbone` takes its weights as they are and the output layer that
    its files hold; where they hold none, that layer alone is trained on frozen features, decoder tied to the frozen word table.
    """
    join_processes(context.hardware)
    config = context.backbone.config
    torch.manual_seed(SEED)
    network = Network(teacher_spec(config, Head("mlm")))
    initialise(network, config.initializer_range)
    if options.source == "pretrain":
        _pretrain(context, options, network)
        return _settled(context, network, "pretrained")
    load_backbone(network, context.backbone.weights())
    found = context.backbone.masked_word_head()
    if found is None:
        _train_head(context, options, network)
        return _settled(context, network, "trained on frozen features")
    load_masked_word_head(network, found)
    context.record_shared(StageRecord(STAGE, 0, 0, 0.0, 0.0))
    return _settled(context, network, "of the backbone")


def origin(folder: Path) -> Origin:
    """What the teacher in a recipe's `shared` folder is. Raises UserError where there is none yet."""
    path = folder / STAGE / ORIGIN
    try:
        return cast(Origin, json.loads(path.read_text())["origin"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: no teacher is finished there ({error})") from error


def _settled(context: CorpusContext, network: Network, kind: Origin) -> Network:
    if is_main_process():
        write_atomically(context.shared / STAGE / ORIGIN, json.dumps({"origin": kind}) + "\n")
    wait_for_everyone()
    return network.to(context.hardware.device).eval().requires_grad_(False)


def _pretrain(context: CorpusContext, options: CorpusTeacher, network: Network) -> None:
    run = last_state(network)

    def step(batch: Batch, backward: Backward) -> dict[str, float]:
        masked = context.corpus.masker(batch)
        logits = masked_word_logits(network.head, run(masked), masked["labels"], network.stem.word.weight)
        loss = masked_word_loss(logits, masked["labels"])
        backward(weighed(loss, len(logits), len(masked["labels"])))
        return {"loss": float(loss.detach())}

    per_text = 3 * word_flops(network.spec, options.length)
    _train(context, options, network, options.steps, step, per_text, {"backbone": context.backbone.config.to_dict()})


def _train_head(context: CorpusContext, options: CorpusTeacher, network: Network) -> None:
    """The head is the stage's model, so that stem and encoder stay in eval mode, outside of optimiser, checkpoints and graph.

    Its bias starts at the logarithm of the words' frequencies, which a short training would not reach.
    """
    if options.length > network.spec.stem.positions:
        raise UserError(
            f"nasbert: teacher.length: {options.length}; the backbone has {network.spec.stem.positions} positions,"
            " and an output layer for masked words has to be trained on it"
        )
    network.to(context.hardware.device).eval().requires_grad_(False)
    network.head.requires_grad_()
    words = context.corpus.packed("train", options.length).counts(network.spec.stem.vocabulary)
    cast(nn.Parameter, network.head.bias).data.copy_(torch.from_numpy(np.log((words + 1) / (words.sum() + len(words)))))
    run = last_state(network)

    def step(batch: Batch, backward: Backward) -> dict[str, float]:
        masked = context.corpus.masker(batch)
        with torch.no_grad():
            state = run(masked)
        logits = masked_word_logits(network.head, state, masked["labels"], network.stem.word.weight)
        loss = masked_word_loss(logits, masked["labels"])
        backward(weighed(loss, len(logits), len(masked["labels"])))
        return {"loss": float(loss.detach())}

    per_text = word_flops(network.spec, options.length) + 2 * SHARE * network.spec.head.flops(options.length)
    frozen = {"frozen": weights_digest(nn.ModuleList([network.stem, network.encoder]))}
    _train(context, options, network.head, options.head_steps, step, per_text, frozen)


def _train(
    context: CorpusContext,
    options: CorpusTeacher,
    model: nn.Module,
    steps: int,
    step: Step,
    per_text: float,
    settings: Mapping[str, object],
) -> None:
    train_stage(
        context.shared,
        STAGE,
        model,
        step,
        context.corpus.packed("train", options.length),
        lambda packed, rows: packed.batch(rows),
        StepSchedule(total=steps, batch_size=options.batch_size, optimiser=options.optimiser, accumulation=options.accumulation),
        seed=SEED,
        hardware=context.hardware,
        flops=lambda batch, _: batch * per_text,
        settings={"source": options.source, **settings},
        record=context.record_shared,
    )
