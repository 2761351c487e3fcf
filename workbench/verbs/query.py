"""`query`: the best sub-network of a run under a budget."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from methods.budget import LIMITS, Budget, amount, parse_quantity, parse_seconds
from methods.costs import Costs
from methods.errors import UserError
from search.columns import Columns
from search.query import Answer, NothingFits, best, fronts, plain
from search.query import Front as MeasuredFront
from search.timings import timed_in
from workbench.folder import RunFolder
from workbench.places import suggestion
from workbench.predicting import Front, NonePredicted, Predicted, predicted, predicted_front

Quantity = float | int | str | None
Runs = Path | str | Sequence[Path | str]


def query(
    run: Runs,
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

    Without `by`: the one that `search.query.best` puts first in the run's archive, or in those of several runs. `predicted`: the one that
    the tables of a method trained on a corpus put first, under any limits, from the tables alone (`workbench.predicting`); `seed`: its
    supernet's. Raises UserError.
    """
    budget = _budget(max_params, max_params_non_embedding, max_flops, max_latency)
    if by == "predicted":
        return predicted(_only(run), budget, method, task, seed)
    if seed is not None:
        raise UserError("--seed: goes with --by predicted; without it all seeds count")
    _check_devices(run, budget.limits())
    return best(_measured(run, method, task), budget, method, task)


def pareto(
    run: Runs,
    cost: str = "max_flops",
    max_params: Quantity = None,
    max_params_non_embedding: Quantity = None,
    max_flops: Quantity = None,
    method: str | None = None,
    task: str | None = None,
    *,
    max_latency: Mapping[str, float | str] | None = None,
) -> Fronts:
    """What no other beats in measured quality and a cost (the name of its limit) within the limits, kind by kind. Raises UserError."""
    if cost not in LIMITS and not cost.startswith("max_latency."):
        raise UserError(f"--cost {cost}: there are {', '.join(LIMITS)} and max_latency.DEVICE")
    budget = _budget(max_params, max_params_non_embedding, max_flops, max_latency)
    _check_devices(run, (cost, *budget.limits()))
    columns = _measured(run, method, task)
    found = tuple(fronts(columns, cost, budget, method, task))
    nothing = None if found else best(columns, budget, method, task)
    return Fronts(found, nothing if isinstance(nothing, NothingFits) else None)


def _budget(params: Quantity, non_embedding: Quantity, flops: Quantity, latency: Mapping[str, float | str] | None) -> Budget:
    given = {"max_params": params, "max_params_non_embedding": non_embedding, "max_flops": flops}
    limits: dict[str, Any] = {name: parse_quantity(value, name) for name, value in given.items() if value is not None}
    seconds = {device: parse_seconds(value, f"max_latency.{device}") for device, value in (latency or {}).items()}
    return Budget(**limits, max_latency=seconds)


def _check_devices(run: Runs, costs: Iterable[str]) -> None:
    """Raises UserError where a cost is a latency on a device that none of the runs has a table of."""
    asked = [name.removeprefix("max_latency.") for name in costs if name.startswith("max_latency.")]
    if not asked:
        return
    known: set[str] = set()
    for path in _paths(run):
        folder = RunFolder(path)
        folder.require()
        known |= set(folder.experiment().devices)
    for device in asked:
        if device not in known:
            there = f"there are {', '.join(sorted(known))}" if known else "there are none; an experiment names their tables under `devices`"
            raise UserError(f"max_latency.{device}: the run has no such device; {there}")


def _paths(run: Runs) -> list[Path | str]:
    return [run] if isinstance(run, Path | str) else list(run)


def _only(run: Runs) -> RunFolder:
    paths = _paths(run)
    if len(paths) != 1:
        raise UserError(f"{len(paths)} runs: tables are asked one run at a time")
    folder = RunFolder(paths[0])
    folder.require()
    return folder


def _measured(run: Runs, method: str | None, task: str | None) -> Columns:
    """Of the tasks of one run or several; what was measured on a corpus only where it is asked for by name."""
    found = {}
    for path in _paths(run):
        folder = RunFolder(path)
        with folder.open_archive() as archive:
            columns = archive.columns(task, method).timed(timed_in(archive))
            if not len(columns):
                _refuse_unknown(archive.columns(), path, task, method)
        corpus = folder.experiment().corpus
        found[str(path)] = columns if corpus is None or task is not None else columns.where(~columns.are("task", corpus.name))
    return next(iter(found.values())) if len(found) == 1 else Columns.joined(found)


