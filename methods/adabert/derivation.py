"""From architecture parameters to one architecture: the base rule (the paper's, with DARTS' rule for edges)."""

from __future__ import annotations

from torch import Tensor

from methods.adabert.space import AdaBertSpace
from methods.space import Architecture


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
