"""The search: a strategy proposes, the budget is checked, the archive or an evaluation answers, the strategy hears of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from methods.budget import Budget
from methods.costs import Costs
from methods.errors import UserError
from methods.space import Architecture, SearchSpace
from search.front import refuse_unknown, widest
from search.incumbents import EarlyStop, Incumbents
from search.limits import refuse_impossible
from search.measurement import Measurement
from search.predictions import Predictions
from search.stopping import Stopped
from search.strategies.registry import Entry, entry, resolve
from search.strategies.strategy import CostOf, Problem, Strategy

Evaluated = tuple[Measurement, Predictions | None]
Evaluate = Callable[[Sequence[Architecture]], Iterable[Evaluated]]
Progress = Callable[[int, int], None]
Asked = TypeVar("Asked")
Found = TypeVar("Found")
PATIENCE = 2_000
"""So many proposals in a row that exceed the budget end a search."""


@dataclass(frozen=True)
class Pass:
    """One run of a strategy: under one budget, or for all at once where the strategy looks at none or searches a front.

    `strategy`: a name of the registry, what `auto` became. `measurements`: what was told of, in that order, and `hopeless`: what was told
    of with an estimate, since its evaluation was stopped early. `evaluated` of both now, `answered` by what was measured before.
    `infeasible`: proposals over a limit, never evaluated. `duplicates`: proposals equal to earlier ones. `seconds`: wall clock of this
    pass. `stopped`: why fewer than asked for were measured, empty where all were.
    """

    budgets: tuple[Budget, ...]
    strategy: str
    measurements: tuple[Measurement, ...]
    evaluated: int
    answered: int
    infeasible: int
    duplicates: int
    seconds: float
    stopped: str = ""
    hopeless: tuple[Stopped, ...] = ()

    @property
    def label(self) -> str:
        """The budget's label; empty where the pass serves several budgets."""
        return self.budgets[0].label() if len(self.budgets) == 1 else ""


@dataclass(frozen=True)
class SearchResult:
    """What a search did, pass by pass."""

    passes: tuple[Pass, ...]

    @property
    def measurements(self) -> tuple[Measurement, ...]:
        """All that was told of, each once, in order."""
        return tuple({m.key: m for part in self.passes for m in part.measurements}.values())

    @property
    def evaluated(self) -> int:
        return sum(part.evaluated for part in self.passes)

    @property
    def answered(self) -> int:
        return sum(part.answered for part in self.passes)

    @property
    def infeasible(self) -> int:
        return sum(part.infeasible for part in self.passes)

    @property
    def duplicates(self) -> int:
        return sum(part.duplicates for part in self.passes)

    @property
    def seconds(self) -> float:
        return sum(part.seconds for part in self.passes)


def one_by_one(evaluate: Callable[[Asked], Found]) -> Callable[[Sequence[Asked]], Iterable[Found]]:
    """An evaluator of generations from one of single architectures."""
    return lambda architectures: (evaluate(architecture) for architecture in architectures)


def search(
    space: SearchSpace,
    evaluate: Evaluate,
    budgets: Sequence[Budget],
    strategy: str,
    evaluations: int | None,
    seed: int,
    cost_of: CostOf,
    known: Callable[[Architecture], Measurement | None],
    commit: Callable[[Measurement, Predictions | None], object],
    progress: Progress | None = None,
    generation: int = 8,
    objectives: Sequence[str] = (),
    early: EarlyStop | None = None,
) -> SearchResult:
    """Searches a space under each budget (`Budget()`: no limit).

    `objectives`: costs, by the names of their limits. With them there is one pass, which looks for the front of quality and these costs
    within the widest of the limits that all budgets have.

    `evaluate` takes the architectures of a generation that nobody knows yet and yields measurement and predictions of each, in any
    order; every one is committed as it arrives, and told to the strategy in the order of asking. `known` answers from the archive.
    `evaluations`: distinct architectures measured or answered per pass (None: the strategy's own number), so that a search that was
    interrupted and is run again goes the same way and ends with the same measurements. `progress` hears (done, total).

    `early`: what has no hope to become a winner is not evaluated to the end (`search.stopping`); `early.evaluate` then takes the place of
    `evaluate`. The incumbents are those at the beginning of a generation, so that the order of arrival does not matter.
    Raises UserError for an unknown strategy or objective, a space that it can't search, and a budget that no architecture meets.
    """
    if evaluations is not None and evaluations < 1:
        raise UserError(f"search.evaluations: {evaluations} is too few; at least 1")
    size = space.size()
    strategy = resolve(strategy, size, evaluations)
    chosen = entry(strategy)
    budgets = budgets or [Budget()]
    for budget in budgets:
        refuse_impossible(space, budget, cost_of)
    refuse_unknown(objectives, space, cost_of)
    groups = [(budget,) for budget in budgets] if chosen.reads_budget and not objectives else [tuple(budgets)]
    memory: dict[Architecture, Measurement] = {}

    def recall(architecture: Architecture) -> Measurement | None:
        return memory.get(architecture) or known(architecture)

    def keep(measurement: Measurement, predictions: Predictions | None) -> None:
        memory[measurement.architecture] = measurement
        commit(measurement, predictions)

    wanted = min(evaluations or chosen.evaluations or size, size)
    incumbents = Incumbents(early, budgets, cost_of, wanted, seed) if early else None
    done = _Done(progress, wanted * len(groups))
    passes = []
    for place, group in enumerate(groups):
        limits = (widest(group),) if objectives else group
        problem = Problem(space, limits[0], cost_of, seed, wanted, tuple(objectives))
        runner = _Runner(chosen, strategy, problem, group, limits, evaluate, recall, keep, generation, done, incumbents)
        passes.append(runner.run())
        done.at(wanted * (place + 1))
    return SearchResult(tuple(passes))


