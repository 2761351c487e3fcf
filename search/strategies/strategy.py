"""`Strategy`: proposes architectures and hears what they are worth."""

from __future__ import annotations

import hashlib
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from methods.budget import Budget
from methods.costs import Costs
from methods.space import Architecture, SearchSpace

CostOf = Callable[[Architecture], Costs]
ENUMERABLE = 20_000
_TRIES = 200


@dataclass(frozen=True)
class Problem:
    """What a strategy may know: the space, the limits, what an architecture costs, and how many will be measured (None: no limit).

    `objectives`: costs, by the names of their limits, to be low beside a high quality: the front of them all is looked for. Without
    any it is the best quality within the limits.
    """

    space: SearchSpace
    budget: Budget
    cost_of: CostOf
    seed: int = 0
    evaluations: int | None = None
    objectives: tuple[str, ...] = ()

    def prices(self, architecture: Architecture) -> tuple[float, ...]:
        """The costs that are objectives."""
        used = self.cost_of(architecture).measured_against()
        return tuple(float(used[name]) for name in self.objectives)

    def fits(self, architecture: Architecture) -> bool:
        """Whether it keeps within the limits."""
        return self.budget.met_by(self.cost_of(architecture))

    def anchors(self) -> list[Architecture]:
        """The space's anchors that fit; where they are more than a third of what will be measured, so many, spread over their FLOPs."""
        fitting = [anchor for anchor in dict.fromkeys(self.space.anchors()) if self.fits(anchor)]
        most = len(fitting) if self.evaluations is None else self.evaluations // 3
        if len(fitting) <= most:
            return fitting
        by_size = sorted(fitting, key=lambda anchor: self.cost_of(anchor).flops)
        return [by_size[i * (len(by_size) - 1) // max(1, most - 1)] for i in range(most)]


class Strategy(ABC):
    """Deterministic: the same seed and the same answers, told in the order of asking, give the same proposals.

    `duplicates` counts proposals that decoded to an architecture proposed before; they are answered here and never leave.
    """

    duplicates: int = 0

    @abstractmethod
    def ask(self, count: int) -> list[Architecture]:
        """Up to `count` architectures, none of them proposed before; none at all when the space is exhausted."""

    @abstractmethod
    def tell(self, architecture: Architecture, score: float | None, violations: Mapping[str, float]) -> None:
        """What was found of a proposal: a score, larger being better, or None where a limit is exceeded and nothing was evaluated.

        `violations`: for each limit of the budget (cost - limit) / limit.
        """

    def close(self) -> None:  # noqa: B027 (most have nothing to give back)
        """The end of the search, whatever ended it."""


def seed_of(*parts: int | str) -> int:
    """A seed of 32 bits from a hash of the parts, the same in every process."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], "big")


def unseen(space: SearchSpace, size: int, seen: Collection[Architecture], rng: random.Random) -> Architecture | None:
    """A random architecture that is not among `seen`; None where there is none, or where a space too large to list yields none.

    `size`: the space's, which may be slow to count.
    """
    if len(seen) >= size:
        return None
    for _ in range(_TRIES):
        architecture = space.sample(rng)
        if architecture not in seen:
            return architecture
    if size <= ENUMERABLE:
        rest = [architecture for architecture in space.enumerate() if architecture not in seen]
        return rng.choice(rest) if rest else None
    return _wander(space, seen, rng)


def _wander(space: SearchSpace, seen: Collection[Architecture], rng: random.Random) -> Architecture | None:
    """Leaves what was seen by mutation: for spaces whose random samples hardly vary."""
    architecture = space.sample(rng)
    for _ in range(_TRIES):
        architecture = space.mutate(architecture, rng)
        if architecture not in seen:
            return architecture
    return None
