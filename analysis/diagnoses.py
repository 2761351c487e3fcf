"""Diagnostics of searches (AdaBERT's D1 to D13): those that a search left in its folder, and those that only the archive can tell."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from analysis.controls import FLOORS, RANDOM, costliest_within, measured_controls, random_in_window
from analysis.selection_rows import row_name, scores, ways
from analysis.winners import winners
from methods.errors import UserError

if TYPE_CHECKING:
    from analysis.runs import Run
    from methods.adabert.diagnostics import Diagnostic
    from methods.budget import Budget

FILE = "diagnostics.json"
_FEWEST = 2
"""Fewer networks have no order."""


@dataclass(frozen=True)
class Diagnosis:
    """`name`: D1 to D13; `value`: a number, several by name, or None where there is too little to say; `why`: what it rests on, and where
    there is `alarm` what that means. `seed`: None where it is of all seeds; `budget`, `row`: empty where it is of no single one."""

    run: str
    task: str
    method: str
    name: str
    value: Any
    alarm: bool
    why: str
    seed: int | None = None
    budget: str = ""
    row: str = ""

    @property
    def of(self) -> str:
        """What it speaks of, in words."""
        seed = "" if self.seed is None else f"seed {self.seed}"
        return ", ".join(part for part in (self.task, self.budget, self.row or self.method, seed) if part)

    def data(self) -> dict[str, Any]:
        """Plain JSON data."""
        return asdict(self)


def alarms(diagnoses: Iterable[Diagnosis], named: bool) -> list[str]:
    """One line for each supernet, method or row that has any; D11 is a sentence of its budget already. `named`: with the run's name."""
    lines: dict[str, list[str]] = {}
    for d in diagnoses:
        if d.alarm and d.name != "D11":
            lines.setdefault(f"{d.run}, {d.of}" if named else d.of, []).append(f"{d.name}, {d.why}")
    return [f"Alarms of {head}: {'; '.join(parts)}." for head, parts in lines.items()]


def diagnoses(run: Run) -> list[Diagnosis]:
    """Of every method that left diagnostics of its searches; seed by seed, then of all seeds, then budget by budget."""
    found: list[Diagnosis] = []
    for task in run.tasks:
        for method in run.methods(task):
            left = {seed: _left(run.path / task / method / f"seed-{seed}") for seed in run.seeds(task, method)}
            if any(left.values()):
                found += _of_method(run, task, method, left)
    return found


def _of_method(run: Run, task: str, method: str, left: Mapping[int, dict[str, dict[str, Any]]]) -> Iterator[Diagnosis]:
    for seed, own in left.items():
        known = own | {d.name: d.to_dict() for d in _of_seed(run, task, method, seed, own)}
        for name in sorted(known, key=lambda name: int(name[1:])):
            yield Diagnosis(run.name, task, method, name, known[name]["value"], known[name]["alarm"], known[name]["why"], seed)
    agreement = _agreement(run, task, method)
    if agreement is not None:
        yield _made(run, task, method, agreement)
    for budget in run.budgets:
        for by in ways(run, task, method):
            yield replace(_made(run, task, method, against_random(run, task, method, budget, by), budget), row=row_name(method, by))
        floors = _against_floors(run, task, method, budget)
        if floors is not None:
            yield _made(run, task, method, floors, budget)


def _made(run: Run, task: str, method: str, d: Diagnostic, budget: Budget | None = None) -> Diagnosis:
    return Diagnosis(run.name, task, method, **{"name": d.name, **d.to_dict()}, budget=budget.label() if budget else "")


def _left(folder: Path) -> dict[str, dict[str, Any]]:
    """What the stages of one supernet left, by name. Raises UserError where a file is damaged."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob(f"*/{FILE}")):
        try:
            entries = {name: entry for name, entry in json.loads(path.read_text()).items() if isinstance(entry, dict)}
            for name, entry in entries.items():
                which = f"D{int(name.removeprefix('D'))}"
                found[which] = {"value": entry["value"], "alarm": bool(entry["alarm"]), "why": str(entry["why"])}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path}: damaged ({error}); it can be removed, tables lack these diagnostics then") from error
    return found


def _of_seed(run: Run, task: str, method: str, seed: int, known: Mapping[str, dict[str, Any]]) -> Iterator[Diagnostic]:
    """D3 with the finished network, where what was derived without a budget was finished; D4."""
    from methods.adabert.diagnostics import Diagnostic, discretisation_gap, rank_agreement

    derived = _derived(run, task, method).get(seed)
    finished = None if derived is None else run.finished(task, derived.id, seed, "search")
    if finished is not None and "D3" in known:
        yield discretisation_gap(known["D3"]["value"]["sampled"], known["D3"]["value"]["derived"], finished.quality)
    mine = [m for m in run.measurements if (m.task, m.architecture.method, m.seed) == (task, method, seed)]
    shared = [m for m in mine if (m.kind, m.split) == ("shared", "search")]
    of_supernet = {m.architecture: m.quality for m in shared if m.weights_digest == shared[-1].weights_digest}
    controls = [m for m in measured_controls(run, task, RANDOM, method=method) if m.seed == seed and m.architecture in of_supernet]
    if len(controls) < _FEWEST:
        yield Diagnostic("D4", None, False, "random controls were not scored with shared weights; controls.random of 20 or more are")
    else:
        yield rank_agreement([of_supernet[m.architecture] for m in controls], [m.quality for m in controls])


def _derived(run: Run, task: str, method: str) -> dict[int, Any]:
    """By seed what the method's own rule finds without a budget."""
    return {s.seed: s.architecture for s in run.selections if (s.task, s.method) == (task, method) and not s.limits}


def _agreement(run: Run, task: str, method: str) -> Diagnostic | None:
    """D7; None for a method of another space."""
    from methods.adabert.diagnostics import agreement_over_seeds
    from methods.adabert.options import AdaBertOptions
    from methods.adabert.space import AdaBertSpace
    from methods.registry import get

    if method not in run.kinds or get(run.kinds[method]).options is not AdaBertOptions:
        return None
    space = AdaBertSpace(AdaBertOptions.model_validate(run.options[method]))
    return agreement_over_seeds(space, [a for _, a in sorted(_derived(run, task, method).items()) if space.contains(a)])


def against_random(run: Run, task: str, method: str, budget: Budget, by: str) -> Diagnostic:
    """D11 of what one way of searching found."""
    from methods.adabert.diagnostics import against_random

    return against_random(*scores(run, task, method, budget, by))


def _against_floors(run: Run, task: str, method: str, budget: Budget) -> Diagnostic | None:
    """D13 of the method's winners; None where there is none."""
    from methods.adabert.diagnostics import against_floors

    found = winners(run, task, method, budget)
    ours = [] if isinstance(found, str) else [w.finished.quality for w in found if w.finished is not None]
    floors = {name: [m.quality for m in costliest_within(run, task, name, budget).values()] for name in FLOORS}
    return against_floors(fmean(ours), {name: fmean(some) for name, some in floors.items() if some}) if ours else None


def help_sentences(run: Run, task: str, method: str, budget: Budget) -> list[str]:
    """Did each way of searching help? As a z-score against random networks of equal cost (D11), where there are any."""
    if not random_in_window(run, task, method, budget):
        return []
    return [
        f"{task}, {budget.label()}, {row_name(method, by)}: {against_random(run, task, method, budget, by).why}."
        for by in ways(run, task, method)
    ]
