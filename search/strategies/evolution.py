"""Regularised evolution: of a sample of the youngest the best becomes a parent, and the oldest dies (Real et al. 2019, algorithm 1)."""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from methods.space import Architecture
from search.strategies.strategy import Problem, Strategy, seed_of, unseen
from search.strategies.variation import crossover, mutations

POPULATION, TOURNAMENT = 50, 25
_CROSSOVER = 0.5
_TRIES = 20


@dataclass(frozen=True)
class _Member:
    architecture: Architecture
    score: float
    violation: float
    prices: tuple[float, ...]


class Evolution(Strategy):
    """Starts from the anchors and random architectures; children are mutations of a parent, or of a crossover of two.

    In a tournament a smaller violation of the limits wins, then a higher score. Where costs are objectives, each tournament has limits
    of its own besides: the costs of a member drawn at random. So every part of the front breeds.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self._size = problem.space.size()
        self._rng = random.Random(seed_of("evolution", problem.seed))
        self._first = deque(problem.anchors())
        self._capacity = min(POPULATION, max(8, (problem.evaluations or 400) // 6))
        self._members: deque[_Member] = deque(maxlen=self._capacity)
        self._seen: set[Architecture] = set()

    def ask(self, count: int) -> list[Architecture]:
        asked: list[Architecture] = []
        while len(asked) < count and (architecture := self._next()) is not None:
            self._seen.add(architecture)
            asked.append(architecture)
        return asked

    def tell(self, architecture: Architecture, score: float | None, violations: Mapping[str, float]) -> None:
        known = score if score is not None and math.isfinite(score) else -math.inf
        violation = sum(max(0.0, v) for v in violations.values())
        self._members.append(_Member(architecture, known, violation, self.problem.prices(architecture)))

    def _next(self) -> Architecture | None:
        if self._first:
            return self._first.popleft()
        if len(self._seen) >= self._capacity and self._members:
            for _ in range(_TRIES):
                child = self._child()
                if child not in self._seen:
                    return child
                self.duplicates += 1
        return unseen(self.problem.space, self._size, self._seen, self._rng)

    def _child(self) -> Architecture:
        limits = self._rng.choice(self._members).prices
        child = self._parent(limits)
        if self._rng.random() < _CROSSOVER:
            child = crossover(self.problem.space, child, self._parent(limits), self._rng)
        return mutations(self.problem.space, child, self._rng)

    def _parent(self, limits: tuple[float, ...]) -> Architecture:
        sample = [self._rng.choice(self._members) for _ in range(TOURNAMENT)]

        def rank(member: _Member) -> tuple[float, float, float]:
            excess = sum(max(0.0, price / limit - 1) for price, limit in zip(member.prices, limits, strict=True))
            return member.violation, excess, -member.score

        return min(sample, key=rank).architecture
