"""What can be searched: a `SearchSpace` of named choices, and the `Architecture`, one point of it in canonical form."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from methods.backbone import BackboneConfig
    from methods.costs import CostArrays
    from methods.latency import LatencyTable
    from methods.network import NetworkSpec
    from methods.tasks.head import Head

Form = Literal["hosted", "deployed"]
Value = int | float | str | bool
Assignment = Mapping[str, Value]
LISTED = 1_000
"""Spaces of no more architectures are listed where nothing better is known."""


@dataclass(frozen=True)
class Architecture:
    """One point of a space: the method's name and its choices as canonical JSON (sorted keys, no blanks), hence hashable.

    Two architectures are equal exactly where they are the same network of the same method.
    """

    method: str
    canonical: str

    @classmethod
    def of(cls, method: str, choices: Mapping[str, Any]) -> Architecture:
        """The architecture with these choices (plain JSON data, already in the method's canonical form)."""
        return cls(method, json.dumps(choices, sort_keys=True, separators=(",", ":"), allow_nan=False))

    @property
    def choices(self) -> dict[str, Any]:
        """A fresh copy of the choices."""
        data: dict[str, Any] = json.loads(self.canonical)
        return data

    @cached_property
    def id(self) -> str:
        """SHA-256 (hex) of the canonical JSON of method and choices: the same in every process."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        return f'{{"choices":{self.canonical},"method":{json.dumps(self.method)}}}'

    @classmethod
    def from_json(cls, text: str) -> Architecture:
        data = json.loads(text)
        return cls.of(data["method"], data["choices"])

    def _repr_html_(self) -> str:
        from methods.showing import card

        return card(f"{self.method} {self.id[:8]}", self.choices)


@dataclass(frozen=True)
class Choice:
    """One named, unconditional parameter of a space.

    `ordered`: the values are sorted and neighbours are alike (an integer range to a sampler), else they are categories.
    `monotone`: a larger value never lowers any cost.
    """

    name: str
    values: tuple[Value, ...]
    ordered: bool = False
    monotone: bool = False

    def __post_init__(self) -> None:
        if not self.values or len(set(self.values)) != len(self.values):
            raise ValueError(f"choice {self.name}: values must be distinct and at least one, got {self.values}")
        if self.monotone and not self.ordered:
            raise ValueError(f"choice {self.name}: a monotone choice is ordered")


class SearchSpace(ABC):
    """The named choices of a method.

    `choices` are fixed and unconditional; several assignments may decode to one architecture (genes that do not exist in it are
    ignored), and every assignment decodes to some architecture.
    """

    method: str
    choices: tuple[Choice, ...]
    deployed_only: frozenset[str] = frozenset()
    """Names of choices that the deployed form alone has: changing one leaves the hosted network as it is."""

    @abstractmethod
    def decode(self, assignment: Assignment) -> Architecture:
        """The canonical architecture of an assignment of every choice."""

    @abstractmethod
    def encode(self, architecture: Architecture) -> dict[str, Value]:
        """An assignment that decodes to the architecture. Raises ValueError where it is not in the space."""

    def size(self) -> int:
        """How many distinct architectures there are, exactly (here by enumeration)."""
        return sum(1 for _ in self.enumerate())

    def smallest(self) -> Architecture:
        """An architecture that no other undercuts in parameters or in FLOPs, deployed (here: every monotone choice at its least)."""
        return self._corner(0)

    def largest(self) -> Architecture:
        """An architecture that no other exceeds in parameters, deployed (here: every monotone choice at its most).

        In FLOPs another one may exceed it: attention costs more than a larger feed-forward layer where texts are long.
        """
        return self._corner(-1)

    def _corner(self, place: int) -> Architecture:
        if not all(choice.monotone for choice in self.choices):
            raise TypeError(
                f"{type(self).__name__} has choices that are not monotone and must say which architecture is smallest and largest"
            )
        return self.decode({choice.name: choice.values[place] for choice in self.choices})

    @abstractmethod
    def spec(self, architecture: Architecture, backbone: BackboneConfig, head: Head, form: Form = "deployed") -> NetworkSpec:
        """The network of an architecture, without weights; no weights are needed to say so."""

    def batch_costs(
        self, assignments: Mapping[str, npt.NDArray[Any]], backbone: BackboneConfig, head: Head, length: int = 128, batch: int = 1
    ) -> CostArrays:
        """Costs of the deployed forms of many assignments at once: one array of n *value indices* per choice name, n costs out.

        This one looks at each spec; methods override it with their closed forms over arrays.
        """
        from methods.costs import CostArrays, costs

        columns = [[choice.values[i] for i in assignments[choice.name]] for choice in self.choices]
        names = [choice.name for choice in self.choices]
        decoded = [self.decode(dict(zip(names, row, strict=True))) for row in zip(*columns, strict=True)]
        found = [costs(self.spec(architecture, backbone, head), length) for architecture in decoded]
        return CostArrays.of(
            len(found),
            [c.embedding_parameters for c in found],
            [c.other_parameters for c in found],
            [c.flops for c in found],
            length,
            batch,
        )

    def contains(self, architecture: Architecture) -> bool:
        """Whether the architecture is a canonical point of this space."""
        try:
            return architecture.method == self.method and self.decode(self.encode(architecture)) == architecture
        except (ValueError, KeyError, TypeError):
            return False

    def sample(self, rng: random.Random) -> Architecture:
        """A random architecture: every choice uniform over its values (spaces where that is badly uneven override it)."""
        return self.decode({c.name: rng.choice(c.values) for c in self.choices})

    def mutate(self, architecture: Architecture, rng: random.Random) -> Architecture:
        """A neighbour: one choice moved to another value (ordered: one step), repeated until the architecture differs."""
        start = self.encode(architecture)
        for _ in range(1000):
            choice = rng.choice(self.choices)
            if len(choice.values) < 2:
                continue
            place = choice.values.index(start[choice.name])
            places = [p for p in (place - 1, place + 1) if 0 <= p < len(choice.values)] if choice.ordered else range(len(choice.values))
            candidate = self.decode({**start, choice.name: choice.values[rng.choice(list(places))]})
            if candidate != architecture:
                return candidate
        return architecture

    def cost_range(self, backbone: BackboneConfig, head: Head, length: int = 128, batch: int = 1) -> dict[str, tuple[float, float]]:
        """The least and the greatest value of each cost in the space (deployed form), by the name of its limit.

        Spaces where no one architecture is the least or the greatest in every cost override it.
        """
        from methods.costs import costs

        low, high = (costs(self.spec(a, backbone, head), length, batch).measured_against() for a in (self.smallest(), self.largest()))
        return {name: (low[name], high[name]) for name in low}

    def fastest(self, table: LatencyTable, backbone: BackboneConfig, head: Head) -> Architecture | None:
        """The architecture that takes least by a device's table (deployed form), exactly; None where that can't be said.

        This one looks at all where they are few; spaces whose parts are chosen one by one override it. Raises UserError where the table
        lacks a part.
        """
        listed = list(itertools.islice(self.enumerate(), LISTED + 1))
        if len(listed) > LISTED:
            return None
        return min(listed, key=lambda architecture: table.network(self.spec(architecture, backbone, head)))

    def anchors(self) -> Sequence[Architecture]:
        """Hand-picked starting points (uniform configurations), the smallest and largest among them."""
        return list(dict.fromkeys([self.smallest(), self.largest()]))

    def hand_made(self, like: Architecture) -> Sequence[Architecture]:  # noqa: ARG002 (one signature)
        """What a person would build in several sizes, to be set beside `like`; none where the method has no such idea."""
        return ()

    def enumerate(self) -> Iterator[Architecture]:
        """Every architecture once, in a fixed order."""
        seen: set[Architecture] = set()
        for places in np.ndindex(*(len(c.values) for c in self.choices)):
            architecture = self.decode({c.name: c.values[p] for c, p in zip(self.choices, places, strict=True)})
            if architecture not in seen:
                seen.add(architecture)
                yield architecture

    def place(self, assignment: Assignment) -> dict[str, int]:
        """The index of each value among its choice's values: what `batch_costs` takes."""
        return {c.name: c.values.index(assignment[c.name]) for c in self.choices}
