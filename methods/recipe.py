"""How a method trains its supernet and finishes a chosen sub-network: named stages, each resumable."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from methods.space import Architecture, SearchSpace

if TYPE_CHECKING:
    from methods.backbone import Backbone, BackboneConfig
    from methods.network import Network
    from methods.supernet import Supernet
    from methods.tasks.head import Head
    from methods.tasks.task import Task

Scope = Literal["task", "corpus"]


@dataclass(frozen=True)
class StagePlan:
    """What a stage will do, known before anything is trained.

    `examples`: rows read over all steps; `flops`: 3 x forward of every trained sub-network plus 1 x forward of the teacher, at the
    planned length; `memory`: bytes of weights, gradients, optimiser state and the activations of the one graph that is alive.
    """

    name: str
    steps: int
    examples: int
    flops: float
    memory: int
    subnetworks: int = 1
    note: str = ""


@dataclass(frozen=True)
class StageRecord:
    """What a stage did. `seconds` add up over restarts."""

    stage: str
    steps: int
    examples: int
    flops: float
    seconds: float


@dataclass(frozen=True)
class Hardware:
    """Where and how numbers are computed; part of the resolved experiment."""

    device: str = "cpu"
    precision: Literal["fp32", "bf16"] = "fp32"
    threads: int = 1


@dataclass(frozen=True)
class Context:
    """All that a recipe may touch. `task` opens `train` and `search` alone; `folder` is the recipe's own."""

    folder: Path
    backbone: Backbone
    task: Task
    seed: int
    teacher: Network | None = None
    hardware: Hardware = field(default_factory=Hardware)
    record: Callable[[StageRecord], None] = lambda _: None
    max_length: int = 128


class Recipe(ABC):
    """The stages of a method. Every stage leaves its result in `context.folder`; run again, what is finished is read, not repeated."""

    scope: Scope = "task"
    trainable: bool = True
    """Whether this version trains the method; a run refuses any other before it starts."""
    reads: tuple[str, ...] = ("train", "search")
    """The splits that its stages may open."""
    initial_name: str = "untrained"
    """What the table calls an architecture cut from `initial` weights."""

    @abstractmethod
    def plan(self, space: SearchSpace, backbone: BackboneConfig, head: Head, rows: int, length: int) -> list[StagePlan]:
        """The stages for a task of `rows` training rows and texts of `length` tokens."""

    @abstractmethod
    def train(self, context: Context) -> Supernet:
        """Runs all stages (or reads their results) and returns the trained supernet in eval mode."""

    @abstractmethod
    def initial(self, context: Context) -> Supernet:
        """The supernet before its first trained stage: a control that shows what training is worth."""

    @abstractmethod
    def finish(self, context: Context, supernet: Supernet, architecture: Architecture) -> Network:
        """From a trained supernet to the network that ships (deployed form), in eval mode."""
