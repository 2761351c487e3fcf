"""Ray Tune's `OptunaSearch` behind the interface of a strategy, asked and told as Tune does it."""

from __future__ import annotations

import logging
import warnings
from typing import Any, cast

import optuna
from optuna.distributions import CategoricalDistribution, IntDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.study import Study
from ray.tune.search.optuna import OptunaSearch

from search.strategies.optuna_ import OptunaStrategy, Parameters
from search.strategies.strategy import Problem, seed_of

QUALITY = "quality"


class OptunaSearchStrategy(OptunaStrategy):
    """Tune's default, the Parzen estimator, over a function that draws a trial's parameters and sets the named constraints: costs are exact
    and known before anything is evaluated."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        logging.getLogger("ray.tune.search.optuna.optuna_search").setLevel(logging.ERROR)
        self._metrics = [QUALITY, *self.problem.objectives]
        modes = ["max", *["min"] * len(self.problem.objectives)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._searcher = OptunaSearch(self._draw, metric=self._metrics, mode=modes, sampler=self.sampler(seed_of(problem.seed)))
        self.study = cast(Study, self._searcher._ot_study)
        self._names: dict[int, str] = {}

    def sampler(self, seed: int) -> BaseSampler:
        return TPESampler(seed=seed)

    def trial(self, seed: int, given: Parameters | None) -> optuna.Trial:
        if given is not None:
            self.study.enqueue_trial(given)
        self.study.sampler = self.sampler(seed)
        name = f"trial {self._trials}"
        self._searcher.suggest(name)
        trial: optuna.Trial = self._searcher._ot_trials[name]
        self._names[trial.number] = name
        return trial

    def finish(self, trial: optuna.Trial, values: tuple[float, ...], violations: Any) -> None:  # noqa: ARG002 (set when it was drawn)
        self._searcher.on_trial_complete(self._names.pop(trial.number), dict(zip(self._metrics, values, strict=True)))

    def _draw(self, trial: Any) -> dict[str, Any]:
        """Tune's search space, defined by running it."""
        for name, distribution in self.distributions.items():
            if isinstance(distribution, IntDistribution):
                trial.suggest_int(name, distribution.low, distribution.high)
            elif isinstance(distribution, CategoricalDistribution):
                trial.suggest_categorical(name, distribution.choices)
        for name, violation in self.problem.budget.violations(self.problem.cost_of(self.decoded(trial.params))).items():
            trial.set_constraint(name, violation)
        return {}
