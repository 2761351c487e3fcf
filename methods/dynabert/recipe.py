"""DynaBERT's stages: rewire, adapt the width, adapt width and depth, and optionally fine-tune (paper, section 2)."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers.utils.generic import ModelOutput

from methods.backbone import BackboneConfig
from methods.costs import costs
from methods.dynabert.elastic import ElasticSpace
from methods.dynabert.options import Distillation, DynaBertOptions, SampledStage
from methods.dynabert.published import LOADED, Published, load_published
from methods.dynabert.rewiring import importance, rewire
from methods.dynabert.samplers import Alone, SampledStep, Sampler, StageSpace, make_sampler
from methods.dynabert.space import METHOD_NAME, DynaBertSpace, full_spec
from methods.dynabert.step import DistillationStep, TaskStep, teacher_of, whole_network
from methods.dynabert.supernet import DynaBertSupernet
from methods.errors import UserError
from methods.evaluation import evaluate, weights_digest
from methods.network import Network, task_loss
from methods.recipe import Context, StagePlan, StageRecord, TaskRecipe, stage_of
from methods.space import Architecture, SearchSpace
from methods.supernet import Supernet
from methods.tasks.batches import Collate, evaluation_batches, joint
from methods.tasks.head import Head
from methods.tasks.spec import TaskSpec
from methods.tasks.split import Split
from methods.training.loop import Batch
from methods.training.options import Schedule
from methods.training.processes import by_main_process, join_processes, of_main_process
from methods.training.stage import DONE, read_finished, run_stage, training_flops, training_memory, write_finished

REWIRE, WIDTH, DEPTH, FINAL, FINISH = "rewire", "width", "width-and-depth", "final", "finish"
_SAMPLING = {"sampler", "samples"}
_SAID_ELSEWHERE: Any = {
    **{"label": True, "checkpoint": True, "space": True, "finish": True, "final": _SAMPLING},
    **{stage: {"augmented", *_SAMPLING} for stage in ("width", "depth")},
}
"""Options that no result depends on, or that a stage's settings name as the sub-networks or the data."""


def _run(supernet: DynaBertSupernet, architecture: Architecture, batch: Mapping[str, Tensor]) -> ModelOutput:
    output: ModelOutput = supernet(batch, architecture)
    return output


def _teacher(context: Context) -> Network:
    if context.teacher is None:
        raise UserError("dynabert: needs a fine-tuned teacher (section `teacher` of the experiment)")
    return context.teacher


def _augmented(schedule: Schedule) -> bool:
    """Stages that distil may read copies of the rows."""
    return isinstance(schedule, Distillation) and schedule.augmented


