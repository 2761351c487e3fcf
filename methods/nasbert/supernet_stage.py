"""The stages `supernet` (block-wise training with shrinking) and `tables` (losses of the surviving paths)."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from methods.corpus.masked_words import masked_batches
from methods.errors import UserError
from methods.evaluation import weights_digest
from methods.nasbert.block_flops import BlockFlops
from methods.nasbert.block_training import SPENT, BlockwiseStep, EpochEnds, read_survivors
from methods.nasbert.losses import BlockLosses
from methods.nasbert.options import NasBertOptions
from methods.nasbert.paths import Indices, Paths
from methods.nasbert.plan import epochs_of
from methods.nasbert.ranking import HeldOut
from methods.nasbert.shrinking import sampled
from methods.nasbert.space import NasBertSpace
from methods.nasbert.survivors import Survivors, bins_of, check_bins
from methods.recipe import CorpusContext, StageRecord
from methods.training.checkpoint import file_digest
from methods.training.options import StepSchedule
from methods.training.processes import is_main_process, join_processes, of_main_process, wait_for_everyone
from methods.training.stage import DONE, read_mark, train_stage, write_mark

if TYPE_CHECKING:
    from methods.nasbert.supernet import NasBertSupernet
    from methods.network import Network
    from methods.supernet import Batch

SUPERNET, SHRINKING, TABLES, LOSSES = "supernet", "shrinking", "tables", "losses.csv"
MASK_SEED = 0
"""Held-out text is masked alike in every run."""


def new_survivors(options: NasBertOptions, space: NasBertSpace, context: CorpusContext) -> Survivors:
    """All paths of every block in their bins. Raises UserError where the bins leave nothing to train."""
    paths = Paths(space)
    bin_of = bins_of(options.shrinking, space, context.backbone.config, paths)
    survivors = Survivors(paths, bin_of, options.shrinking.bins, space.blocks, options.supernet.probe_paths)
    check_bins(options, survivors.at_start(0))
    return survivors


def held_out_text(context: CorpusContext, options: NasBertOptions) -> list[Batch]:
    """The first `shrinking.dev_batches` batches of the corpus's `search`, masked."""
    packed = context.corpus.packed("search", options.supernet.length)
    size = options.shrinking.dev_batch_size or options.supernet.batch_size
    return list(masked_batches(packed, context.corpus.masker, size, options.shrinking.dev_batches, MASK_SEED))


def train_supernet(
    context: CorpusContext, options: NasBertOptions, space: NasBertSpace, supernet: NasBertSupernet, teacher: Network, survivors: Survivors
) -> None:
    """Trains all blocks, or reads what is finished; `survivors` is left with what shrinking kept.

    With `supernet.blocks_per_step: one` every block is a stage of its own, which may also have been trained by another process.
    """
    blocks = tuple(range(space.blocks))
    together = options.supernet.blocks_per_step == "all"
    for name, part in [(SUPERNET, blocks)] if together else [(block_stage(b), (b,)) for b in blocks]:
        train_blocks(context, options, space, supernet, teacher, survivors, name, part)


def block_stage(block: int) -> str:
    """The name of the stage that trains one block (from 0) alone."""
    return f"{SUPERNET}-{block + 1}"


def train_blocks(
    context: CorpusContext,
    options: NasBertOptions,
    space: NasBertSpace,
    supernet: NasBertSupernet,
    teacher: Network,
    survivors: Survivors,
    name: str,
    blocks: Sequence[int],
) -> None:
    """One stage: the named blocks, which need nothing of the others."""
    o, hardware = options.supernet, context.hardware
    join_processes(hardware)
    held_out = HeldOut.of(teacher.to(hardware.device).eval(), held_out_text(context, options), space.blocks, hardware)
    supernet.to(hardware.device)
    teacher.to(hardware.device).eval().requires_grad_(False)
    flops = BlockFlops.of(space, context.backbone.config, o.length)
    step = BlockwiseStep(supernet, teacher, context.corpus.masker, survivors, tuple(blocks), options, context.seed)
    ends = EpochEnds(step, held_out, hardware, flops)
    data = context.corpus.packed("train", o.length)
    model = nn.ModuleDict({str(block): supernet.block_modules(block) for block in blocks})

    def spent(batch: int, _: int) -> float:
        trained = sum(flops.path(survivors.paths, number) for number in step.before.values())
        return float(batch) * (flops.teacher + 3 * trained)

    total = max(epochs_of(options, survivors.at_start(block)) for block in range(space.blocks)) * o.epoch_steps
    schedule = StepSchedule(total=total, batch_size=o.batch_size, optimiser=o.optimiser, accumulation=o.accumulation)
    settings = {
        "options": {**options.model_dump(include={"supernet"}), "shrinking": _shrinking(options), **options.sizes()},
        "teacher": weights_digest(nn.ModuleList([teacher.stem, teacher.encoder])),
        "held_out": context.corpus.packed("search", o.length).digest,
    }
    train_stage(
        context.folder,
        name,
        model,
        step,
        data,
        lambda packed, rows: packed.batch(rows),
        schedule,
        seed=context.seed,
        hardware=hardware,
        flops=spent,
        settings=settings,
        record=context.record,
        companion=ends,
        clipped=list(model.values()),
        seeded_as=SUPERNET,
    )
    folder = context.folder / name
    try:
        read_survivors(folder, survivors)
        ranked = json.loads((folder / SPENT).read_text())
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder}: what shrinking left there is damaged ({error}); remove the folder to train it anew") from error
    part = name.removeprefix(SUPERNET)
    context.record(StageRecord(SHRINKING + part, ranked["evaluated"], ranked["examples"], ranked["flops"], ranked["seconds"], 0))


