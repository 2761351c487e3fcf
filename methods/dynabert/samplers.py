"""Which sub-networks an optimiser step trains: all of a grid (paper, algorithms 1 and 2), or a few that are drawn for it."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import cached_property
from math import comb
from pathlib import Path
from typing import Any

from methods.backbone import BackboneConfig
from methods.costs import costs
from methods.dynabert.elastic import ElasticSpace
from methods.dynabert.options import Sampling
from methods.dynabert.space import DynaBertSpace
from methods.dynabert.step import DistillationStep, TaskStep
from methods.space import Architecture
from methods.tasks.head import Head
from methods.training.loop import Backward, Batch, seed_of

StageSpace = DynaBertSpace | ElasticSpace
"""What a stage trains: a space, or its networks of full depth."""


@dataclass(frozen=True)
class Sampler:
    """A step trains the `fixed` sub-networks and `samples` random ones: distinct others of a grid, as many as there are, or such as the
    elastic space samples, each drawn on its own."""

    space: StageSpace
    fixed: tuple[Architecture, ...]
    samples: int = 0

    @cached_property
    def known(self) -> tuple[Architecture, ...]:
        """All of a grid, the anchors of the elastic space: what rates the state of a stage."""
        return tuple(self.space.anchors() if isinstance(self.space, ElasticSpace) else self.space.enumerate())

    @cached_property
    def rest(self) -> tuple[Architecture, ...]:
        """What is drawn from on a grid."""
        return () if isinstance(self.space, ElasticSpace) else tuple(a for a in self.known if a not in self.fixed)

    @property
    def count(self) -> int:
        """How many are drawn in a step."""
        return self.samples if isinstance(self.space, ElasticSpace) else min(self.samples, len(self.rest))

    def draw(self, rng: random.Random) -> tuple[Architecture, ...]:
        if isinstance(self.space, ElasticSpace):
            return (*self.fixed, *(self.space.sample(rng) for _ in range(self.samples)))
        return (*self.fixed, *rng.sample(self.rest, self.count))

    def expected_flops(self, teachers: Callable[[Architecture], Collection[Architecture]], head: Head, length: int) -> float:
        """Training FLOPs of a text, in expectation over the draws: 3 x forward of what is trained, 1 x forward of each of its teachers.

        `teachers`: of one sub-network; all that the elastic space holds have the same.
        """
        backbone = self.space.backbone

        def flops(architecture: Architecture) -> int:
            return costs(self.space.spec(architecture, backbone, head), length).flops

        taught: dict[Architecture, set[Architecture]] = {}
        for architecture in self.known:
            for teacher in teachers(architecture):
                taught.setdefault(teacher, set()).add(architecture)
        drawn = self.count * self._mean(flops, backbone, head, length) if self.count else 0
        trained = sum(flops(architecture) for architecture in self.fixed) + drawn
        return float(3 * trained + sum(self.chance(own) * flops(teacher) for teacher, own in taught.items()))

    def _mean(self, flops: Callable[[Architecture], int], backbone: BackboneConfig, head: Head, length: int) -> float:
        if isinstance(self.space, ElasticSpace):
            return self.space.mean_flops(backbone, head, length)
        return sum(map(flops, self.rest)) / len(self.rest)

    def chance(self, meant: set[Architecture]) -> float:
        """That a step trains one of these at least: certain of all that are `known`, and of those that are fixed."""
        if meant.issuperset(self.known) or not meant.isdisjoint(self.fixed):
            return 1.0
        others = sum(architecture not in meant for architecture in self.rest)
        return 1 - comb(others, self.count) / comb(len(self.rest), self.count)

    def identity(self) -> Any:
        """What a stage's result depends on, as plain data."""
        fixed = [architecture.id for architecture in self.fixed]
        if not self.samples:
            return fixed
        return {"fixed": fixed, "drawn": self.samples, "of": [a.id for a in self.rest] or f"{self.space.size()} as they are sampled"}


@dataclass(frozen=True)
class Alone(Sampler):
    """The `fixed` sub-network alone: one that was chosen."""

    @cached_property
    def known(self) -> tuple[Architecture, ...]:
        return self.fixed


def _all(space: StageSpace, samples: int) -> Sampler:  # noqa: ARG001 (one signature)
    return Sampler(space, tuple(space.enumerate()))


def _sandwich(space: StageSpace, samples: int) -> Sampler:
    return Sampler(space, tuple(dict.fromkeys([space.largest(), space.smallest()])), samples)


def _uniform(space: StageSpace, samples: int) -> Sampler:
    return Sampler(space, (), samples)


_SAMPLERS: dict[Sampling, Callable[[StageSpace, int], Sampler]] = {"all": _all, "sandwich": _sandwich, "uniform": _uniform}


def make_sampler(kind: Sampling, samples: int, space: StageSpace) -> Sampler:
    """The sampler of that name on what a stage trains."""
    return _SAMPLERS[kind](space, samples)


@dataclass
class SampledStep:
    """A step on the sub-networks that are drawn for it from (seed, stage, step) alone: the same for every batch of an accumulated step,
    after a resume, and in every process. It is also what the loop keeps beside the weights (`methods.training.stage.StageCompanion`)."""

    step: DistillationStep | TaskStep
    sampler: Sampler
    seed: int
    stage: str
    number: int = 0

    def drawn(self) -> tuple[Architecture, ...]:
        """What the current step trains."""
        return self.sampler.draw(random.Random(seed_of(self.seed, self.stage, "sub-networks", self.number)))

    def __call__(self, batch: Batch, backward: Backward) -> dict[str, float]:
        return replace(self.step, architectures=self.drawn())(batch, backward)

    def after(self, step: int) -> bool:
        self.number = step
        return False

    def state(self) -> dict[str, Any]:
        return {"number": self.number}

    def restore(self, state: dict[str, Any]) -> None:
        self.number = state["number"]

    def write(self, folder: Path) -> tuple[str, ...]:  # noqa: ARG002 (one signature)
        return ()
