"""AdaBERT's space: how many cells, and the one cell that they all share (paper)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import combinations
from math import comb, prod
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from methods.adabert.folding import folded_stem
from methods.adabert.options import OperationName, SpaceOptions
from methods.backbone import BackboneConfig
from methods.costs import CostArrays
from methods.errors import UserError
from methods.layers.cell import Cell, CellStack, Edge, LayerAttentionHead
from methods.layers.embedding import Stem
from methods.layers.operations import CellConvolution, CellIdentity, CellPool
from methods.layers.part import Part
from methods.network import NetworkSpec
from methods.space import Architecture, Assignment, Choice, Form, SearchSpace, Value
from methods.tasks.head import Head

if TYPE_CHECKING:
    from methods.latency import LatencyTable

METHOD_NAME = "adabert"
SCHEMA = 1
ZERO = "zero"
_SLOTS = "abcd"
Genotype = Sequence[Sequence[Sequence[Any]]]
"""Per inner node its edges, sorted by source: (source, operation name)."""


def check_head(head: Head) -> None:
    """Raises UserError for what AdaBERT's one vector per text can't answer."""
    if head.kind not in ("classification", "regression"):
        raise UserError(
            f"method {METHOD_NAME}: a head of kind {head.kind!r} can't be hosted; AdaBERT makes one vector of a text, "
            "so it serves classification and regression only"
        )


def operation_part(name: OperationName, options: SpaceOptions, form: Form = "hosted") -> Part:
    """The operation of that name; in the deployed form its batch norm is folded into the convolution."""
    family, _, kernel = name.rpartition("_")
    if family in ("conv", "dilated_conv"):
        dilation = 1 if family == "conv" else options.dilation
        part = CellConvolution(options.width, int(kernel), dilation, options.normalisation, options.momentum)
        return part.folded() if form == "deployed" else part
    if family in ("max_pool", "average_pool"):
        return CellPool("max" if family == "max_pool" else "average", int(kernel), options.pool_input == "relu")
    return CellIdentity()


class AdaBertSpace(SearchSpace):
    """K cells; inner node n keeps `in_edges` of its n + 2 sources (0 and 1: the cell's inputs, 2 + m: inner node m), an operation each.

    Choices and architectures map one to one: permuted inner nodes stay distinct, for their weights differ.
    """

    method = METHOD_NAME

    def __init__(self, options: SpaceOptions | None = None) -> None:
        self.options = options or SpaceOptions()
        o = self.options
        self.method = o.label or METHOD_NAME
        choices = [Choice("K", tuple(range(1, o.cells + 1)), ordered=True, monotone=True)]
        for n in range(o.nodes):
            pairs = combinations(range(n + 2), self.kept(n))
            choices.append(Choice(f"node{n}.edges", tuple(",".join(map(str, pair)) for pair in pairs)))
            choices += [Choice(f"node{n}.op{slot}", o.operations) for slot in _SLOTS[: self.kept(n)]]
        self.choices = tuple(choices)

    def kept(self, node: int) -> int:
        """How many edges an inner node keeps."""
        return min(self.options.in_edges, node + 2)

    @cached_property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """Every edge of the supernet's cell as (inner node, source): the rows of the architecture parameters."""
        return tuple((node, source) for node in range(self.options.nodes) for source in range(node + 2))

    @property
    def columns(self) -> tuple[str, ...]:
        """The operations of the supernet's edges, zero last: the columns of the architecture parameters."""
        return (*self.options.operations, ZERO)

    def architecture(self, cells: int, nodes: Genotype) -> Architecture:
        """The architecture of K and a genotype; edges come in any order. Raises ValueError where it is not in the space."""
        ordered = [sorted((int(source), str(name)) for source, name in node) for node in nodes]
        architecture = Architecture.of(self.method, {"schema": SCHEMA, "K": cells, "nodes": ordered})
        self.encode(architecture)
        return architecture

    def decode(self, assignment: Assignment) -> Architecture:
        nodes = []
        for n in range(self.options.nodes):
            sources = [int(source) for source in str(assignment[f"node{n}.edges"]).split(",")]
            nodes.append([[source, assignment[f"node{n}.op{slot}"]] for slot, source in zip(_SLOTS, sources, strict=False)])
        return Architecture.of(self.method, {"schema": SCHEMA, "K": assignment["K"], "nodes": nodes})

    def encode(self, architecture: Architecture) -> dict[str, Value]:
        genes = architecture.choices
        if genes.keys() != {"schema", "K", "nodes"} or genes["schema"] != SCHEMA or len(genes["nodes"]) != self.options.nodes:
            wanted = f"schema {SCHEMA}, K and {self.options.nodes} nodes"
            raise ValueError(f"{architecture.canonical} is not in the space: it has {wanted}")
        assignment: dict[str, Value] = {"K": genes["K"]}
        for n, node in enumerate(genes["nodes"]):
            assignment[f"node{n}.edges"] = ",".join(str(source) for source, _ in node)
            assignment |= {f"node{n}.op{slot}": name for slot, (_, name) in zip(_SLOTS, node, strict=False)}
        for choice in self.choices:
            value = assignment.get(choice.name)
            if value not in choice.values or isinstance(value, bool):
                raise ValueError(f"{architecture.canonical} is not in the space: {choice.name} is {value!r}")
        return assignment

    def size(self) -> int:
        o = self.options
        nodes: list[int] = [comb(n + 2, self.kept(n)) * len(o.operations) ** self.kept(n) for n in range(o.nodes)]
        return o.cells * prod(nodes)

    def enumerate(self) -> Iterator[Architecture]:
        for places in np.ndindex(*(len(c.values) for c in self.choices)):
            yield self.decode({c.name: c.values[p] for c, p in zip(self.choices, places, strict=True)})

    def smallest(self) -> Architecture:
        return self.uniform(1, min(self.options.operations, key=self._price))

    def largest(self) -> Architecture:
        return self.uniform(self.options.cells, max(self.options.operations, key=self._price))

    def _price(self, name: OperationName) -> tuple[int, int]:
        part = self.parts["deployed"][name]
        return part.other_parameters(), part.flops(1)

    def uniform(self, cells: int, operation: OperationName) -> Architecture:
        """`cells` cells whose nodes take the last sources, with one operation on all edges."""
        nodes = [[[source, operation] for source in range(n + 2 - self.kept(n), n + 2)] for n in range(self.options.nodes)]
        return Architecture.of(self.method, {"schema": SCHEMA, "K": cells, "nodes": nodes})

    def fastest(self, table: LatencyTable, backbone: BackboneConfig, head: Head) -> Architecture:
        """All edges have the same operations to choose from, so that the fastest cell has one operation throughout."""
        found = [self.uniform(cells, name) for cells in range(1, self.options.cells + 1) for name in self.options.operations]
        return min(found, key=lambda architecture: table.network(self.spec(architecture, backbone, head)))

    def anchors(self) -> list[Architecture]:
        """The smallest, the largest, and the cell of each single operation at a half of the depth."""
        middle = (self.options.cells + 1) // 2
        return list(dict.fromkeys([self.smallest(), self.largest(), *(self.uniform(middle, name) for name in self.options.operations)]))

    def spec(self, architecture: Architecture, backbone: BackboneConfig, head: Head, form: Form = "deployed") -> NetworkSpec:
        """Hosted: tables of the backbone's width, projection, batch norms. Deployed: what `folding.fold` makes of it."""
        genes, parts = architecture.choices, self.parts[form]
        cell = Cell(tuple(tuple(Edge(source, parts[name]) for source, name in node) for node in genes["nodes"]))
        stem, output = self.ends(backbone, head, genes["K"], form)
        return NetworkSpec(stem, CellStack(cell, genes["K"]), output, head)

    @cached_property
    def parts(self) -> dict[Form, dict[OperationName, Part]]:
        """The operations by form and name."""
        forms: tuple[Form, Form] = ("hosted", "deployed")
        return {form: {name: operation_part(name, self.options, form) for name in self.options.operations} for form in forms}

    def ends(self, backbone: BackboneConfig, head: Head, cells: Any, form: Form = "hosted") -> tuple[Stem, LayerAttentionHead]:
        """Stem, and head behind `cells` cells (an array or a tensor does, for costs). Raises UserError for other heads."""
        check_head(head)
        b, o = backbone, self.options
        stem = Stem(
            b.vocabulary, b.positions, 0, b.hidden, norm_before=False, projection=o.width, projection_bias=False, norm_after=True,
            dropout=o.dropout, layer_norm_eps=b.layer_norm_eps, padding_id=b.padding_id, zero_padding=True, texts=2 if head.pair else 1,
            position_offset=b.position_offset,
        )  # fmt: skip
        return folded_stem(stem) if form == "deployed" else stem, LayerAttentionHead(o.width, cells + 1, head.labels, o.dropout)

    def batch_costs(
        self, assignments: Mapping[str, npt.NDArray[Any]], backbone: BackboneConfig, head: Head, length: int = 128, batch: int = 1
    ) -> CostArrays:
        cells = np.asarray(assignments["K"], dtype=np.int64) + 1
        parts = self.parts["deployed"].values()
        parameters = np.array([part.other_parameters() for part in parts])
        flops = np.array([part.flops(length) for part in parts])
        slots = [assignments[c.name] for c in self.choices if ".op" in c.name]
        stem, output = self.ends(backbone, head, cells, "deployed")
        return CostArrays.of(
            len(cells),
            stem.embedding_parameters(),
            stem.other_parameters() + cells * (sum(parameters[i] for i in slots) + self.options.nodes) + output.other_parameters(),
            stem.flops(length) + cells * sum(flops[i] for i in slots) + output.flops(length),
            length,
            batch,
        )


def space_of(options: SpaceOptions, backbone: BackboneConfig) -> AdaBertSpace:  # noqa: ARG001 (one signature for all methods)
    """The space of these options; it is the same for every backbone."""
    return AdaBertSpace(options)
