"""The toy method in trouble, as a user's own module registers it: `sleeping` in training and in search, `hungry` for memory, `filling` the
disk. Each trouble comes once for a folder of marks, so that whoever does the work again succeeds; hunger comes always."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import ray
import torch
from torch import nn

from methods.recipe import StagePlan
from methods.registry import Method, register
from methods.space import Architecture
from methods.tasks.batches import joint
from methods.training.options import Schedule
from tests.toy_method import ToyRecipe, ToySpace, ToySupernet

NAMES = ("sleeping", "hungry", "filling")
TRAINED, SEARCHED, FULL, NEARLY_FULL = "trained", "searched", "full", "nearly full"
MARKS = (TRAINED, SEARCHED, FULL, NEARLY_FULL)
BALLAST, LEFT = "ballast", 256 * 2**10


class Options(Schedule):
    marks: str


def once(mark: Path, first: Callable[[Path], object]) -> bool:
    """Does `first` at the first call for this mark. Returns whether it was that."""
    if mark.exists():
        return False
    mark.touch()
    first(mark)
    return True


def sleep(mark: Path) -> None:
    """Until its node dies, whose id the mark holds."""
    mark.write_text(ray.get_runtime_context().get_node_id())
    time.sleep(300)


def eat() -> None:
    """Until the memory monitor notices."""
    eaten = []
    for _ in range(600):
        eaten.append(b"\1" * (10 * 2**20))
        time.sleep(0.01)
    time.sleep(300)


def fill(folder: Path, left: int) -> None:
    """The file system of a folder, but for so many bytes."""
    free = os.statvfs(folder)
    with (folder / BALLAST).open("wb") as file:
        try:
            file.write(b"\0" * max(0, free.f_bavail * free.f_frsize - left))
        except OSError:
            assert not left


class TroubledSpace(ToySpace):
    def __init__(self, name: str) -> None:
        self.method = name

    def decode(self, assignment):
        return Architecture.of(self.method, {"width": assignment["width"]})


class TroubledSupernet(ToySupernet):
    """800 kB large."""

    def __init__(self, space, backbone, head):
        super().__init__(space, backbone, head)
        self.large = nn.Parameter(torch.zeros(200_000))
        self.marks = Path()

    def forward(self, batch, architecture):
        if self.space.method == "sleeping" and not self.training and architecture.choices["width"] == 8:
            once(self.marks / SEARCHED, sleep)
        return super().forward(batch, architecture)


class TroubledRecipe(ToyRecipe):
    def __init__(self, name, options):
        super().__init__(options)
        self.name, self.marks = name, Path(options.marks)

    def plan(self, space, backbone, head, rows, length, copies=0):
        return [StagePlan("train", self.schedule.steps(rows), rows, 3.0 * rows, 1)]

    def initial(self, context):
        with torch.random.fork_rng():
            torch.manual_seed(context.seed)
            supernet = TroubledSupernet(TroubledSpace(self.name), context.backbone.config, context.task.head)
        supernet.marks = self.marks
        return supernet

    def train(self, context):
        if self.name == "sleeping":
            once(self.marks / TRAINED, sleep)
        if self.name == "hungry":
            eat()
        if self.name == "filling" and not once(self.marks / FULL, lambda _: fill(self.marks, 0)):
            once(self.marks / NEARLY_FULL, lambda _: fill(self.marks, LEFT))
        return super().train(context)


def method(name: str) -> Method:
    summary = "one attention layer in three widths, and trouble"
    return Method(
        name, summary, "task", Options, lambda options, backbone: TroubledSpace(name), TroubledSupernet,
        lambda options: TroubledRecipe(name, options), joint,
    )  # fmt: skip


for each in NAMES:
    register(method(each))
