"""Measurements by number."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from methods.costs import Costs
from methods.space import Architecture
from search.measurement import Measurement
from search.predictions import Predictions

BASE = Measurement(
    Architecture.of("toy", {"width": 0}), "sst2", "search", "s", "w", "shared", 0, "accuracy", {"accuracy": 0.5}, Costs(10, 20, 300)
)


def numbered(i: int, **changes: Any) -> Measurement:
    architecture = Architecture.of(changes.pop("method", "toy"), {"width": i})
    return replace(BASE, architecture=architecture, metrics={"accuracy": i / 1000}, **changes)


def predictions(value: float, n: int = 4) -> Predictions:
    return Predictions(np.arange(n) + 100, np.full((n, 2), value, dtype=np.float32), np.arange(n) % 2)
