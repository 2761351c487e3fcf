"""`query`: the best sub-network of a run under a budget."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from methods.budget import Budget, format_quantity, parse_quantity
from search.archive import Archive
from search.query import Answer, NothingFits, best
from workbench.folder import RunFolder

Quantity = float | int | str | None


def query(
    run: Path | str,
    max_params: Quantity = None,
    max_params_non_embedding: Quantity = None,
    max_flops: Quantity = None,
    method: str | None = None,
    task: str | None = None,
) -> Answer | NothingFits:
    """The architecture that `search.query.best` puts first in the run's archive; limits as numbers or as text such as `8M`."""
    folder = RunFolder(run)
    folder.require()
    given = {"max_params": max_params, "max_params_non_embedding": max_params_non_embedding, "max_flops": max_flops}
    limits: dict[str, Any] = {name: parse_quantity(value, name) for name, value in given.items() if value is not None}
    with Archive(folder.archive, create=False) as archive:
        return best(archive, Budget(**limits), method, task)


def render(answer: Answer | NothingFits, form: str = "table") -> str:
    """The answer as text (`table`) or as JSON."""
    if form == "json":
        return json.dumps(answer.to_dict(), indent=1)
    return answer.message() if isinstance(answer, NothingFits) else _text(answer)


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
        *[(f"left of {name}", format_quantity(value)) for name, value in a.slack.items()],
    ]
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{name:{width}}  {text}" for name, text in lines)


def _metrics(metrics: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
