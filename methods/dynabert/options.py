"""DynaBERT's knobs; the defaults are the paper's and its released code's (spec of the method: sections 4 and 5 of the paper)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from methods.training.options import MethodOptions, Schedule

Weight = Annotated[float, Field(ge=0)]


class DistillationStage(Schedule):
    """A stage that distils: `lambda_logits` x soft cross-entropy + `lambda_hidden` x hidden states.

    `objective: task` replaces both by the task's own loss (what the released code does in stage 1 without augmented data).
    `augmented`: the rows' copies are read too, where section `augmentation` makes any.
    """

    objective: Literal["distillation", "task"] = "distillation"
    lambda_logits: Weight = 1.0
    lambda_hidden: Weight = 1.0
    augmented: bool = True


class WidthStage(DistillationStage):
    """Stage 1: all widths at full depth, taught by the fine-tuned teacher."""

    lambda_hidden: Weight = 0.1


class DynaBertOptions(MethodOptions):
    """`widths`, `depths`: the multipliers, each in (0, 1].

    `depth_rule`: which layers stay, `floor` (released code) or `keep_top`.
    `rewiring`: sort heads and neurons by importance first; `importance: per_batch` adds up each batch's score, `accumulate` lets
    gradients run on from batch to batch as the released code does. `importance_split: validation` is the paper's habit.
    `teacher_width`: stage 2 learns from the full width (`full`, released code) or from the same width (`matched`, paper).
    `hidden_loss: padded` counts padded positions as the released code does; `pad_to_max_length` pads every batch as it does.
    `regression_loss: mse` distils the prediction of regression tasks too; `none` as released.
    `final`: stage 3, fine-tuning on the labels without a teacher; left out where null.
    """

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
    final: Schedule | None = None
