"""The distinct pieces that deployed networks are made of."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product

from methods.backbone import BackboneConfig
from methods.latency import key_of, pieces_of
from methods.layers.part import Piece
from methods.network import NetworkSpec
from methods.space import Architecture, Choice, SearchSpace
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


def pieces_of_space(one: Served) -> dict[str, Piece]:
    """Every piece of a space's deployed networks, by its key.

    All values of each choice, and of each pair of choices that meet in a piece, around the largest architecture, which has all genes: a
    piece's shape depends on two choices at most (an operation on its kind and width, a link on the widths on both sides, a stem on
    embedding and first width).
    """
    found = distinct_pieces(map(one.spec, _around(one.space, [(choice,) for choice in one.space.choices])))
    meet = [pair for pair in combinations(one.space.choices, 2) if _new_pieces(one, [tuple(map(_few, pair))], found)]
    return dict(sorted((found | _new_pieces(one, meet, found)).items()))


def _around(space: SearchSpace, chosen: Iterable[tuple[Choice, ...]]) -> Iterator[Architecture]:
    """The largest architecture with every assignment of each of these tuples of choices, each once."""
    start, seen = space.encode(space.largest()), set[Architecture]()
    for choices in chosen:
        for values in product(*(choice.values for choice in choices)):
            architecture = space.decode({**start, **{choice.name: value for choice, value in zip(choices, values, strict=True)}})
            if architecture not in seen:
                seen.add(architecture)
                yield architecture


def _new_pieces(one: Served, chosen: Iterable[tuple[Choice, ...]], known: Mapping[str, Piece]) -> dict[str, Piece]:
    found = distinct_pieces(map(one.spec, _around(one.space, chosen)))
    return {key: piece for key, piece in found.items() if key not in known}


def _few(choice: Choice) -> Choice:
    """First, middle and last value: enough to see whether two choices meet in a piece."""
    values = choice.values
    return replace(choice, values=tuple(dict.fromkeys((values[0], values[len(values) // 2], values[-1]))))


def pieces_of_spaces(served: Sequence[Served]) -> dict[str, Piece]:
    """Every piece of the spaces' deployed networks, by its key."""
    found: dict[str, Piece] = {}
    for one in served:
        found |= pieces_of_space(one)
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
