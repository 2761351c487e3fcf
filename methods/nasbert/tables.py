"""Costs of deployed networks as sums over small tables, and the cheapest and dearest network by dynamic programming.

Parameters and FLOPs are additive over sub-layers and pairwise in neighbouring blocks (and in embedding size with the first and
last block), so tables over sizes and operations give them exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from methods.backbone import BackboneConfig
    from methods.layers.part import Part
    from methods.nasbert.networks import Settings
    from methods.tasks.head import Head

Table = npt.NDArray[np.int64]
Score = tuple[int, ...]


@dataclass(frozen=True)
class CostTables:
    """Tables of (embedding parameters, other parameters, FLOPs of one text) in the last axis, indexed by places in the choices.

    `stem`, `head` (embedding, hidden, 3); `link` (hidden, hidden, 3), zero on the diagonal; `operation` (hidden, operation + 1, 3),
    whose last operation is the identity.
    """

    stem: Table
    operation: Table
    link: Table
    head: Table

    def total(self, places: Mapping[str, npt.NDArray[Any]], blocks: int, per_block: int) -> Table:
        """Costs (n, 3) of n assignments given as value indices."""
        embedding = places["embedding"]
        identity = self.operation.shape[1] - 1
        hidden = places["block1.hidden"]
        total = self.stem[embedding, hidden]
        for b in range(1, blocks + 1):
            before, hidden = hidden, places[f"block{b}.hidden"]
            total = total + self.link[before, hidden]
            for j in range(per_block):
                here = np.where(j <= places[f"block{b}.length"], places[f"block{b}.op{j + 1}"], identity)
                total += self.operation[hidden, here]
        return np.asarray(total + self.head[embedding, hidden], dtype=np.int64)


@dataclass(frozen=True)
class PartTables:
    """The parts behind `CostTables`, indexed alike; None where nothing is (the identity, a link between equal widths)."""

    stem: list[list[Part | None]]
    operation: list[list[Part | None]]
    link: list[list[Part | None]]
    head: list[list[Part | None]]

    def measured(self, measure: Callable[[Part | None], Any]) -> dict[str, npt.NDArray[Any]]:
        """What `measure` says of each part, as arrays of the same indices."""
        return {f.name: np.array([[measure(part) for part in row] for row in getattr(self, f.name)]) for f in fields(self)}


def part_tables(
    embeddings: Sequence[int],
    hiddens: Sequence[int],
    operations: Sequence[str],
    settings: Settings,
    backbone: BackboneConfig,
    head: Head,
) -> PartTables:
    """The parts that deployed networks of a space are made of."""
    from methods.nasbert.networks import deployed_stem, link, operation
    from methods.network import make_head

    eps, dropout = backbone.layer_norm_eps, settings.dropout
    stems = [[deployed_stem(backbone, width, hidden, dropout) for hidden in hiddens] for width in embeddings]
    return PartTables(
        stem=[list(row) for row in stems],
        operation=[[*(operation(name, hidden, eps, settings) for name in operations), None] for hidden in hiddens],
        link=[[None if a == b else link(a, b) for b in hiddens] for a in hiddens],
        head=[[make_head(head, hidden, False, stem, dropout) for hidden, stem in zip(hiddens, row, strict=True)] for row in stems],
    )


def cost_tables(
    embeddings: Sequence[int],
    hiddens: Sequence[int],
    operations: Sequence[str],
    settings: Settings,
    backbone: BackboneConfig,
    head: Head,
    length: int,
) -> CostTables:
    """The tables of a space for a backbone, a head and texts of `length` tokens."""

    def counts(part: Part | None) -> tuple[int, int, int]:
        return (0, 0, 0) if part is None else (part.embedding_parameters(), part.other_parameters(), part.flops(length))

    return CostTables(**part_tables(embeddings, hiddens, operations, settings, backbone, head).measured(counts))


@dataclass(frozen=True)
class Extreme:
    """The network with the least score: places of its embedding size, of each block's hidden size, of its one operation kind."""

    score: Score
    embedding: int
    hidden: tuple[int, ...]
    operations: tuple[int, ...]


def extreme(tables: CostTables, blocks: int, path_length: int, score: Callable[[Table], Table]) -> Extreme:
    """The least sum of scores among networks whose blocks all have `path_length` operations.

    `score` maps costs (..., 3) linearly to (..., s); scores are compared lexicographically. An additive score is least where
    every position of a path has the same best operation, so per block only the hidden size is left to choose (exact, by Viterbi).
    """
    stem, operation, link, head = (_tuples(score(t)) for t in (tables.stem, tables.operation[:, :-1], tables.link, tables.head))
    places = range(len(link))
    best = [min(range(len(row)), key=row.__getitem__) for row in operation]
    path = [tuple(path_length * x for x in row[i]) for row, i in zip(operation, best, strict=True)]
    found: list[Extreme] = []
    for e in range(len(stem)):
        chains: list[tuple[Score, tuple[int, ...]]] = [(_add(stem[e][h], path[h]), (h,)) for h in places]
        for _ in range(blocks - 1):
            chains = [min((_add(s, link[c[-1]][h], path[h]), (*c, h)) for s, c in chains) for h in places]
        total, chain = min((_add(s, head[e][c[-1]]), c) for s, c in chains)
        found.append(Extreme(total, e, chain, tuple(best[h] for h in chain)))
    return min(found, key=lambda x: (x.score, x.embedding))


def _tuples(table: Table) -> list[list[Score]]:
    return [[tuple(cell) for cell in row] for row in table.tolist()]


def _add(*scores: Score) -> Score:
    return tuple(sum(column) for column in zip(*scores, strict=True))
