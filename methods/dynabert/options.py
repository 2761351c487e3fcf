"""DynaBERT's knobs; the defaults are the paper's and its released code's (spec of the method: sections 4 and 5 of the paper)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from methods.training.options import MethodOptions, Schedule

TRAINING = (
    *("rewiring", "importance", "importance_split", "importance_batch_size", "teacher_width", "hidden_loss", "pad_to_max_length"),
    *("regression_loss", "width", "depth", "final"),
)
"""What says how the supernet is trained."""
Weight = Annotated[float, Field(ge=0)]


Sampling = Literal["all", "sandwich", "uniform"]


class SampledStage(Schedule):
    """Which sub-networks an optimiser step trains, their gradients summed.

    `sampler`: `all` of the stage (paper; the grid alone can), `sandwich` the largest, the smallest and `samples` random ones (the sandwich
    rule of Yu and Huang 2019, arXiv 1903.05134), `uniform` the random ones alone; null: `all` of the grid, `sandwich` of the elastic space.
    They are drawn anew for every optimiser step; of the grid no sub-network is drawn twice in a step.
    """

    sampler: Sampling | None = None
    samples: Annotated[int, Field(ge=1)] = 2


class Distillation(Schedule):
    """Distils: `lambda_logits` x soft cross-entropy + `lambda_hidden` x hidden states.

    `objective: task` replaces both by the task's own loss (what the released code does in stage 1 without augmented data).
    `augmented`: the rows' copies are read too, where section `augmentation` makes any.
    """

    objective: Literal["distillation", "task"] = "distillation"
    lambda_logits: Weight = 1.0
    lambda_hidden: Weight = 1.0
    augmented: bool = True


class DistillationStage(Distillation, SampledStage):
    """A stage that distils into the sub-networks that it samples."""


class WidthStage(DistillationStage):
    """Stage 1: all widths at full depth, taught by the fine-tuned teacher."""

    lambda_hidden: Weight = 0.1


class DynaBertOptions(MethodOptions):
    """`space`: `grid` (paper), one width and one depth for the whole network, or `elastic`, any layers, each with heads and neurons of
    its own. `widths`, `depths`: the multipliers of the grid, each in (0, 1]; in the elastic space the uniform networks where searches
    start, and by which `select_every` rates a stage.

    `depth_rule`: which layers of the grid stay, `floor` (released code) or `keep_top`.
    `rewiring`: sort heads and neurons by importance first; `importance: per_batch` adds up each batch's score, `accumulate` lets
    gradients run on from batch to batch as the released code does. `importance_split: validation` is the paper's habit.
    `teacher_width`: stage 2 learns from the full width (`full`, released code) or from the same width (`matched`, paper).
    `hidden_loss: padded` counts padded positions as the released code does; `pad_to_max_length` pads every batch as it does.
    `regression_loss: mse` distils the prediction of regression tasks too; `none` as released.
    `final`: stage 3, fine-tuning on the labels without a teacher; left out where null.
    `finish` (ours): each chosen sub-network is trained on alone, taught by the fine-tuned teacher, before it is measured and shipped; null
    ships it as it is cut out (paper).
    `checkpoint`: a published DynaBERT (directory or hub id) that is taken as trained; nothing is rewired or trained then. It was trained
    on a grid: with `space: elastic` plan and table say that other sub-networks' scores are of shapes that were never trained.
    """

    space: Literal["grid", "elastic"] = "grid"
    widths: Annotated[tuple[float, ...], Field(min_length=1)] = (0.25, 0.5, 0.75, 1.0)
    depths: Annotated[tuple[float, ...], Field(min_length=1)] = (0.5, 0.75, 1.0)
    depth_rule: Literal["floor", "keep_top"] = "floor"
    rewiring: bool = True
    importance: Literal["per_batch", "accumulate"] = "per_batch"
    importance_split: Literal["search", "train", "validation"] = "search"
    importance_batch_size: Annotated[int, Field(ge=1)] = 8
    teacher_width: Literal["full", "matched"] = "full"
    hidden_loss: Literal["valid", "padded"] = "valid"
    pad_to_max_length: bool = False
    regression_loss: Literal["none", "mse"] = "none"
    width: WidthStage = Field(default_factory=WidthStage)
    depth: DistillationStage = Field(default_factory=DistillationStage)
    final: SampledStage | None = None
    finish: Distillation | None = None
    checkpoint: Annotated[str, Field(min_length=1)] | None = None

    def sampler_of(self, stage: SampledStage) -> Sampling:
        """The stage's sampler, or what null stands for."""
        return stage.sampler or ("all" if self.space == "grid" else "sandwich")

    @model_validator(mode="after")
    def _elastic(self) -> DynaBertOptions:
        """What needs a list of all sub-networks, or one width for all layers, goes with the grid alone."""
        if self.space == "grid":
            return self
        for name, stage in (("width", self.width), ("depth", self.depth), ("final", self.final)):
            if stage is not None and stage.sampler == "all":
                raise ValueError(f"{name}.sampler: all can't be trained in each step where space is elastic; write sandwich or uniform")
        if self.teacher_width == "matched":
            raise ValueError("teacher_width: matched needs one width for all layers, which space: elastic does not have; write full")
        return self

    @model_validator(mode="after")
    def _trains_or_loads(self) -> DynaBertOptions:
        defaults = {name: field.get_default(call_default_factory=True) for name, field in type(self).model_fields.items()}
        changed = [name for name in TRAINING if getattr(self, name) != defaults[name]]
        if self.checkpoint is not None and changed:
            raise ValueError(f"{', '.join(changed)}: nothing is trained where a checkpoint is loaded; leave out what is not checkpoint")
        return self
