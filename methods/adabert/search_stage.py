"""Stage `search` (paper): weights and architecture parameters trained together, through the common loop."""

from __future__ import annotations

from functools import lru_cache
from math import ceil
from typing import Any

import torch

from methods.adabert.efficiency import Efficiency
from methods.adabert.objective import Objective
from methods.adabert.options import AdaBertOptions
from methods.adabert.plan import SEARCH, Plan, passes
from methods.adabert.remedies.operation_stop import OperationStop
from methods.adabert.search_companion import SearchCompanion
from methods.adabert.search_data import SearchRows, search_rows
from methods.adabert.search_model import SearchModel
from methods.adabert.search_step import SearchStep
from methods.adabert.supernet import AdaBertSupernet
from methods.adabert.teacher_signals import Signals, TeacherSignals, training_split
from methods.evaluation import weights_digest
from methods.recipe import Context
from methods.tasks.batches import separate
from methods.training.options import Optimiser, StepSchedule
from methods.training.stage import train_stage

_UNCLIPPED = 0.0


def search(context: Context, options: AdaBertOptions, supernet: AdaBertSupernet, signals: TeacherSignals) -> None:
    """Trains the supernet's weights and architecture parameters on the task's train (and its copies, by the options), in stage `search`.

    `supernet` has its initial weights, the teacher's tables among them, and is changed in place. Run again, a finished stage is read
    back and a stopped one goes on bit-equal. Leaves `alpha.csv` and `diagnostics.json` in the stage's folder.
    """
    o, split = options.search, training_split(context, options.search.augmented)
    settings = {
        "search": o.model_dump(exclude={"augmented"}),
        "start": weights_digest(supernet),
        "signals": signals.made_of,
        "max_length": context.max_length,
    }
    torch.manual_seed(context.seed)
    model = SearchModel(supernet, o)
    collate = Signals(separate(context.backbone.tokenizer, context.max_length), signals)
    trained, held_out = search_rows(split, collate, o, context.seed)
    step = _step(context, model, trained, held_out)
    pace = Optimiser(learning_rate=o.weights.learning_rate, clip=_UNCLIPPED)  # the stepper clips
    train_stage(
        context.folder,
        SEARCH,
        model,
        step,
        trained,
        SearchRows.batch,
        StepSchedule(total=step.total, batch_size=o.batch_size, optimiser=pace),
        seed=context.seed,
        hardware=context.hardware,
        flops=_flops(options, supernet),
        settings=settings,
        record=context.record,
        companion=SearchCompanion(step),
        stepper=step.make_stepper,
        watch=context.watch,
        shown=supernet,
    )
    model.requires_grad_(True)
    model.publish()


def _step(context: Context, model: SearchModel, trained: SearchRows, held_out: SearchRows | None) -> SearchStep:
    o = model.options
    efficiency = Efficiency(model.supernet, o.loss, context.max_length)
    remedy = o.remedies.operation_stop
    stop = None if remedy is None else OperationStop(model.supernet, remedy, o.remedies.operation_stop_every)
    per_epoch = ceil(len(trained) / o.batch_size)
    total = o.steps or max(1, round(per_epoch * o.epochs))
    objective = Objective(o.loss, model.supernet.head_kind, context.backbone.config.layers)
    device = torch.device(context.hardware.device)
    return SearchStep(model, o, efficiency, objective, trained, held_out, stop, total, per_epoch, context.seed, device)


def _flops(options: AdaBertOptions, supernet: AdaBertSupernet) -> Any:
    """Of one batch by its size and padded length: 3 x forward of the supernet, each time it is run."""
    o = options.search

    @lru_cache(maxsize=1024)
    def one(length: int) -> float:
        return Plan(options, supernet.space, supernet.backbone, supernet.head_kind, 1, length).supernet_flops()

    return lambda batch, length: 3.0 * batch * o.samples_per_step * passes(o) * one(length)
