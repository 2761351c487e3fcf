"""Every architecture of a small space, once."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice

from methods.errors import UserError
from methods.space import Architecture
from search.strategies.strategy import Problem, Strategy

LARGEST = 100_000


class Exhaustive(Strategy):
    """In the order of the space's own enumeration. Raises UserError for a space above `LARGEST` architectures."""

    def __init__(self, problem: Problem) -> None:
        size = problem.space.size()
        if size > LARGEST:
            raise UserError(
                f"search.strategy: exhaustive takes spaces of at most {LARGEST:,} architectures and that of {problem.space.method} has "
                f"{size:,}; take tpe, nsga2 or random"
            )
        self._rest = iter(problem.space.enumerate())

    def ask(self, count: int) -> list[Architecture]:
        return list(islice(self._rest, count))

    def tell(self, architecture: Architecture, score: float | None, violations: Mapping[str, float]) -> None:
        """Nothing is learnt."""
