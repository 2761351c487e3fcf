"""From architecture parameters to one architecture: the base rule (the paper's, with DARTS' rule for edges), and what they say of all.

The model behind both is that of `methods.adabert.expectation`: depth and nodes are independent, and an inner node keeps the edge set S
with operations o_e with probability proportional to the product of p(e, o_e) over S; zero takes its share of an edge, but is never
kept. The base rule finds the most probable architecture.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from torch import Tensor

from methods.adabert.space import AdaBertSpace
from methods.space import Architecture

if TYPE_CHECKING:
    from collections.abc import Sequence

    from methods.adabert.supernet import AdaBertSupernet

Floats = npt.NDArray[np.float64]
Edges = list[tuple[int, str]]
"""The kept edges of an inner node: (source, operation), by source."""


def derive(space: AdaBertSpace, edges: Tensor, depth: Tensor) -> Architecture:
    """The most probable depth; per edge the best operation but zero; per inner node the edges whose best operation is most probable.

    `edges` (E, O + 1) and `depth` (Kmax,) are logits. Zero can't be chosen, but it takes its share of an edge's probability. Equal
    values: the first one wins.
    """
    probabilities = edges.detach().double().softmax(1)[:, :-1].tolist()
    strengths = depth.detach().tolist()
    nodes = []
    for node in range(space.options.nodes):
        rows = {source: probabilities[row] for row, (n, source) in enumerate(space.edges) if n == node}
        kept = sorted(rows, key=lambda source: -max(rows[source]))[: space.kept(node)]
        nodes.append([(source, space.options.operations[rows[source].index(max(rows[source]))]) for source in kept])
    return space.architecture(1 + strengths.index(max(strengths)), nodes)


@dataclass(frozen=True, eq=False)
class AlphaModel:
    """The probability that architecture parameters give to every architecture; over the whole space it sums to 1.

    `edges` (E, O) and `depth` (Kmax,): log-probabilities, those of edges without the column of zero.
    """

    space: AdaBertSpace
    edges: Floats
    depth: Floats

    @classmethod
    def of(cls, space: AdaBertSpace, edges: Tensor, depth: Tensor) -> AlphaModel:
        """From logits (E, O + 1) and (Kmax,)."""
        logs = (logits.detach().double().log_softmax(-1).cpu().numpy() for logits in (edges, depth))
        of_edges, of_depth = logs
        return cls(space, of_edges[:, :-1], of_depth)

    @classmethod
    def of_supernet(cls, supernet: AdaBertSupernet) -> AlphaModel:
        return cls.of(supernet.space, supernet.edge_logits, supernet.depth_logits)

    @cached_property
    def nodes(self) -> tuple[Floats, ...]:
        """Per inner node the log-probability of each of its rows: edge sets in their order, within each set operations in theirs."""
        found = []
        for node in range(self.space.options.nodes):
            logs = self.edges[[row for row, (n, _) in enumerate(self.space.edges) if n == node]]
            rows = per_row(self.sets(node), logs)
            found.append(rows - np.logaddexp.reduce(rows))
        return tuple(found)

    def sets(self, node: int) -> list[tuple[int, ...]]:
        """The edge sets (sources) that a node may keep."""
        return list(combinations(range(node + 2), self.space.kept(node)))

    def kept(self, node: int, row: int) -> Edges:
        """The edges of a row."""
        operations, kept = self.space.options.operations, self.space.kept(node)
        chosen, rest = divmod(row, len(operations) ** kept)
        places = np.unravel_index(rest, (len(operations),) * kept)
        return [(source, operations[int(place)]) for source, place in zip(self.sets(node)[chosen], places, strict=True)]

    def row(self, node: int, edges: Sequence[Sequence[object]]) -> int:
        """The inverse of `kept`."""
        operations = self.space.options.operations
        row = self.sets(node).index(tuple(int(str(source)) for source, _ in edges))
        for _, name in edges:
            row = row * len(operations) + operations.index(name)
        return row

    def architecture(self, cells: int, rows: Sequence[int]) -> Architecture:
        """Of K and a row per node."""
        return self.space.architecture(cells, [self.kept(node, row) for node, row in enumerate(rows)])

    def log_probability(self, architecture: Architecture) -> float:
        """Of one architecture of the space, in nats."""
        genes = architecture.choices
        nodes = sum(self.nodes[n][self.row(n, edges)] for n, edges in enumerate(genes["nodes"]))
        return float(self.depth[genes["K"] - 1] + nodes)

    def draw(self, rng: np.random.Generator) -> Architecture:
        """A random architecture, each with its probability."""
        cells = 1 + int(rng.choice(len(self.depth), p=_shares(self.depth)))
        return self.architecture(cells, [int(rng.choice(len(logs), p=_shares(logs))) for logs in self.nodes])


def per_row(sets: Sequence[tuple[int, ...]], values: Floats) -> Floats:
    """What adds up over a node's kept edges, for each of its rows: `values` (sources, O) or (sources, O, c) -> (rows,) or (rows, c)."""
    inner = values.shape[2:]
    found = []
    for sources in sets:
        total = values[sources[0]]
        for source in sources[1:]:
            total = (total[:, None] + values[source]).reshape(-1, *inner)
        found.append(total)
    return np.concatenate(found)


def _shares(logs: Floats) -> Floats:
    shares = np.exp(logs - logs.max())
    return np.asarray(shares / shares.sum())