class DynaBertRecipe(TaskRecipe):
    """Every sub-network of the stage, or of the step's draw, is trained on every batch; gradients are summed, clipped once, stepped once.

    Adam's moments also move the inactive slices of a tensor that is in use (gradients of earlier steps live on in them), as in the
    released code; the gradients themselves are exactly zero there. A tensor that no sub-network of the step uses is left alone.
    """

    scope = "task"

    def __init__(self, options: DynaBertOptions) -> None:
        self.options = options
        opened = options.rewiring and options.importance_split == "validation"
        self.reads = ("train", "search", "validation") if opened else ("train", "search")
        self.rewires = options.rewiring and options.checkpoint is None
        self.initial_name = "rewired-cut" if self.rewires else "teacher-cut"

    def space(self, backbone: BackboneConfig) -> StageSpace:
        o = self.options
        grid = DynaBertSpace(backbone, o.widths, o.depths, o.depth_rule, o.label or METHOD_NAME)
        return ElasticSpace(grid) if o.space == "elastic" else grid

    def check(self, backbone: BackboneConfig, task: TaskSpec) -> None:
        o = self.options
        if o.checkpoint is not None:
            Published.open(o.checkpoint).state(backbone, task, o.widths, o.depths)

    def about(self) -> dict[str, str]:
        return {"supernet": self._loaded()} if self.options.checkpoint is not None else {}

    def _loaded(self) -> str:
        """A published checkpoint was trained on a grid."""
        o = self.options
        elastic = (
            "" if o.space == "grid" else "; the elastic space's sub-networks outside of its grid were never trained: their scores say so"
        )
        return f"from {o.checkpoint}{elastic}"

    def initial(self, context: Context) -> DynaBertSupernet:
        """The fine-tuned teacher with heads and neurons in order of importance; nothing is trained yet. Where a checkpoint is loaded its
        order is the teacher's own."""
        supernet = self._unrewired(context)
        if self.rewires:
            self._rewire(context, supernet)
        return supernet

    def train(self, context: Context) -> DynaBertSupernet:
        space, o = self.space(context.backbone.config), self.options
        if o.checkpoint is not None:
            return load_published(context, self._unrewired(context), o.checkpoint, o.widths, o.depths)
        fine_tuned, supernet = self._unrewired(context), self.initial(context)
        samplers = {name: sampler for name, _, sampler in self._stages(space)}
        self._distil(context, WIDTH, supernet, fine_tuned, samplers[WIDTH], o.width)
        self._distil(context, DEPTH, supernet, copy.deepcopy(supernet), samplers[DEPTH], o.depth)
        if o.final is not None:
            self._stage(context, FINAL, supernet, TaskStep(supernet, samplers[FINAL].fixed), o.final, samplers[FINAL])
        return supernet.eval()

    def finish(self, context: Context, supernet: Supernet, architecture: Architecture) -> Network:
        """The cut-out sub-network itself: hosted and deployed forms are one. Where `finish` asks for it, its weights are first trained
        alone, in a copy of the supernet."""
        schedule = self.options.finish
        if schedule is None or not isinstance(supernet, DynaBertSupernet):
            return supernet.extract(architecture).eval()
        alone, where = copy.deepcopy(supernet), Alone(self.space(supernet.backbone), (architecture,))
        start = weights_digest(supernet)
        self._distil(context, stage_of(FINISH, architecture), alone, self._unrewired(context), where, schedule, start)
        return alone.extract(architecture).eval()

    def plan(self, space: SearchSpace, backbone: BackboneConfig, head: Head, rows: int, length: int, copies: int = 0) -> list[StagePlan]:
        o = self.options
        whole, trained = whole_network(backbone), self._stages(space)
        parameters = costs(full_spec(backbone, head)).parameters
        size, plans = (backbone, head, rows, length, copies), list[StagePlan]()
        if o.checkpoint is not None:
            plans.append(StagePlan(LOADED, 0, 0, 0.0, 4 * parameters, len(trained[-1][2].known), note=self._loaded()))
            trained = []
        elif o.rewiring:
            scored = min(2000, rows // 9) if o.importance_split == "search" else rows
            flops = scored * training_flops([full_spec(backbone, head)])(1, length)
            memory = training_memory(full_spec(backbone, head), parameters, 0, o.importance_batch_size, length)
            plans.append(StagePlan(REWIRE, -(-scored // o.importance_batch_size), scored, flops, memory, note=f"on {o.importance_split}"))
        plans += [self._planned(name, schedule, sampler, *size) for name, schedule, sampler in trained]
        if o.finish is not None:
            largest = self._planned(FINISH, o.finish, Alone(self.space(backbone), (whole,)), *size)
            plans.append(replace(largest, note="upper bound: the largest sub-network", per="network"))
        return plans

    def _planned(
        self, name: str, schedule: Schedule, sampler: Sampler, backbone: BackboneConfig, head: Head, rows: int, length: int, copies: int
    ) -> StagePlan:
        parameters = costs(full_spec(backbone, head)).parameters
        taught = parameters if self._teachers(schedule, sampler.known, backbone, name) else 0
        made = copies if _augmented(schedule) else 0
        steps = schedule.steps(rows, made)
        examples = steps * min(rows * (1 + made), schedule.batch_size * schedule.accumulation)
        memory = training_memory(full_spec(backbone, head), parameters, taught, schedule.batch_size, length)
        flops = examples * sampler.expected_flops(lambda a: self._teachers(schedule, (a,), backbone, name), head, length)
        return StagePlan(name, steps, examples, flops, memory, len(sampler.fixed) + sampler.count)

    def _stages(self, space: SearchSpace) -> list[tuple[str, SampledStage, Sampler]]:
        """The stages that train, with the sub-networks of each: first the widths at full depth, then all."""
        if not isinstance(space, StageSpace):
            raise TypeError(f"DynaBERT's recipe trains DynaBERT's space, not {type(space).__name__}")
        o = self.options
        stages: list[tuple[str, SampledStage | None, StageSpace]] = [
            (WIDTH, o.width, space.full_depth()),
            (DEPTH, o.depth, space),
            (FINAL, o.final, space),
        ]
        return [(name, stage, make_sampler(o.sampler_of(stage), stage.samples, own)) for name, stage, own in stages if stage is not None]

    def _teachers(
        self, schedule: Schedule, trained: Sequence[Architecture], backbone: BackboneConfig, stage: str
    ) -> tuple[Architecture, ...]:
        """The sub-networks of the teacher that run once per batch."""
        if not isinstance(schedule, Distillation) or schedule.objective == "task":
            return ()
        width = self.options.teacher_width if stage == DEPTH else "full"
        return tuple(dict.fromkeys(teacher_of(a, backbone, width) for a in trained))

    def _unrewired(self, context: Context) -> DynaBertSupernet:
        supernet = DynaBertSupernet(self.space(context.backbone.config), context.backbone.config, context.task.head)
        supernet.load_state_dict(_teacher(context).state_dict())
        return supernet.to(context.hardware.device).eval()

    def _collate(self, context: Context) -> Collate:
        pad_to = context.max_length if self.options.pad_to_max_length else None
        return joint(context.backbone.tokenizer, context.max_length, pad_to=pad_to)

    def _distil(
        self,
        context: Context,
        name: str,
        supernet: DynaBertSupernet,
        teacher: DynaBertSupernet,
        sampler: Sampler,
        schedule: Distillation,
        start: str | None = None,
    ) -> None:
        o = self.options
        width = o.teacher_width if name == DEPTH else "full"
        padded = o.hidden_loss == "padded"
        step: DistillationStep | TaskStep = DistillationStep(
            supernet,
            teacher.requires_grad_(False),
            sampler.fixed,
            schedule.lambda_logits,
            schedule.lambda_hidden,
            width,
            padded,
            o.regression_loss,
        )
        if schedule.objective == "task":
            step = TaskStep(supernet, sampler.fixed)
        self._stage(context, name, supernet, step, schedule, sampler, start)

    def _stage(
        self,
        context: Context,
        name: str,
        supernet: DynaBertSupernet,
        step: DistillationStep | TaskStep,
        schedule: Schedule,
        sampler: Sampler,
        start: str | None = None,
    ) -> None:
        """`start`: the digest of the weights that it starts from, where these are not those of the stage before."""
        collate = self._collate(context)
        search = context.task.split("search")
        sampled = SampledStep(step, sampler, context.seed, name) if sampler.samples else None

        def score() -> float:
            """Sum over the stage's sub-networks (the elastic space's anchors) of the main metric on `search`."""
            task = context.task.spec
            results = [evaluate(partial(_run, supernet, a), collate, search, task, context.hardware) for a in sampler.known]
            return sum(result.metrics[task.metric] for result in results)

        @lru_cache(maxsize=1024)
        def flops(trained: tuple[Architecture, ...], length: int) -> float:
            teachers = self._teachers(schedule, trained, supernet.backbone, name)
            return training_flops([supernet.spec(a) for a in trained], [supernet.spec(a) for a in teachers])(1, length)

        def spent(batch: int, length: int) -> float:
            return batch * flops(sampler.fixed if sampled is None else sampled.drawn(), length)

        settings = {
            "options": self.options.model_dump(exclude=_SAID_ELSEWHERE),
            "trained": sampler.identity(),
            "max_length": context.max_length,
            "teacher": weights_digest(_teacher(context)),
            "selected_on": search.digest if schedule.select_every else None,
        }
        if start is not None:
            settings["start"] = start
        augmented = _augmented(schedule)
        run_stage(
            context, name, supernet, sampled or step, schedule, collate, spent, settings, score, companion=sampled, augmented=augmented
        )

    def _rewire(self, context: Context, supernet: DynaBertSupernet) -> None:
        folder, o = context.folder / REWIRE, self.options
        split = context.task.split(o.importance_split)
        fingerprint = {"stage": REWIRE, "mode": o.importance, "split": o.importance_split, "batch_size": o.importance_batch_size}
        fingerprint |= {"data": split.digest, "max_length": context.max_length, "teacher": weights_digest(_teacher(context))}
        join_processes(context.hardware)
        if not of_main_process((folder / DONE).exists()):
            by_main_process(lambda: self._sort(context, supernet, split, folder, fingerprint))
        context.record(read_finished(folder, supernet, fingerprint))

    def _sort(self, context: Context, supernet: DynaBertSupernet, split: Split, folder: Path, fingerprint: dict[str, Any]) -> None:
        """Scores heads and neurons on the split, sorts them, and leaves the finished stage in its folder."""
        o = self.options
        collate, head, backbone = self._collate(context), supernet.head_kind, supernet.backbone
        encoded = collate.encode(split)
        size = o.importance_batch_size
        groups = evaluation_batches(encoded.lengths, size)
        if o.importance == "accumulate":  # what it adds up depends on the order, which is the file's in the released code
            groups = [list(range(start, min(start + size, len(encoded)))) for start in range(0, len(encoded), size)]
        whole = whole_network(backbone)

        def loss(batch: Batch) -> Tensor:
            return task_loss(head, supernet(batch, whole)["logits"], batch["labels"])

        started = time.monotonic()
        device = context.hardware.device
        batches = ({name: tensor.to(device) for name, tensor in collate(encoded, rows).items()} for rows in groups)
        rewire(supernet, importance(supernet, batches, loss, o.importance))
        flops = training_flops([supernet.spec(whole)])
        total = sum(flops(len(rows), int(max(encoded.lengths[rows]))) for rows in groups)
        record = StageRecord(REWIRE, len(groups), len(encoded), total, time.monotonic() - started, len(groups))
        write_finished(folder, supernet, fingerprint, record)
