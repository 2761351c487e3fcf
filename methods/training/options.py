"""The knobs that every trained stage has."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0, lt=1)]


class Options(BaseModel):
    """Options of an experiment file: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Schedule(Options):
    """Optimiser and length of one stage; defaults are DynaBERT's (its section 4.1 and released code).

    Weight decay spares biases and norms; the learning rate rises over `warmup` (share of all steps) and falls linearly to 0.
    `rows`: at most so many training rows, a stratified choice (null: all). `accumulation`: batches whose gradients are added up for
    one step.
    `select_every`: every so many steps all is scored on `search` and the best state is kept at the end (0: the last state is).
    """

    rows: Annotated[int, Field(ge=1)] | None = None
    epochs: Annotated[float, Field(gt=0)] = 3.0
    batch_size: Annotated[int, Field(ge=1)] = 32
    learning_rate: Annotated[float, Field(gt=0)] = 2e-5
    warmup: Fraction = 0.0
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    beta1: Fraction = 0.9
    beta2: Fraction = 0.999
    epsilon: Annotated[float, Field(gt=0)] = 1e-8
    clip: Annotated[float, Field(gt=0)] = 1.0
    accumulation: Annotated[int, Field(ge=1)] = 1
    select_every: Annotated[int, Field(ge=0)] = 0

    def steps(self, rows: int) -> int:
        """Optimiser steps where there are so many rows: floor(batches / accumulation) x epochs, at least one."""
        batches = -(-min(rows, self.rows or rows) // self.batch_size)
        return max(1, int(max(1, batches // self.accumulation) * self.epochs))


Precision = Literal["fp32", "bf16"]


def refuse_selection(every: int) -> int:
    """For stages that have nothing to score by. Raises ValueError, which pydantic reports with its place."""
    if every:
        raise ValueError("this stage keeps its last state; write 0")
    return every
