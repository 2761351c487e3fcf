"""The distinct pieces that deployed networks are made of."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, product

from methods.backbone import BackboneConfig
from methods.latency import key_of, pieces_of
from methods.layers.part import Piece
from methods.network import NetworkSpec
from methods.space import Architecture, SearchSpace
from methods.tasks.head import Head


@dataclass(frozen=True)
class Served:
    """A space whose deployed networks answer a head."""

    space: SearchSpace
    backbone: BackboneConfig
    head: Head

    def spec(self, architecture: Architecture) -> NetworkSpec:
        return self.space.spec(architecture, self.backbone, self.head)


def distinct_pieces(specs: Iterable[NetworkSpec]) -> dict[str, Piece]:
    """The pieces of these networks by their key, each once."""
    seen: set[Piece] = set()
    for spec in specs:
        seen.update(pieces_of(spec))
    return dict(sorted((key_of(piece), piece) for piece in seen))


def covering(space: SearchSpace) -> Iterator[Architecture]:
    """Architectures that have every piece of the space between them.

    All values of every pair of choices around the largest architecture, which has all genes: a piece's shape depends on two choices at
    most (an operation on its kind and width, a link on the widths on both sides, a stem on embedding and first width).
    """
    start = space.encode(space.largest())
    pairs = [*((choice,) for choice in space.choices), *combinations(space.choices, 2)]
    seen: set[Architecture] = set()
    for chosen in pairs:
        for values in product(*(choice.values for choice in chosen)):
            architecture = space.decode({**start, **{choice.name: value for choice, value in zip(chosen, values, strict=True)}})
            if architecture not in seen:
                seen.add(architecture)
                yield architecture


def pieces_of_spaces(served: Sequence[Served]) -> dict[str, Piece]:
    """Every piece of the spaces' deployed networks, by its key."""
    found: dict[str, Piece] = {}
    for one in served:
        found |= distinct_pieces(one.spec(architecture) for architecture in covering(one.space))
    return dict(sorted(found.items()))


def random_networks(served: Sequence[Served], count: int, rng: random.Random, patience: int = 100) -> list[NetworkSpec]:
    """Distinct networks from each space in turn, every choice uniform over its values, so that sizes are spread.

    A space that gives nothing new in `patience` draws is left out from then on; so there may be fewer than `count`.
    """
    found: dict[NetworkSpec, None] = {}
    alive = list(served)
    while alive and len(found) < count:
        for one in list(alive):
            spec = _new(one, found, rng, patience)
            if spec is None:
                alive.remove(one)
            elif len(found) < count:
                found[spec] = None
    return list(found)


def _new(one: Served, known: dict[NetworkSpec, None], rng: random.Random, patience: int) -> NetworkSpec | None:
    for _ in range(patience):
        spec = one.spec(one.space.decode({choice.name: rng.choice(choice.values) for choice in one.space.choices}))
        if spec not in known:
            return spec
    return None
