"""A trial of tuning, in a worker: the recipe's stages with a trial's options, rated now and then."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from methods.costs import costs
from methods.errors import StageError
from methods.evaluation import evaluate
from methods.network import Network
from methods.recipe import Context, StagePlan, StageRecord, TaskRecipe, serves
from methods.space import Architecture
from methods.supernet import Supernet, inputs
from workbench.session import Member, Session, member_of
from workbench.tune_options import TuneEntry
from workbench.tuned import entry_of, task_of, with_values_of

if TYPE_CHECKING:
    from torch import nn

    from methods.evaluation import Run
    from methods.network import NetworkSpec
    from methods.tasks.batches import Collate
    from workbench.task_options import TaskOptions

Report = Callable[[dict[str, Any], bool], None]
"""Hears what a trial is worth so far, and whether its checkpoints are to be kept."""
SPENT = ("steps", "examples", "flops", "seconds", "subnetwork_steps")
SMALL = 200
_ANY = Architecture.of("any", {})


def rated(session: Session, member: Member, options: TaskOptions) -> list[Architecture]:
    """The networks that stand for all in every trial of a method: for each budget that it can meet, what uses most of the FLOPs that the
    budget allows, of a small space's networks, or of a large one's anchors (uniform configurations)."""
    head, space = session.task(options).head, member.space
    cost_of = session.cost_of(member, head)
    known = list(space.enumerate()) if space.size() <= SMALL else space.anchors()
    ordered = sorted(known, key=lambda architecture: (cost_of(architecture).flops, architecture.id))
    found = []
    for budget in session.possible(member, head):
        fitting = [architecture for architecture in ordered if budget.met_by(cost_of(architecture))]
        found.append(fitting[-1] if fitting else space.smallest())
    return list(dict.fromkeys(found)) or [space.largest()]


@dataclass
class TrialRun:
    """Trains in `folder`; `report` is told of each rating. See `methods.recipe.Watch`."""

    recipe: TaskRecipe
    fresh: Callable[[], TaskRecipe]
    """Recipes may remember what they made of a supernet, which goes on changing here."""
    context: Context
    finish: Callable[[Context, Supernet], list[Network]]
    """The networks that rate the trial in the end."""
    architectures: list[Architecture]
    collate: Collate
    stages: list[StagePlan]
    reports: int
    report: Report
    spent: dict[str, StageRecord] = field(default_factory=dict)

    def run(self) -> None:
        """To its end, from the checkpoints in the folder where there are some. A stage that comes to no end (its loss is not finite, or
        memory runs out) ends the trial as the worst."""
        self.context = replace(self.context, record=self._record, watch=self)
        try:
            supernet = self.recipe.train(self.context).to(self.context.hardware.device).eval()
            networks = self.finish(self.context, supernet)
        except StageError as error:
            self._tell(1.0, None, {"failed": str(error)}, keep=False)
            return
        started, flops, qualities = time.monotonic(), 0.0, []
        for network in networks:
            qualities.append(self._quality(_runs(network.to(self.context.hardware.device).eval())))
            flops += self._flops(network.spec)
        self._tell(1.0, _mean(qualities), _rating(started, flops), keep=False)

    def wants(self, stage: str, step: int, total: int) -> bool:
        at = {round(total * number / self.reports) for number in range(1, self.reports + 1)}
        return step in at and self._planned(stage) is not None and self._progress(stage, step / total) < 1.0

    def look(self, share: float, model: nn.Module, so_far: StageRecord) -> None:
        self._record(so_far)
        started, flops, qualities = time.monotonic(), 0.0, []
        if isinstance(model, Supernet):
            recipe, before = self.fresh(), self.recipe.rows_before_score(self.context)
            for architecture in self.architectures:
                qualities.append(self._quality(recipe.score(self.context, model, architecture)))
                flops += self._flops(model.spec(architecture), before)
        elif isinstance(model, Network):
            qualities.append(self._quality(_runs(model)))
            flops += self._flops(model.spec)
        if qualities:
            self._tell(self._progress(so_far.stage, share), _mean(qualities), _rating(started, flops), keep=True)

    def _record(self, stage: StageRecord) -> None:
        self.spent[stage.stage] = stage

    def _tell(self, progress: float, quality: float | None, more: Mapping[str, Any], keep: bool) -> None:
        spent = {name: sum(getattr(stage, name) or 0 for stage in self.spent.values()) for name in SPENT}
        rated = quality if quality is not None and isfinite(quality) else None  # a correlation of constant answers is none
        self.report({"progress": progress, "quality": rated, **spent, **more}, keep)

    def _quality(self, run: Run) -> float:
        task = self.context.task
        return evaluate(run, self.collate, task.split("search"), task.spec, self.context.hardware).metrics[task.spec.metric]

    def _flops(self, spec: NetworkSpec, before: int = 0) -> float:
        """Of the rows of `search`, and those read before, at the mean length."""
        split = self.context.task.split("search")
        length = max(1, round(float(self.collate.encode(split).lengths.mean())))
        return float(costs(spec, length).flops * (len(split) + before))

    def _planned(self, stage: str) -> int | None:
        """The place of a stage in the plan."""
        name = stage if serves(stage, _ANY) is None else stage.rpartition("-")[0]
        return next((index for index, plan in enumerate(self.stages) if plan.name == name), None)

    def _progress(self, stage: str, share: float) -> float:
        """Share of the planned FLOPs of all stages."""
        index, flops = self._planned(stage), [plan.flops for plan in self.stages]
        assert index is not None
        return round((sum(flops[:index]) + share * flops[index]) / sum(flops), 6)


def trial_run(session: Session, tune: TuneEntry, values: dict[str, Any], teacher: Network, folder: Path, report: Report) -> TrialRun:
    """A trial with these values. It is rated in the end by the finished networks that are rated on the way, or of a method with a rule of
    its own by the one that the rule derives under the first budget."""
    index, entry = entry_of(session.experiment, tune)
    options = task_of(session.experiment, tune)
    member = member_of(with_values_of(entry, values, entry.label), index, session.shape, session.name)
    recipe = _fresh(member)
    context = session.context(options, folder, tune.seed, tune.label, teacher, recipe.reads)
    head, collate = session.task(options).head, session.collate(options, member.method)
    rows, length = len(context.task.split("train")), min(options.max_length, session.shape.positions)
    stages = recipe.plan(member.space, session.shape, head, rows, length, session.experiment.augmentation.copies_of_a_row(head.pair))
    architectures, cost_of, budgets = rated(session, member, options), session.cost_of(member, head), session.possible(member, head)

    def finish(context: Context, supernet: Supernet) -> list[Network]:
        derived = recipe.derive(context, supernet, budgets[0], cost_of) if recipe.derived_by and budgets else None
        return [recipe.finish(context, supernet, each) for each in (architectures if derived is None else [derived])]

    return TrialRun(recipe, lambda: _fresh(member), context, finish, architectures, collate, stages, tune.reports, report)


def _runs(network: Network) -> Run:
    return lambda batch: network(**inputs(batch))


def _fresh(member: Member) -> TaskRecipe:
    recipe = member.method.recipe(member.options)
    assert isinstance(recipe, TaskRecipe)
    return recipe


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _rating(started: float, flops: float) -> dict[str, float]:
    return {"rating_seconds": time.monotonic() - started, "rating_flops": flops}
