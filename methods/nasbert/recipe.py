"""NAS-BERT's stages: teacher, block-wise supernet, tables, pre-training of what is chosen, fine-tuning (paper, section 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import torch

from methods.backbone import BackboneConfig
from methods.corpus.masked_words import masked_batches
from methods.errors import UserError
from methods.nasbert.assembly import MaskedWords, last_state
from methods.nasbert.checks import check_options
from methods.nasbert.estimate import NasBertEstimates
from methods.nasbert.finetune import finetune
from methods.nasbert.options import NasBertOptions
from methods.nasbert.plan import plan_stages
from methods.nasbert.retrain import retrain
from methods.nasbert.space import NasBertSpace, space_of
from methods.nasbert.supernet import NasBertSupernet
from methods.nasbert.supernet_stage import (
    MASK_SEED,
    SHRINKING,
    block_stage,
    finished_losses,
    make_tables,
    new_survivors,
    train_blocks,
    train_supernet,
)
from methods.nasbert.survivors import Survivors
from methods.nasbert.teacher import STAGES, corpus_teacher, origin
from methods.network import Network
from methods.recipe import Context, CorpusContext, CorpusRecipe, StagePlan, StageRecord
from methods.space import Architecture, SearchSpace
from methods.supernet import Supernet
from methods.tasks.head import Head

if TYPE_CHECKING:
    from methods.latency import LatencyTable

WORDS = Head("mlm")


class NasBertRecipe(CorpusRecipe):
    """One supernet on a corpus serves every task. `variants`: the start of pre-training that the options do not choose."""

    shared_stages = STAGES

    def __init__(self, options: NasBertOptions) -> None:
        self.options = options
        self.candidates = options.selection.candidates
        self.criterion = {"log_likelihood": "log_likelihood", "state_error": "negative_state_error"}[options.selection.criterion]
        pretrained = (options.teacher.length,) if options.teacher.source == "pretrain" else ()
        self.lengths = (*pretrained, options.supernet.length, options.retrain.length)
        self.assembled_texts = options.selection.dev_batches * (options.shrinking.dev_batch_size or options.supernet.batch_size)
        self.inner_stages = (SHRINKING, *(f"{SHRINKING}-{block + 1}" for block in range(options.blocks)))
        self.variants = ("inherit",) if options.retrain.start == "scratch" else ("scratch",)
        self.parts = options.blocks if options.supernet.blocks_per_step == "one" else 0
        self._teachers: dict[Path, tuple[Network, list[StageRecord]]] = {}
        self._words: dict[tuple[str, str, str], MaskedWords] = {}

    def plan(self, space: SearchSpace, backbone: BackboneConfig, head: Head, rows: int, length: int, copies: int = 0) -> list[StagePlan]:
        return plan_stages(self.options, _space(space), backbone, head, rows, length, copies)

    def check(self, space: SearchSpace, backbone: BackboneConfig, variants: Sequence[str]) -> None:
        check_options(self.options, _space(space), backbone, variants)

    def train(self, context: CorpusContext) -> NasBertSupernet:
        stage = self._beginning(context)
        train_supernet(*stage)
        make_tables(*stage)
        return stage[3].eval()

    def prepare(self, context: CorpusContext) -> None:
        self._teacher(context)

    def train_part(self, context: CorpusContext, part: int) -> None:
        self.train_block(context, part)

    def train_block(self, context: CorpusContext, block: int) -> None:
        """Trains one block (from 0) and nothing else, so that blocks can be trained in processes of their own; `train` with
        `supernet.blocks_per_step: one` then reads them. Every process needs the finished teacher, or trains it alike."""
        train_blocks(*self._beginning(context), block_stage(block), (block,))

    def _beginning(self, context: CorpusContext) -> tuple[CorpusContext, NasBertOptions, NasBertSpace, NasBertSupernet, Network, Survivors]:
        """The untrained supernet with its teacher and all paths."""
        config = context.backbone.config
        space = space_of(self.options, config)
        torch.set_num_threads(context.hardware.threads)
        teacher = self._teacher(context)
        torch.manual_seed(context.seed)
        supernet = NasBertSupernet(space, config, WORDS)
        supernet.load_teacher(teacher)
        return context, self.options, space, supernet, teacher, new_survivors(self.options, space, context)

    def estimates(
        self,
        folder: Path,
        space: SearchSpace,
        backbone: BackboneConfig,
        heads: Sequence[Head],
        length: int,
        batch: int,
        devices: Mapping[str, LatencyTable],
    ) -> NasBertEstimates:
        losses = finished_losses(folder, _space(space))
        return NasBertEstimates(losses, _space(space), backbone, heads, length, batch, devices, self.options.selection.embedding)

    def assemble(self, context: CorpusContext, supernet: Supernet, architecture: Architecture) -> dict[str, float]:
        net = cast(NasBertSupernet, supernet)
        words = self._masked_words(context, "search", self.options.selection.dev_batches)
        return words.score(lambda batch: net.encode(batch, architecture)[-1], net.head, net.stem.word.weight)

    def pretrain(self, context: CorpusContext, supernet: Supernet, architecture: Architecture, variant: str = "") -> Network:
        if variant not in ("", *self.variants):
            raise UserError(f"nasbert: there is no other way {variant!r} to pre-train; there is {self.variants[0]}")
        start = cast(Literal["scratch", "inherit"], variant or self.options.retrain.start)
        return retrain(context, cast(NasBertSupernet, supernet), self._teacher(context), architecture, self.options.retrain, start)

    def measure(self, context: CorpusContext, network: Network, split: str) -> dict[str, float]:
        network = network.to(context.hardware.device).eval()
        words = self._masked_words(context, split, 0, taught=False)
        return words.score(last_state(network), network.head, network.stem.word.weight)

    def finish(self, context: Context, pretrained: Network, architecture: Architecture, start: Network | None = None) -> Network:
        config = context.backbone.config
        spec = space_of(self.options, config).spec(architecture, config, context.task.head)
        return finetune(context, pretrained, architecture, self.options.finetune, spec, start)

    def about(self, context: CorpusContext) -> dict[str, str]:
        o = self.options.retrain
        how = {"scratch": "from random weights, as in the paper", "inherit": "from the supernet's weights (ours, not the paper's)"}[o.start]
        taught = {"logits": "the teacher's distribution over masked words", "hidden": "the teacher's last states (ours)"}[o.objective]
        loss = f"masked words and, weighing {o.distillation:g}, {taught}" if o.distillation else "masked words"
        return {"teacher": f"output layer for masked words {origin(context.shared)}", "pre-training": f"{how}; {loss}"}

    def starts_from(self, task: str) -> str | None:
        return self.options.finetune.init_from.get(task)

    def _teacher(self, context: CorpusContext) -> Network:
        """Made once; every context that uses it hears what it cost."""
        if context.shared not in self._teachers:
            heard: list[StageRecord] = []
            teacher = corpus_teacher(replace(context, record_shared=heard.append), self.options.teacher)
            self._teachers[context.shared] = teacher, heard
        teacher, stages = self._teachers[context.shared]
        for stage in stages:
            context.record_shared(stage)
        return teacher.eval()

    def _masked_words(self, context: CorpusContext, split: str, batches: int, taught: bool = True) -> MaskedWords:
        """Fixed masked batches of a split; made once."""
        packed = context.corpus.packed(split, self.options.retrain.length)
        key = (packed.digest, str(batches), str(taught))
        if key not in self._words:
            size = self.options.shrinking.dev_batch_size or self.options.supernet.batch_size
            masked = list(masked_batches(packed, context.corpus.masker, size, batches, MASK_SEED))
            self._words[key] = MaskedWords.of(masked, context.hardware, self._teacher(context) if taught else None)
        return self._words[key]


def _space(space: SearchSpace) -> NasBertSpace:
    if not isinstance(space, NasBertSpace):
        raise TypeError(f"NAS-BERT's recipe works on NAS-BERT's space, not {type(space).__name__}")
    return space