def _refuse_unknown(columns: Columns, path: Path | str, task: str | None, method: str | None) -> None:
    """Raises UserError where a name was given that the archive does not have."""
    columns = columns.where(~columns.are("kind", "control"))
    for option, given, name in (("--task", task, "task"), ("--method", method, "method")):
        known = sorted({str(columns.words[name][place]) for place in columns.texts[name]})
        if given is not None and known and given not in known:
            raise UserError(f"{option} {given}: nothing of that name was measured in {path}{suggestion(given, known)}")


@dataclass(frozen=True)
class Fronts:
    """What was measured and is beaten by nothing, a front for each kind; `nothing`: where there is none, why nothing fits."""

    fronts: tuple[MeasuredFront, ...]
    nothing: NothingFits | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        listed = [{"kind": f.kind, "cost": f.cost, "points": [_point(f, i) for i in range(len(f.points))]} for f in self.fronts]
        return {"fronts": listed, **(self.nothing.to_dict() if self.nothing else {})}

    def message(self) -> str:
        if not self.fronts:
            return self.nothing.message() if self.nothing else "nothing fits whose costs are known"
        lines = []
        for f in self.fronts:
            metric = f.points[0].measurements[0].metric
            lines.append(f"{metric} on search and {f.cost}, {f.kind}:")
            for c, run in zip(f.points, f.runs, strict=True):
                used = amount(f.cost, c.costs.measured_against()[f.cost])
                seeds = f"seed{'s' * (len(c.seeds) > 1)} {', '.join(map(str, c.seeds))}"
                cells = (c.architecture.id[:12], f"{c.quality:.4f}", used, c.architecture.method, seeds, run)
                lines.append("  " + "  ".join(cells).rstrip())
        return "\n".join(lines)


def _point(front: MeasuredFront, place: int) -> dict[str, Any]:
    c, run = front.points[place], front.runs[place]
    facts = {"id": c.architecture.id, "method": c.architecture.method, "choices": c.architecture.choices, "metrics": c.metrics}
    return {**facts, "seeds": list(c.seeds), "costs": plain(c.costs), **({"run": run} if run else {})}


def front(run: Path | str, cost: str = "max_flops", method: str | None = None, task: str | None = None, seed: int | None = None) -> Front:
    """The whole Pareto front of predicted loss and one cost (the name of its limit), from the tables alone. Raises UserError."""
    folder = RunFolder(run)
    folder.require()
    return predicted_front(folder, cost, method, task, seed)


def render(answer: Answer | NothingFits | Predicted | NonePredicted | Front | Fronts, form: str = "table", run: Runs = "RUN") -> str:
    """The answer as text (`table`) or as JSON; `run`: what was asked."""
    if isinstance(answer, Answer):
        command = export_command(answer, run)
        return json.dumps({**answer.to_dict(), "export": command}, indent=1) if form == "json" else _text(answer, command)
    return json.dumps(answer.to_dict(), indent=1) if form == "json" else answer.message()


def export_command(answer: Answer, run: Runs) -> str:
    """What writes the network as it did best; DIR is a new folder's name."""
    words = ["elastibench", "export", answer.run or str(_paths(run)[0]), answer.architecture.id[:12], "DIR"]
    return shlex.join([*words, "--task", answer.task, "--seed", str(answer.seed)])


def _text(answer: Answer, command: str) -> str:
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
        *[(f"on {device}", _latency(costs, device)) for device in costs.latency],
        *[(f"left of {name}", amount(name, value)) for name, value in a.slack.items()],
        *([("run", a.run)] if a.run else []),
        ("export", command),
    ]
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{name:{width}}  {text}" for name, text in lines)


def _latency(costs: Costs, device: str) -> str:
    measured = costs.latency_measured.get(device)
    as_shipped = "not measured as a whole" if measured is None else f"{1e3 * measured:.4g} ms measured"
    return f"{1e3 * costs.latency[device]:.4g} ms predicted, {as_shipped}"


def _metrics(metrics: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
