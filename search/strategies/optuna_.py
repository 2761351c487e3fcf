"""Optuna's TPE, Gaussian process and NSGA-II behind the interface of a strategy.

The study lives in memory: a run that goes on is told the same answers again, from the archive, and so stands where it stood. Every
trial gets a fresh sampler seeded from (seed, trial number), so that a proposal depends on the trials before it alone.
"""

from __future__ import annotations

import math
import random
from abc import abstractmethod
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, TPESampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial

from methods.space import Architecture, Choice, Value
from search.strategies.strategy import Problem, Strategy, seed_of, unseen

Parameters = dict[str, Value]
Told = tuple[float | None, Mapping[str, float]]


class OptunaStrategy(Strategy):
    """Asks a study for assignments, decodes them, and answers by itself those that decode to an architecture proposed before.

    Anchors come first. After `repeats` repeats in a row a random architecture that was not seen yet takes the next turn. Quality is
    maximised, `objectives` are the costs to be minimised beside it.
    """

    repeats = 50

    def __init__(self, problem: Problem) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.problem = replace(problem, objectives=self.objectives(problem))
        self._space = problem.space
        self._size = problem.space.size()
        self.distributions = {choice.name: _distribution(choice) for choice in self._space.choices}
        directions = [StudyDirection.MAXIMIZE, *([StudyDirection.MINIMIZE] * len(self.problem.objectives))]
        self.study = optuna.create_study(directions=directions)
        self._told: dict[Architecture, Told] = {}
        self._waiting: dict[Architecture, list[optuna.Trial]] = {}
        self._trials = 0
        self._worst: float | None = None
        self._given = deque(self._parameters(anchor) for anchor in problem.anchors())

    @abstractmethod
    def sampler(self, seed: int) -> BaseSampler:
        """A fresh sampler."""

    def objectives(self, problem: Problem) -> tuple[str, ...]:
        """The costs that are minimised."""
        return problem.objectives

    def trial(self, seed: int, given: Parameters | None) -> optuna.Trial:
        """A new trial of the study, from a fresh sampler: with the given parameters, else with those that the sampler proposes."""
        if given is not None:
            self.study.enqueue_trial(given)
        self.study.sampler = self.sampler(seed)
        return self.study.ask(self.distributions)

    def ask(self, count: int) -> list[Architecture]:
        asked: list[Architecture] = []
        repeats = 0
        while len(asked) < count and len(self._told) + len(self._waiting) < self._size:
            if repeats >= self.repeats and not self._leap():
                break
            trial, architecture = self._next()
            if architecture in self._told:
                self._finish(trial, architecture)
            elif architecture in self._waiting:
                self._waiting[architecture].append(trial)
            else:
                self._waiting[architecture] = [trial]
                asked.append(architecture)
                repeats = 0
                continue
            self.duplicates += 1
            repeats += 1
        return asked

    def tell(self, architecture: Architecture, score: float | None, violations: Mapping[str, float]) -> None:
        if score is not None and not math.isfinite(score):
            score = None
        if score is not None:
            self._worst = score if self._worst is None else min(self._worst, score)
        self._told[architecture] = (score, dict(violations))
        for trial in self._waiting.pop(architecture):
            self._finish(trial, architecture)

    def _next(self) -> tuple[optuna.Trial, Architecture]:
        given = self._given.popleft() if self._given else None
        trial = self.trial(seed_of("optuna", self.problem.seed, self._trials), given)
        self._trials += 1
        return trial, self.decoded(trial.params)

    def decoded(self, values: Mapping[str, Any]) -> Architecture:
        """The architecture of a trial's parameters."""
        return self._space.decode({c.name: c.values[values[c.name]] if c.ordered else values[c.name] for c in self._space.choices})

    def finish(self, trial: optuna.Trial, values: tuple[float, ...], violations: Mapping[str, float]) -> None:
        """Tells the study of a trial."""
        for name, violation in violations.items():
            trial.set_constraint(name, violation)
        self.study.tell(trial, values)

    def _finish(self, trial: optuna.Trial, architecture: Architecture) -> None:
        score, violations = self._told[architecture]
        worst = 0.0 if self._worst is None else self._worst  # Samplers rank what exceeds a limit by its violations, not by this.
        self.finish(trial, (worst if score is None else score, *self.problem.prices(architecture)), violations)

    def _leap(self) -> bool:
        seen = self._told.keys() | self._waiting.keys()
        architecture = unseen(self._space, self._size, seen, random.Random(seed_of("leap", self.problem.seed, self._trials)))
        if architecture is not None:
            self._given.append(self._parameters(architecture))
        return architecture is not None

    def _parameters(self, architecture: Architecture) -> Parameters:
        values = self._space.encode(architecture)
        return {c.name: c.values.index(values[c.name]) if c.ordered else values[c.name] for c in self._space.choices}


class Tpe(OptunaStrategy):
    """Tree-structured Parzen estimator, under the constraints."""

    def sampler(self, seed: int) -> BaseSampler:
        return TPESampler(seed=seed)


class Gp(OptunaStrategy):
    """Gaussian processes of quality, costs and constraints, and expected improvement: for few and dear evaluations, since a proposal takes
    seconds after some hundred of them."""

    repeats = 1  # Of a model that is sure of what it proposes; another fit would say the same.

    def sampler(self, seed: int) -> BaseSampler:
        return GPSampler(seed=seed, n_startup_trials=min(10, max(2, (self.problem.evaluations or 100) // 5)))


class Nsga2(OptunaStrategy):
    """NSGA-II, always on quality and costs: where no cost is an objective, on FLOPs if they are limited or nothing is, else on the first
    limited cost."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self._population = min(50, max(8, (problem.evaluations or 400) // 8))

    def objectives(self, problem: Problem) -> tuple[str, ...]:
        limits = list(problem.budget.limits())
        return problem.objectives or ("max_flops" if "max_flops" in limits or not limits else limits[0],)

    def sampler(self, seed: int) -> _Giving:
        return _Giving(self._population, seed)

    def trial(self, seed: int, given: Parameters | None) -> optuna.Trial:
        self.study.sampler = sampler = self.sampler(seed)
        sampler.given = given
        return self.study.ask(self.distributions)


class _Giving(NSGAIISampler):
    """NSGA-II whose next trial may be given; enqueued in the study it would belong to no generation and never be a parent."""

    def __init__(self, population: int, seed: int) -> None:
        super().__init__(population_size=population, seed=seed)
        self.given: Parameters | None = None

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]) -> dict[str, Any]:
        sampled = super().sample_relative(study, trial, search_space)
        given = self.given
        return sampled if given is None else {name: given[name] for name in search_space}

    def sample_independent(self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution) -> Any:
        if self.given is not None:
            return self.given[param_name]
        return super().sample_independent(study, trial, param_name, param_distribution)


def _distribution(choice: Choice) -> BaseDistribution:
    return IntDistribution(0, len(choice.values) - 1) if choice.ordered else CategoricalDistribution(choice.values)
