"""The networks that a block loss table knows, as a space that any strategy can search."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from methods.additive import Chain, front, least
from methods.budget import LIMITS
from methods.costs import CostArrays
from methods.nasbert.chains import cost_chains
from methods.nasbert.encoding import METHOD_NAME, architecture_of
from methods.nasbert.losses import BlockLosses
from methods.nasbert.paths import Paths
from methods.nasbert.space import NasBertSpace
from methods.network import NetworkSpec
from methods.space import Architecture, Assignment, Choice, Form, SearchSpace, Value
from methods.tasks.head import Head

if TYPE_CHECKING:
    from methods.backbone import BackboneConfig

PARAMETERS, FLOPS = LIMITS.index("max_params"), LIMITS.index("max_flops")


class TableSpace(SearchSpace):
    """Choices: the width of the embedding, and per block one of the paths of the table, named as in `192:S3.S7.M`."""

    method = METHOD_NAME
    deployed_only = frozenset({"embedding"})

    def __init__(self, losses: BlockLosses, space: NasBertSpace) -> None:
        self.losses, self.whole, self.paths, self.method = losses, space, Paths(space), space.method
        named = [[self.paths[number] for number in numbers.tolist()] for numbers, _, _ in losses.blocks]
        blocks = [Choice(f"block{b}.path", tuple(_name(*path) for path in paths)) for b, paths in enumerate(named, start=1)]
        self.choices = (Choice("embedding", space.embedding_sizes), *blocks)
        self._places = [{value: i for i, value in enumerate(choice.values)} for choice in self.choices]
        self._chains: dict[tuple[BackboneConfig, Head, int, int], tuple[Chain, ...]] = {}

    def decode(self, assignment: Assignment) -> Architecture:
        paths = [str(assignment[choice.name]).split(":") for choice in self.choices[1:]]
        return architecture_of(int(assignment["embedding"]), [(int(hidden), names.split(".")) for hidden, names in paths], self.method)

    def encode(self, architecture: Architecture) -> dict[str, Value]:
        genes = architecture.choices
        if architecture.method != self.method or len(genes["blocks"]) != len(self.choices) - 1:
            raise ValueError(f"no architecture of this table (nasbert, {len(self.choices) - 1} blocks): {architecture.to_json()}")
        values: list[Value] = [genes["embedding"], *(_name(block["hidden"], block["ops"]) for block in genes["blocks"])]
        for choice, known, value in zip(self.choices, self._places, values, strict=True):
            if value not in known:
                raise ValueError(f"{choice.name}: {value!r} is not in the table")
        return {choice.name: value for choice, value in zip(self.choices, values, strict=True)}

    def rows(self, architecture: Architecture) -> tuple[int, tuple[int, ...]]:
        """The place of the embedding width, and the row of each block. Raises ValueError where the table lacks a part of it."""
        embedding, *rows = (known[value] for known, value in zip(self._places, self.encode(architecture).values(), strict=True))
        return embedding, tuple(rows)

    def at(self, embedding: int, rows: tuple[int, ...]) -> Architecture:
        """The inverse of `rows`."""
        places = (embedding, *rows)
        return self.decode({choice.name: choice.values[place] for choice, place in zip(self.choices, places, strict=True)})

    def size(self) -> int:
        return prod(len(choice.values) for choice in self.choices)

    def smallest(self) -> Architecture:
        """The fewest parameters, and among those the fewest FLOPs (classification at length 128)."""
        return self._extreme(self._smallest)

    def largest(self) -> Architecture:
        """The most parameters, and among those the most FLOPs."""
        return self._extreme([chain.negated() for chain in self._smallest])

    def _extreme(self, chains: list[Chain]) -> Architecture:
        end = front(chains, FLOPS, minimise=PARAMETERS)[-1]
        return self.at(end.chain, end.rows)

    @cached_property
    def _smallest(self) -> list[Chain]:
        return list(self.chains(self.whole.backbone, Head("classification", 2), 128, 1))

    def cost_range(self, backbone: BackboneConfig, head: Head, length: int = 128, batch: int = 1) -> dict[str, tuple[float, float]]:
        """The least and the greatest value of each cost over all networks of the table, by the name of its limit."""
        chains = self.chains(backbone, head, length, batch)
        low, high = least(chains), -least([chain.negated() for chain in chains])
        return {name: (float(low[k]), float(high[k])) for k, name in enumerate(LIMITS)}

    def spec(self, architecture: Architecture, backbone: BackboneConfig, head: Head, form: Form = "deployed") -> NetworkSpec:
        return self.whole.spec(architecture, backbone, head, form)

    def chains(self, backbone: BackboneConfig, head: Head, length: int, batch: int) -> tuple[Chain, ...]:
        """A chain per embedding width, computed once."""
        key = (backbone, head, length, batch)
        if key not in self._chains:
            self._chains[key] = cost_chains(self.losses, self.whole, self.paths, backbone, [head], length, batch, {})
        return self._chains[key]

    def batch_costs(
        self, assignments: Mapping[str, npt.NDArray[Any]], backbone: BackboneConfig, head: Head, length: int = 128, batch: int = 1
    ) -> CostArrays:
        embedding, *columns = (np.asarray(assignments[choice.name]) for choice in self.choices)
        rows, found = np.stack(columns, axis=1), np.zeros((len(embedding), len(LIMITS)))
        for e, chain in enumerate(self.chains(backbone, head, length, 1)):
            found[embedding == e] = chain.totals(rows[embedding == e])[:, 1:]
        parameters, other, flops = found.astype(np.int64).T
        return CostArrays.of(len(found), parameters - other, other, flops, length, batch)


def _name(hidden: int, operations: Any) -> str:
    return f"{hidden}:{'.'.join(operations)}"
