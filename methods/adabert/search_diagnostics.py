"""The diagnostics that a search can know by itself: D1, D2, D5, D6, D8, D10 and D12, each with its alarm."""

from __future__ import annotations

from statistics import fmean, median
from typing import Any

from methods.adabert.alpha_log import log_row
from methods.adabert.measures import derived, parameter_free_edges
from methods.adabert.search_step import SearchStep

Diagnostic = dict[str, Any]
Rows = list[dict[str, float]]


def diagnostic(value: Any, alarm: bool, why: str) -> Diagnostic:
    """`why` says what the value is, and where there is alarm what that means."""
    return {"value": value, "alarm": alarm, "why": why}


def undecided(rows: Rows, total: int) -> Diagnostic:
    """D1: above .95 at the end, or below .2 before 30 % of the search."""
    last = rows[-1]
    edges = fmean(value for name, value in last.items() if name.startswith("entropy.node"))
    value = {"edges": edges, "K": last["entropy.K"]}
    early = [row for row in rows if row["step"] < 0.3 * total]
    choices = [name for name in last if name.startswith("entropy.") and (name != "entropy.K" or "K=2" in last)]
    premature = [name[8:] for name in choices if any(row[name] < 0.2 for row in early)]
    if edges > 0.95 or last["entropy.K"] > 0.95:
        open_ = " and ".join(name for name, found in (("operations", edges), ("depth", last["entropy.K"])) if found > 0.95)
        return diagnostic(value, True, f"normalised entropy at the end is above 0.95: {open_} undecided")
    if premature:
        return diagnostic(value, True, f"decided before 30 % of the search: {', '.join(premature)}")
    return diagnostic(value, False, "normalised entropy at the end (mean of the edges, depth)")


def collapsed(free: int, kept: int) -> Diagnostic:
    """D2: half of the kept edges or more without a parameter."""
    share = free / kept
    why = f"{free} of {kept} kept edges have no parameter"
    return diagnostic(share, share >= 0.5, why + (": the search has collapsed" if share == 1 else ""))


def curvature(values: list[float], fired: int) -> Diagnostic:
    """D5: the rule of DARTS-ES fired."""
    why = "largest eigenvalue of the held-out loss's Hessian at each evaluation"
    return diagnostic(values, fired > 0, f"{why}; its growth ended the search or sent it back {fired} times" if fired else why)


def loss_shares(measured: Rows) -> Diagnostic:
    """D6: the efficiency term above .8 or below .02 of the gradient norms."""
    names = [name for name in (measured[0] if measured else {}) if name not in ("step", "cells", "cosine")]
    value = {name: fmean(row[name] for row in measured) for name in names}
    wrong = [
        f"{value[name]:.3f} of that of {name[11:]}" for name in names if name.startswith("efficiency.") and not 0.02 <= value[name] <= 0.8
    ]
    why = "mean share of each loss term in the gradient norms of edges and depth"
    return diagnostic(value, bool(wrong), f"the efficiency term's share of the gradient is {' and '.join(wrong)}" if wrong else why)


def drift(first: dict[str, float], last: dict[str, float]) -> Diagnostic:
    """D8: no logit of an operation, or none of the depth, moved by .2 nats; `max` and `median` are those of the edges."""
    moved = {of: [abs(last[name] - first[name]) for name in last if name.startswith(of)] for of in ("node", "K=")}
    value = {"max": max(moved["node"]), "median": median(moved["node"]), "K": max(moved["K="])}
    still = [of for of, far in (("operations", value["max"]), ("depth", value["K"])) if far < 0.2 and (of != "depth" or "K=2" in last)]
    why = "drift of the architecture parameters from their start, in nats"
    return diagnostic(value, bool(still), f"{why}: the selection of {' and '.join(still)} is noise" if still else why)


def starved(drawn: list[float], cells: int) -> Diagnostic:
    """D10: a cell that the derived network has got a loss less than half as often as the deepest one of a uniform draw would."""
    total = sum(drawn) or 1.0
    reached = [sum(drawn[k:]) / total for k in range(len(drawn))]
    poor = [str(k + 1) for k in range(cells) if reached[k] < 0.5 / len(drawn)]
    value = {"drawn": drawn, "reached": reached}
    return diagnostic(
        value, bool(poor), f"starved: cell {', '.join(poor)}" if poor else "draws of each K, and share of losses that reached each cell"
    )


def agreement(measured: Rows) -> Diagnostic:
    """D12: cells pull the shared edges apart; draws of a single cell say nothing of it."""
    late = [row["cosine"] for row in measured[len(measured) // 2 :] if row["cells"] > 1]
    value = fmean(late) if late else None
    alarm = value is not None and value < -0.3
    why = "mean cosine between the cells' gradients on the shared edges, second half of the search"
    return diagnostic(value, alarm, why + (": they disagree, the late cells decide" if alarm else ""))


def search_diagnostics(step: SearchStep, rows: Rows, measured: Rows, eigenvalues: list[float] | None, fired: int) -> dict[str, Diagnostic]:
    """All of them, by name; `rows` as in `alpha.csv`, the first one from before the search."""
    last, architecture = log_row(step), derived(step.model)
    kept = sum(len(node) for node in architecture.choices["nodes"])
    found = {
        "D1": undecided([*rows, last], step.total),
        "D2": collapsed(parameter_free_edges(architecture), kept),
        "D6": loss_shares(measured),
        "D8": drift(rows[0], last),
        "D10": starved(step.drawn, architecture.choices["K"]),
        "D12": agreement(measured),
    }
    return found if eigenvalues is None else {**found, "D5": curvature(eigenvalues, fired)}