@dataclass
class _Done:
    """Counts towards `total` and says so."""

    progress: Progress | None
    total: int
    value: int = 0

    def add(self, count: int = 1) -> None:
        self.at(min(self.value + count, self.total))

    def at(self, value: int) -> None:
        self.value = value
        if self.progress:
            self.progress(value, self.total)


@dataclass
class _Runner:
    """One pass. An architecture is measured where it meets one of `limits`."""

    entry: Entry
    name: str
    problem: Problem
    budgets: tuple[Budget, ...]
    limits: tuple[Budget, ...]
    evaluate: Evaluate
    recall: Callable[[Architecture], Measurement | None]
    keep: Callable[[Measurement, Predictions | None], None]
    generation: int
    done: _Done
    incumbents: Incumbents | None = None
    hopeless: list[Stopped] = field(default_factory=list)
    measurements: list[Measurement] = field(default_factory=list)
    evaluated: int = 0
    infeasible: int = 0
    in_vain: int = 0

    def run(self) -> Pass:
        started = time.monotonic()
        strategy = self.entry.make(self.problem)
        try:
            stopped = self._until_the_end(strategy)
        finally:
            strategy.close()
        return Pass(
            budgets=self.budgets,
            strategy=self.name,
            measurements=tuple(self.measurements),
            evaluated=self.evaluated,
            answered=self._told - self.evaluated,
            infeasible=self.infeasible,
            duplicates=strategy.duplicates,
            seconds=time.monotonic() - started,
            stopped=stopped,
            hopeless=tuple(self.hopeless),
        )

    def _until_the_end(self, strategy: Strategy) -> str:
        """Asks and tells. Returns why fewer were measured than asked for, nothing where all were."""
        while (left := self._wanted - self._told) > 0:
            asked = strategy.ask(min(self.generation, left))
            self._answer(strategy, asked)
            if not asked:
                return "every architecture was proposed"
            if self.entry.reads_budget and self.in_vain >= PATIENCE:
                return f"{self.in_vain} proposals in a row exceeded the budget"
        return ""

    @property
    def _wanted(self) -> int:
        return self.problem.evaluations or 0

    @property
    def _told(self) -> int:
        return len(self.measurements) + len(self.hopeless)

    def _answer(self, strategy: Strategy, asked: Sequence[Architecture]) -> None:
        """Answers a generation in the order of asking. Costs first: what exceeds the budget never meets the evaluator."""
        costs = {architecture: self.problem.cost_of(architecture) for architecture in asked}
        fitting = [a for a in asked if any(limits.met_by(costs[a]) for limits in self.limits)]
        answers = {a: self._recalled(a) for a in fitting}
        unknown = [a for a in fitting if answers[a] is None]
        arriving = self._arriving(unknown, self._evaluations(unknown), costs)
        for architecture in asked:
            violations = self.problem.budget.violations(costs[architecture])
            if architecture not in answers:
                self._reject(strategy, architecture, violations)
                continue
            while (answer := answers[architecture]) is None:
                arrived = next(arriving, None)
                if arrived is None:
                    raise ValueError(f"the evaluator answered with nothing for {architecture}")
                answers[arrived.architecture] = arrived
            self.in_vain = 0
            self.done.add()
            strategy.tell(architecture, self._noted(answer), violations)

    def _noted(self, answer: Measurement | Stopped) -> float:
        """What the strategy hears of it."""
        if isinstance(answer, Stopped):
            self.hopeless.append(answer)
            return answer.estimate
        self.measurements.append(answer)
        if self.incumbents:
            self.incumbents.told(answer)
        return answer.quality

    def _recalled(self, architecture: Architecture) -> Measurement | Stopped | None:
        """What is known of it. A stop that holds comes first: other parts of a run may have measured it since."""
        return (self.incumbents and self.incumbents.known(architecture)) or self.recall(architecture)

    def _evaluations(self, unknown: Sequence[Architecture]) -> Iterable[Evaluated | Stopped]:
        if not unknown:
            return ()
        if self.incumbents:
            return self.incumbents.early.evaluate([self.incumbents.race(architecture) for architecture in unknown])
        return self.evaluate(unknown)

    def _arriving(
        self, unknown: Sequence[Architecture], found: Iterable[Evaluated | Stopped], costs: dict[Architecture, Costs]
    ) -> Iterator[Measurement | Stopped]:
        """What the evaluator makes of them, committed, as it arrives."""
        left = set(unknown)
        for one in found:
            answer = one if isinstance(one, Stopped) else one[0]
            architecture = answer.architecture
            if architecture not in left:
                raise ValueError(f"the evaluator answered with {architecture}, which was not asked for, or was answered before")
            left.remove(architecture)
            if isinstance(one, Stopped):
                if self.incumbents is None:
                    raise ValueError(f"the evaluator stopped {architecture}, but this search does not stop early")
                self.incumbents.stop(one)
            else:
                measurement, predictions = one
                used, known = measurement.costs, costs[architecture]
                if used.flops != known.flops or used.parameters != known.parameters:
                    raise ValueError(f"{architecture}: measured with costs {used}, searched with {known}")
                self.keep(measurement, predictions)
            self.evaluated += 1
            yield answer

    def _reject(self, strategy: Strategy, architecture: Architecture, violations: dict[str, float]) -> None:
        self.infeasible += 1
        self.in_vain += 1
        if not self.entry.reads_budget:
            self.done.add()
        strategy.tell(architecture, None, violations)
