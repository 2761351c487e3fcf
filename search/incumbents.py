"""What a search with early stop knows of each budget's best, and which of its architectures need not be evaluated again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from methods.budget import Budget
from methods.space import Architecture
from search.candidates import rankable
from search.measurement import Measurement
from search.predictions import Predictions
from search.stopping import Race, Rival, Stopped, level_of
from search.strategies.strategy import CostOf

if TYPE_CHECKING:
    from search.loop import Evaluated


@dataclass(frozen=True)
class EarlyStop:
    """How a search stops early. `error`: the probability with which it may stop any architecture that could have become a winner.

    `evaluate` takes the races of a generation and yields of each what the loop's evaluator does, or that it was stopped. `predictions`
    answers from the archive, as `known` does of what was stopped; `commit` keeps what is stopped.
    """

    error: float
    evaluate: Callable[[Sequence[Race]], Iterable[Evaluated | Stopped]]
    predictions: Callable[[Measurement], Predictions | None]
    known: Callable[[Architecture], Stopped | None]
    commit: Callable[[Stopped], object]


@dataclass
class Incumbents:
    """The best architecture of each budget among those evaluated whole, as the strategies are told of them, in all passes of a search.

    An architecture has for rivals the incumbents of *all* budgets that it meets, whichever budget the pass serves, since whatever is
    measured competes for all budgets. So what is stopped in one pass has no hope in another.
    """

    early: EarlyStop
    budgets: Sequence[Budget]
    cost_of: CostOf
    evaluations: int
    seed: int
    _best: dict[int, Measurement] = field(default_factory=dict)
    _met: dict[str, set[int]] = field(default_factory=dict)
    _rivals: dict[str, Rival | None] = field(default_factory=dict)
    _stopped: dict[Architecture, Stopped] = field(default_factory=dict)

    @property
    def level(self) -> float:
        """Of the test at each look."""
        return level_of(self.early.error, self.evaluations)

    def told(self, measurement: Measurement) -> None:
        """Hears what the strategy hears; of equals the first stays."""
        met = self._met[measurement.architecture.id] = self._meets(measurement.architecture)
        for place in met:
            best = self._best.get(place)
            if best is None or rankable(measurement.quality) > rankable(best.quality):
                self._best[place] = measurement

    def race(self, architecture: Architecture) -> Race:
        """Against the incumbents as they are now; without rivals where a budget that it meets has none yet."""
        met = self._meets(architecture)
        if not met or not met <= self._best.keys():
            return Race(architecture)
        best = sorted((self._best[place] for place in sorted(met)), key=lambda m: -rankable(m.quality))
        rivals = dict.fromkeys(self._rival(measurement) for measurement in best)
        known = [rival for rival in rivals if rival is not None]
        return Race(architecture, tuple(known), self.level, self.seed) if len(known) == len(rivals) else Race(architecture)

    def stop(self, stopped: Stopped) -> None:
        """Keeps what was stopped."""
        self._stopped[stopped.architecture] = stopped
        self.early.commit(stopped)

    def known(self, architecture: Architecture) -> Stopped | None:
        """That it was stopped before, where this holds in this search too: rejected at its level, by an architecture that it was told of,
        for each of its budgets."""
        found = self._stopped.get(architecture) or self.early.known(architecture)
        if found is None or found.p > self.level:
            return None
        covered = set[int]().union(*(self._met.get(rival, set()) for rival in found.rivals))
        return found if self._meets(architecture) <= covered else None

    def _meets(self, architecture: Architecture) -> set[int]:
        costs = self.cost_of(architecture)
        return {place for place, budget in enumerate(self.budgets) if budget.met_by(costs)}

    def _rival(self, measurement: Measurement) -> Rival | None:
        if measurement.architecture.id not in self._rivals:
            predictions = self.early.predictions(measurement)
            self._rivals[measurement.architecture.id] = None if predictions is None else Rival.of(measurement.architecture, predictions)
        return self._rivals[measurement.architecture.id]