def make_tables(
    context: CorpusContext, options: NasBertOptions, space: NasBertSpace, supernet: NasBertSupernet, teacher: Network, survivors: Survivors
) -> None:
    """The block loss table (paper, section 3.4): held-out loss of the surviving paths; of bins that were not shrunk, the best ones."""
    folder = context.folder / TABLES
    fingerprint = _fingerprint(context, options, supernet)
    if of_main_process((folder / DONE).exists()):
        mark, record = read_mark(folder)
        if mark["fingerprint"] == fingerprint:
            context.record(record)
            return
    started = time.monotonic()
    held_out = HeldOut.of(teacher.eval(), held_out_text(context, options), space.blocks, context.hardware)
    flops = BlockFlops.of(space, context.backbone.config, options.supernet.length)
    ends = EpochEnds(
        BlockwiseStep(supernet, teacher, context.corpus.masker, survivors, tuple(range(space.blocks)), options, context.seed),
        held_out,
        context.hardware,
        flops,
    )
    rows = [_best_of_block(ends, block, options) for block in range(space.blocks)]
    losses = BlockLosses(tuple(rows))
    spent, seconds = ends.spent, time.monotonic() - started
    record = StageRecord(TABLES, int(spent["evaluated"]), int(spent["examples"]), spent["flops"], seconds, 0)
    if is_main_process():
        losses.save(folder / LOSSES, space, context.backbone.config)
        write_mark(folder, fingerprint, record, [LOSSES])
    wait_for_everyone()
    context.record(record)


def _best_of_block(ends: EpochEnds, block: int, options: NasBertOptions) -> tuple[Indices, Any, Indices]:
    """Numbers, losses and bins of the best `kept` paths of each bin of a block."""
    numbers, found, bins = [], [], []
    for b, alive in enumerate(ends.step.survivors.alive[block]):
        ranked = sampled(alive, options.shrinking, f"{ends.step.seed}/tables/{block}/{b}", all_of_small=True)
        losses = ends.losses(block, ranked)
        if options.supernet.normalise == "variance":  # so that blocks can be added up
            losses = losses / ends.held_out.variance(block)
        best = np.lexsort((ranked, losses))[: options.shrinking.kept]
        numbers.append(ranked[best])
        found.append(losses[best])
        bins.append(np.full(len(best), b))
    return np.concatenate(numbers), np.concatenate(found), np.concatenate(bins)


def _fingerprint(context: CorpusContext, options: NasBertOptions, supernet: NasBertSupernet) -> dict[str, Any]:
    return {
        "weights": weights_digest(nn.ModuleList([supernet.stem, *(supernet.block_modules(b) for b in range(supernet.nasbert.blocks))])),
        "held_out": context.corpus.packed("search", options.supernet.length).digest,
        "shrinking": _shrinking(options),
        "normalise": options.supernet.normalise,
    }


def _shrinking(options: NasBertOptions) -> dict[str, Any]:
    """The options; a latency table by what it holds, wherever it lies."""
    found, table = options.shrinking.model_dump(mode="json"), options.shrinking.latency
    return found if table is None else {**found, "latency": file_digest(Path(table))}


def losses_file(folder: Path) -> Path:
    """Where `make_tables` leaves the table."""
    return folder / TABLES / LOSSES


def finished_losses(folder: Path, space: NasBertSpace) -> BlockLosses:
    """The table that `make_tables` left. Raises UserError, by file, where there is none or it is damaged."""
    read_mark(folder / TABLES)
    return BlockLosses.load(losses_file(folder), space)
