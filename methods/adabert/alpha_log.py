"""The log of a search, `alpha.csv`: how architecture parameters, losses and expected costs went."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import torch

from methods.adabert.measures import derived, normalised_entropies, parameter_free_edges
from methods.adabert.search_step import SearchStep
from methods.training.checkpoint import write_atomically

ALPHA = "alpha.csv"
ROWS = 200
"""About so many rows are kept of a search, however long it is."""


@torch.no_grad()
def log_row(step: SearchStep) -> dict[str, float]:
    """Columns: step, tau; weighted losses; `dual` (of the budget form); expected `K`, `params` and `flops` (at the limits' length, else at
    128); of the derived network `derived.K` and `derived.parameter_free`; `entropy.K` and `entropy.<edge>` (normalised);
    logits `K=<k>` and `<edge>.<operation>`, an edge being `node<n>.<source>`."""
    supernet, probabilities = step.model.supernet, step.model.probabilities()
    space, logits = supernet.space, step.model.decided()
    limits = step.options.loss.limits
    expected = supernet.expected_costs(probabilities, limits.length if limits else 128)
    of_edges, of_depth = normalised_entropies(probabilities)
    names = [f"node{node}.{source}" for node, source in space.edges]
    depths = range(1, len(logits.depth) + 1)
    now = derived(step.model)
    row = {"step": float(step.step), "tau": step.temperature, **step.last, "dual": step.efficiency.dual}
    row["K"] = sum(k * p for k, p in zip(depths, probabilities.depth.tolist(), strict=True))
    row |= {"params": float(expected.parameters), "flops": float(expected.flops)}
    row |= {"derived.K": float(now.choices["K"]), "derived.parameter_free": float(parameter_free_edges(now)), "entropy.K": of_depth}
    row |= {f"entropy.{name}": value for name, value in zip(names, of_edges, strict=True)}
    row |= {f"K={k}": value for k, value in zip(depths, logits.depth.tolist(), strict=True)}
    for name, values in zip(names, logits.edges.tolist(), strict=True):
        row |= {f"{name}.{operation}": value for operation, value in zip(space.columns, values, strict=True)}
    return row


def write_rows(path: Path, rows: list[dict[str, float]]) -> None:
    """Rows of equal or growing columns as a CSV file."""
    text = io.StringIO()
    columns = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue())
