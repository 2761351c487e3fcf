"""Random architectures, each once: the baseline of every other strategy."""

from __future__ import annotations

import random
from collections.abc import Mapping

from methods.space import Architecture
from search.strategies.strategy import Problem, Strategy, seed_of, unseen


class Random(Strategy):
    """Samples of the space, drawn again where one was seen before."""

    def __init__(self, problem: Problem) -> None:
        self._space = problem.space
        self._size = problem.space.size()
        self._rng = random.Random(seed_of("random", problem.seed))
        self._seen: set[Architecture] = set()

    def ask(self, count: int) -> list[Architecture]:
        asked: list[Architecture] = []
        while len(asked) < count and (architecture := unseen(self._space, self._size, self._seen, self._rng)) is not None:
            self._seen.add(architecture)
            asked.append(architecture)
        return asked

    def tell(self, architecture: Architecture, score: float | None, violations: Mapping[str, float]) -> None:
        """Nothing is learnt."""
