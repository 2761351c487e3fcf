"""The predictor's model: Bayesian ridge regression (MacKay 1992) on encoded choices and costs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from methods.space import Architecture
from search.strategies.strategy import Problem

INDICATOR = 0.2
"""The weight of a value's indicator beside the place of an ordered choice: from little data a line is learnt, from more any curve."""
Floats = npt.NDArray[np.float64]


class Encoder:
    """Architectures as rows: an indicator of each value of each choice, the place of ordered choices, and parameters and FLOPs."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._choices = problem.space.choices
        self._places = [{value: i for i, value in enumerate(choice.values)} for choice in self._choices]
        sizes = [len(choice.values) for choice in self._choices]
        self._starts = np.cumsum([0, *sizes[:-1]])
        self._width = sum(sizes)
        self._ordered = np.flatnonzero([choice.ordered for choice in self._choices])
        indicators = [INDICATOR if choice.ordered else 1.0 for choice in self._choices]
        self.weights = np.concatenate([np.repeat(indicators, sizes), np.ones(len(self._ordered) + 2)])

    def __call__(self, architectures: Sequence[Architecture]) -> Floats:
        """Shape (architectures, features)."""
        assignments = [self._problem.space.encode(architecture) for architecture in architectures]
        named = list(zip(self._choices, self._places, strict=True))
        places = np.array([[known[assignment[choice.name]] for choice, known in named] for assignment in assignments])
        indicators = np.zeros((len(places), self._width))
        np.put_along_axis(indicators, places + self._starts, 1.0, axis=1)
        costs = [self._problem.cost_of(architecture) for architecture in architectures]
        sizes = np.array([(c.parameters, c.flops) for c in costs], dtype=float)
        return np.hstack([indicators, places[:, self._ordered], sizes])


class Surrogate:
    """Fitted once. Columns are standardised, so that no unit matters (one that never varied says nothing), and weighed."""

    def __init__(self, rows: Floats, scores: Floats, weights: Floats) -> None:
        from sklearn.linear_model import BayesianRidge
        from sklearn.preprocessing import StandardScaler

        self._columns, self._weights = StandardScaler().fit(rows), weights
        self._mean, self._scale = scores.mean(), scores.std() or 1.0
        self._model = BayesianRidge().fit(self._standard(rows), (scores - self._mean) / self._scale)

    def predict(self, rows: Floats) -> tuple[Floats, Floats]:
        """Mean and standard deviation of the score of each row."""
        mean, deviation = self._model.predict(self._standard(rows), return_std=True)
        return mean * self._scale + self._mean, deviation * self._scale

    def _standard(self, rows: Floats) -> Floats:
        standard: Floats = self._columns.transform(rows) * self._weights
        return standard
