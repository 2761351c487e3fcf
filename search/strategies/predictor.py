"""Search by a predictor: a cheap model of what was measured ranks many candidates, and the most promising are measured next.

As in predictor-based neural architecture search (Wen et al. 2020; White et al. 2021), with variation of the front as candidates.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Mapping, Sequence

import numpy as np

from methods.space import Architecture
from search.strategies.improvement import front, most_promising
from search.strategies.strategy import Problem, Strategy, seed_of, unseen
from search.strategies.surrogate import Encoder, Surrogate
from search.strategies.variation import crossover, mutations

POOL = 400
_RANDOM, _CROSSOVER = 0.1, 0.3
_TRIES = 200


class Predictor(Strategy):
    """Starts from the anchors and random architectures; costs are known, so candidates over a limit are passed over.

    Where no candidate is left that fits, a random architecture takes the turn.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self._size = problem.space.size()
        self._rng = random.Random(seed_of("predictor", problem.seed))
        self._encode = Encoder(problem)
        self._anchors = deque(problem.anchors())
        self._start = len(self._anchors) + min(20, max(4, (problem.evaluations or 400) // 10))
        self._seen: set[Architecture] = set()
        self._scores: dict[Architecture, float] = {}

    def ask(self, count: int) -> list[Architecture]:
        asked: list[Architecture] = []
        if len(self._seen) >= self._start and len(self._scores) > 1:
            asked = self._promising(count)
            self._seen.update(asked)
        while len(asked) < count and (architecture := self._any()) is not None:
            self._seen.add(architecture)
            asked.append(architecture)
        return asked

    def tell(self, architecture: Architecture, score: float | None, violations: Mapping[str, float]) -> None:  # noqa: ARG002
        if score is not None and math.isfinite(score):
            self._scores[architecture] = score

    def _any(self) -> Architecture | None:
        """An anchor, else a random architecture, one that fits where a few draws yield one."""
        if self._anchors:
            return self._anchors.popleft()
        for _ in range(_TRIES):
            architecture = self.problem.space.sample(self._rng)
            if architecture not in self._seen and self.problem.fits(architecture):
                return architecture
        return unseen(self.problem.space, self._size, self._seen, self._rng)

    def _promising(self, count: int) -> list[Architecture]:
        measured, scores = list(self._scores), np.array(list(self._scores.values()))
        prices = np.array([self.problem.prices(architecture) for architecture in measured])
        candidates = self._candidates([measured[place] for place in front(scores, prices)])
        if not candidates:
            return []
        model = Surrogate(self._encode(measured), scores, self._encode.weights)
        mean, deviation = model.predict(self._encode(candidates))
        theirs = np.array([self.problem.prices(architecture) for architecture in candidates])
        return [candidates[place] for place in most_promising(scores, prices, theirs, mean, deviation, count)]

    def _candidates(self, parents: Sequence[Architecture]) -> list[Architecture]:
        """Mutations and crossovers of the front and a few random ones; distinct, not seen, and fitting."""
        drawn = dict.fromkeys(self._candidate(parents) for _ in range(POOL))
        return [architecture for architecture in drawn if architecture not in self._seen and self.problem.fits(architecture)]

    def _candidate(self, parents: Sequence[Architecture]) -> Architecture:
        space, rng = self.problem.space, self._rng
        kind = rng.random()
        if kind < _RANDOM:
            return space.sample(rng)
        if kind < _RANDOM + _CROSSOVER:
            return crossover(space, rng.choice(parents), rng.choice(parents), rng)
        return mutations(space, rng.choice(parents), rng)
