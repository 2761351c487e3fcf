"""`query`: the best sub-network of a run under a budget."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from methods.budget import Budget, parse_quantity, parse_seconds
from methods.errors import UserError
from search.archive import Archive
from search.query import Answer, NothingFits, best
from workbench.folder import RunFolder
from workbench.predicting import Front, NonePredicted, Predicted, amount, predicted, predicted_front

Quantity = float | int | str | None


def query(
    run: Path | str,
    max_params: Quantity = None,
    max_params_non_embedding: Quantity = None,
    max_flops: Quantity = None,
    method: str | None = None,
    task: str | None = None,
    *,
    max_latency: Mapping[str, float | str] | None = None,
    by: Literal["predicted"] | None = None,
    seed: int | None = None,
) -> Answer | NothingFits | Predicted | NonePredicted:
    """The best architecture under limits given as numbers or as text such as `8M`; `max_latency`: {device: seconds, or text such as 12ms}.

    Without `by`: the one that `search.query.best` puts first in the run's archive. `predicted`: the one that the tables of a method
    trained on a corpus put first, under any limits, from the tables alone (`workbench.predicting`); `seed`: its supernet's.
    Raises UserError.
    """
    folder = RunFolder(run)
    folder.require()
    given = {"max_params": max_params, "max_params_non_embedding": max_params_non_embedding, "max_flops": max_flops}
    limits: dict[str, Any] = {name: parse_quantity(value, name) for name, value in given.items() if value is not None}
    budget = Budget(
        **limits, max_latency={device: parse_seconds(value, f"max_latency.{device}") for device, value in (max_latency or {}).items()}
    )
    if by == "predicted":
        return predicted(folder, budget, method, task, seed)
    if seed is not None:
        raise UserError("--seed: goes with --by predicted; without it all seeds count")
    with Archive(folder.archive, create=False) as archive:
        measured = archive.measurements(method=method)
    corpus = folder.experiment().corpus
    if corpus is not None and task is None:
        measured = [m for m in measured if m.task != corpus.name]
    return best(measured, budget, method, task)


def front(run: Path | str, cost: str = "max_flops", method: str | None = None, task: str | None = None, seed: int | None = None) -> Front:
    """The whole Pareto front of predicted loss and one cost (the name of its limit), from the tables alone. Raises UserError."""
    folder = RunFolder(run)
    folder.require()
    return predicted_front(folder, cost, method, task, seed)


def render(answer: Answer | NothingFits | Predicted | NonePredicted | Front, form: str = "table") -> str:
    """The answer as text (`table`) or as JSON."""
    if form == "json":
        return json.dumps(answer.to_dict(), indent=1)
    return _text(answer) if isinstance(answer, Answer) else answer.message()


def _text(answer: Answer) -> str:
    costs, a = answer.costs, answer
    seeds = ", ".join(map(str, a.seeds))
    lines = [
        ("architecture", a.architecture.id),
        ("method", f"{a.architecture.method}, task {a.task}"),
        ("choices", a.architecture.canonical),
        ("on search", f"{_metrics(a.metrics)} ({a.kind}; seed{'s' * (len(a.seeds) > 1)} {seeds}; chosen by {a.metric})"),
        ("on validation", f"{_metrics(a.validation)} ({a.validation_kind})" if a.validation else "not measured"),
        (
            "parameters",
            f"{costs.parameters:,} = {costs.embedding_parameters:,} in embedding tables + {costs.other_parameters:,} other",
        ),
        ("FLOPs", f"{costs.flops:,} ({costs.batch} x {costs.length} tokens)"),
        *[(f"left of {name}", amount(name, value)) for name, value in a.slack.items()],
    ]
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{name:{width}}  {text}" for name, text in lines)


def _metrics(metrics: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
