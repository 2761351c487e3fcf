"""The knobs that every trained stage has."""

from __future__ import annotations

from typing import Annotated, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0, lt=1)]


class Options(BaseModel):
    """Options of an experiment file: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class MethodOptions(Options):
    """The knob that every method has. `label`: what an entry is called in tables, folders and the archive where one method is there
    several times, with other options ('': the method's name)."""

    label: Annotated[str, Field(pattern=r"^([A-Za-z0-9_+-][A-Za-z0-9_.+-]*)?$")] = ""


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

    def steps(self, rows: int, copies: int = 0) -> int:
        """Optimiser steps where there are so many rows and of each so many copies: floor(batches / accumulation) x epochs, at least one."""
        batches = -(-min(rows, self.rows or rows) * (1 + copies) // self.batch_size)
        return max(1, int(max(1, batches // self.accumulation) * self.epochs))

    def rate(self, step: int, total: int) -> float:
        """Share of the peak learning rate at a step."""
        return linear_rate(step, total, int(total * self.warmup))


class Optimiser(Options):
    """Adam with decoupled weight decay; the rate rises over `warmup_steps` to `learning_rate`, then falls linearly to 0 or stays.

    Defaults are NAS-BERT's; its text also says 1e-4, its schedule peaks at 5e-4.
    """

    learning_rate: Annotated[float, Field(gt=0)] = 5e-4
    schedule: Literal["linear", "constant"] = "linear"
    warmup_steps: Annotated[int, Field(ge=0)] = 10_000
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    beta1: Fraction = 0.9
    beta2: Fraction = 0.999
    epsilon: Annotated[float, Field(gt=0)] = 1e-8  # ours
    clip: Annotated[float, Field(ge=0)] = 0.0  # ours; 0: no clipping


class StepSchedule(Options):
    """A stage of `total` optimiser steps, however many rows there are; `accumulation` batches of `batch_size` make a step."""

    total: Annotated[int, Field(ge=1)]
    batch_size: Annotated[int, Field(ge=1)]
    optimiser: Optimiser = Field(default_factory=Optimiser)
    accumulation: Annotated[int, Field(ge=1)] = 1
    select_every: Literal[0] = 0

    @property
    def learning_rate(self) -> float:
        return self.optimiser.learning_rate

    @property
    def weight_decay(self) -> float:
        return self.optimiser.weight_decay

    @property
    def beta1(self) -> float:
        return self.optimiser.beta1

    @property
    def beta2(self) -> float:
        return self.optimiser.beta2

    @property
    def epsilon(self) -> float:
        return self.optimiser.epsilon

    @property
    def clip(self) -> float:
        return self.optimiser.clip

    def steps(self, rows: int) -> int:  # noqa: ARG002 (one signature)
        return self.total

    def rate(self, step: int, total: int) -> float:
        """Share of the peak learning rate at a step."""
        if self.optimiser.schedule == "constant":
            return min(1.0, (step + 1) / (self.optimiser.warmup_steps + 1))
        return linear_rate(step, total, min(self.optimiser.warmup_steps, total - 1))


class Pace(Protocol):
    """What the loop reads of a schedule: `Schedule` or `StepSchedule`."""

    @property
    def batch_size(self) -> int: ...
    @property
    def accumulation(self) -> int: ...
    @property
    def select_every(self) -> int: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def weight_decay(self) -> float: ...
    @property
    def beta1(self) -> float: ...
    @property
    def beta2(self) -> float: ...
    @property
    def epsilon(self) -> float: ...
    @property
    def clip(self) -> float: ...
    def steps(self, rows: int) -> int: ...
    def rate(self, step: int, total: int) -> float: ...


def linear_rate(step: int, total: int, rise: int) -> float:
    """Linear rise over `rise` steps, linear fall to 0 at `total`."""
    if step < rise:
        return (step + 1) / (rise + 1)
    return max(0.0, (total - step) / max(1, total - rise))


Precision = Literal["fp32", "bf16"]


def refuse_selection(every: int) -> int:
    """For stages that have nothing to score by. Raises ValueError, which pydantic reports with its place."""
    if every:
        raise ValueError("this stage keeps its last state; write 0")
    return every
