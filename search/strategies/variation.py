"""New architectures from known ones, by the named choices of a space."""

from __future__ import annotations

import random

from methods.space import Architecture, SearchSpace


def crossover(space: SearchSpace, first: Architecture, second: Architecture, rng: random.Random) -> Architecture:
    """Uniform crossover: of every choice the value of one of the two parents."""
    left, right = space.encode(first), space.encode(second)
    return space.decode({name: rng.choice((left[name], right[name])) for name in left})


def mutations(space: SearchSpace, architecture: Architecture, rng: random.Random) -> Architecture:
    """One mutation of the space, and another with one chance in two, and so on."""
    architecture = space.mutate(architecture, rng)
    while rng.random() < 0.5:
        architecture = space.mutate(architecture, rng)
    return architecture
