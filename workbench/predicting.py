"""Answers from the tables of a run alone: no weights are read, and no archive; the backbone's configuration and the tables say it all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from methods.backbone import BackboneConfig
from methods.budget import LIMITS, Budget, amount
from methods.costs import Costs
from methods.errors import UserError
from methods.recipe import CorpusRecipe, Estimate, Estimates
from methods.tasks.head import Head
from workbench.experiment import Experiment, TaskOptions
from workbench.folder import RunFolder
from workbench.session import Member, members_of, read_devices
from workbench.sizes import backbone_config
from workbench.text import columns


@dataclass(frozen=True)
class Source:
    """Whose tables answered: a method's, of the supernet of this seed. `task`: that of the output layer, empty for the dearest."""

    method: str
    corpus: str
    seed: int
    task: str

    def text(self) -> str:
        return f"{self.method} on {self.corpus}, seed {self.seed}; costs with the output layer of {self.task or 'the dearest task'}"


@dataclass(frozen=True)
class Predicted:
    """The architecture of the least predicted loss under a budget; `slack`: what is left of each limit, in its own unit."""

    estimate: Estimate
    source: Source
    slack: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        return {**_plain(self.estimate), "kind": "predicted", **vars(self.source), "slack": self.slack}

    def message(self) -> str:
        e, costs = self.estimate, self.estimate.costs
        used = f"{costs.parameters:,} = {costs.embedding_parameters:,} in embedding tables + {costs.other_parameters:,} other"
        lines = [
            ("architecture", e.architecture.id),
            ("method", self.source.text()),
            ("choices", e.architecture.canonical),
            ("predicted loss", f"{e.loss:.6g} (from the tables; smaller is better)"),
            ("parameters", used),
            ("FLOPs", f"{costs.flops:,} ({costs.batch} x {costs.length} tokens)"),
            *[(f"latency on {device}", f"{1e3 * seconds:.4g} ms") for device, seconds in costs.latency.items()],
            *[(f"left of {name}", amount(name, value)) for name, value in self.slack.items()],
        ]
        width = max(len(name) for name, _ in lines)
        return "\n".join(f"{name:{width}}  {text}" for name, text in lines)


@dataclass(frozen=True)
class NonePredicted:
    """No network of the tables meets the budget; `reason` says which limit binds and what there is."""

    budget: Budget
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        return {"limits": self.budget.limits(), "message": self.reason}

    def message(self) -> str:
        return self.reason


@dataclass(frozen=True)
class Front:
    """The Pareto front of predicted loss and the cost that a limit of this name speaks of, cost ascending."""

    cost: str
    estimates: tuple[Estimate, ...]
    source: Source

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        return {"cost": self.cost, **vars(self.source), "front": [_plain(estimate) for estimate in self.estimates]}

    def message(self) -> str:
        body = [
            [e.architecture.id[:12], f"{e.loss:.6g}", f"{e.costs.parameters:,}", f"{e.costs.other_parameters:,}", f"{e.costs.flops:,}"]
            + [f"{1e3 * seconds:.4g} ms" for seconds in e.costs.latency.values()]
            for e in self.estimates
        ]
        devices = list(self.estimates[0].costs.latency) if self.estimates else []
        head = ["architecture", "loss", "parameters", "non-embedding", "FLOPs", *devices]
        return "\n".join(
            [self.source.text(), *columns(head, body), f"{len(body)} networks, none of which another beats in loss and {self.cost}"]
        )


def predicted(folder: RunFolder, budget: Budget, method: str | None, task: str | None, seed: int | None) -> Predicted | NonePredicted:
    """The first under a budget. Raises UserError where the run has no such tables, or no such task, device or seed."""
    estimates, source = open_tables(folder, method, task, seed)
    _check_limits(folder.experiment(), budget.limits())
    try:
        first = estimates.best(budget)[0]
    except UserError as error:
        return NonePredicted(budget, str(error))
    return Predicted(first, source, budget.slack(first.costs))


def predicted_front(folder: RunFolder, cost: str, method: str | None, task: str | None, seed: int | None) -> Front:
    """The whole front. Raises UserError as `predicted` does, and where there is no such cost."""
    estimates, source = open_tables(folder, method, task, seed)
    _check_limits(folder.experiment(), {cost: 0.0})
    return Front(cost, tuple(estimates.front(cost)), source)


def open_tables(folder: RunFolder, method: str | None, task: str | None, seed: int | None) -> tuple[Estimates, Source]:
    """The tables of the supernet of that seed (default: the lowest); costs with the output layer of the task, or the dearest one."""
    experiment = folder.experiment()
    shape, _ = backbone_config(experiment.backbone, folder.backbone)
    member, recipe = _member(experiment, shape, folder, method)
    corpus = experiment.corpus.name if experiment.corpus else ""
    seeds = experiment.corpus_seeds(member.entry)
    if seed is not None and seed not in seeds:
        raise UserError(f"--seed {seed}: the run's supernets have the seeds {', '.join(map(str, sorted(seeds)))}")
    chosen = min(seeds) if seed is None else seed
    cost, where = experiment.cost, folder.corpus(corpus, member.name, chosen)
    heads = _heads(experiment.tasks_of(member.entry), task)
    estimates = recipe.estimates(where, member.space, shape, heads, cost.length, cost.batch, read_devices(experiment))
    return estimates, Source(member.name, corpus, chosen, task or "")


def _member(experiment: Experiment, shape: BackboneConfig, folder: RunFolder, method: str | None) -> tuple[Member, CorpusRecipe]:
    found = {m.name: (m, m.on_corpus) for m in members_of(experiment, shape, str(folder.experiment_file)) if m.on_corpus}
    if method is None and len(found) == 1:
        method = next(iter(found))
    if method not in found:
        there = ", ".join(found) or "none"
        raise UserError(f"--method {method or '(none given)'}: predictions are made by methods trained on a corpus; the run has {there}")
    member, recipe = found[method]
    return member, recipe


def _heads(tasks: Iterable[TaskOptions], task: str | None) -> list[Head]:
    heads = {options.name: options.spec.head for options in tasks}
    if task is not None and task not in heads:
        raise UserError(f"--task {task}: the run has the tasks {', '.join(heads)}")
    return list(heads.values()) if task is None else [heads[task]]


def _check_limits(experiment: Experiment, limits: Mapping[str, float]) -> None:
    known = [*LIMITS, *(f"max_latency.{device}" for device in experiment.devices)]
    unknown = [name for name in limits if name not in known]
    if unknown:
        raise UserError(f"{unknown[0]}: no cost of that name is known in this run; there are {', '.join(known)}")


def _plain(estimate: Estimate) -> dict[str, Any]:
    return {
        "id": estimate.architecture.id,
        "method": estimate.architecture.method,
        "choices": estimate.architecture.choices,
        "loss": estimate.loss,
        "costs": _costs(estimate.costs),
    }


def _costs(costs: Costs) -> dict[str, Any]:
    same = ("embedding_parameters", "other_parameters", "parameters", "flops", "length", "batch")
    return {**{name: getattr(costs, name) for name in same}, "latency": dict(costs.latency)}
