"""Measurements for queries, and the answer to one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from methods.budget import Budget
from methods.costs import Costs
from methods.space import Architecture
from search.measurement import Kind, Measurement
from search.query import Answer, best


def made(width: int, quality: float = 0.5, kind: Kind = "shared", seed: int = 0, **changes: Any) -> Measurement:
    """A measurement of architecture `width`, which costs 10 w + 100 parameters and 1000 w FLOPs unless told."""
    facts: dict[str, Any] = {"costs": Costs(100, 10 * width, 1000 * width), "split": "search", "weights_digest": f"w{seed}", **changes}
    method = facts.pop("method", "toy")
    return Measurement(
        Architecture.of(method, {"width": width}),
        facts.pop("task", "sst2"),
        split_digest=facts["split"],
        kind=kind,
        seed=seed,
        metric="accuracy",
        metrics={"accuracy": quality, "f1": quality / 2},
        **facts,
    )


def answer(found: Sequence[Measurement], budget: Budget, **only: str) -> Answer:
    result = best(found, budget, **only)
    assert isinstance(result, Answer)
    return result
