"""The work of a run: teacher, supernets, searches, winners and controls of one task after the other; all of it resumable."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING

from methods.budget import Budget
from methods.costs import costs
from methods.evaluation import weights_digest
from methods.network import Network
from methods.recipe import Context, StageRecord, TaskRecipe
from methods.space import Architecture
from methods.supernet import Supernet
from methods.training.progress import progress_bar
from methods.training.teacher import fine_tune_teacher
from search.loop import Evaluated, Pass, one_by_one, search
from search.measurement import Measurement
from search.query import Answer, best
from search.random_controls import random_in_window
from search.tables import SearchRow
from workbench.experiment import DATA_SEED, TaskOptions
from workbench.measuring import Measurer
from workbench.progress import Reporter
from workbench.session import Member, Session

if TYPE_CHECKING:
    from transformers.utils.generic import ModelOutput

    from methods.supernet import Batch

TEACHER, RANDOM = "teacher", "random"


def run_supernet(supernet: Supernet, architecture: Architecture, batch: Batch) -> ModelOutput:
    """One architecture with the shared weights."""
    return supernet.forward(batch, architecture)


def teacher(session: Session, options: TaskOptions, reporter: Reporter) -> Network:
    """The task's fine-tuned teacher, trained or read back, and measured as control."""
    reporter.say(options.name, TEACHER)
    context = session.context(
        options,
        session.folder.teacher(options.name),
        DATA_SEED,
        TEACHER,
        heard=lambda stage: reporter.finished(options.name, TEACHER, stage.stage),
    )
    network = fine_tune_teacher(context, session.experiment.teacher)
    shape = session.shape
    architecture = Architecture.of(TEACHER, {"layers": shape.layers, "heads": shape.heads, "neurons": shape.intermediate})
    measurer = Measurer(
        session.archive, session.task(options), session.collate(options), DATA_SEED, session.experiment.cost, session.hardware
    )
    measurer.network(network, architecture, "control", TEACHER)
    return network


@dataclass
class MethodRun:
    """One method on one task with one seed."""

    session: Session
    options: TaskOptions
    member: Member
    recipe: TaskRecipe
    seed: int
    teacher: Network
    reporter: Reporter
    stages: dict[str, StageRecord] = field(default_factory=dict)

    def run(self) -> None:
        """Trains (or reads back), searches, finishes the winners and measures the controls."""
        where = (self.options.name, self.member.name, f"seed {self.seed}")
        self.reporter.say(*where, "training")
        supernet = self.recipe.train(self.context).to(self.session.hardware.device).eval()
        self.reporter.say(*where, "search")
        self.search(supernet)
        self.reporter.finished(self.options.name, self.member.name, f"search ({self.session.experiment.search.strategy})")
        self.reporter.say(*where, "winners and controls")
        answers = self.winners(supernet)
        for architecture in dict.fromkeys(answer.architecture for answer in answers):
            self.finish(supernet, architecture)
        self.random(supernet)
        if self.session.experiment.controls.untrained:
            self.untrained(dict.fromkeys(answer.architecture for answer in answers))
        if self.session.experiment.search.report_all:
            self.report_all(supernet)

    @property
    def training_flops(self) -> float:
        """Of all stages so far."""
        return sum(stage.flops for stage in self.stages.values())

    @cached_property
    def context(self) -> Context:
        def heard(stage: StageRecord) -> None:
            if stage.stage not in self.stages:
                self.reporter.finished(self.options.name, self.member.name, stage.stage)
            self.stages[stage.stage] = stage

        folder = self.session.folder.method(self.options.name, self.member.name, self.seed)
        return self.session.context(self.options, folder, self.seed, self.member.name, self.teacher, self.recipe.reads, heard)

    @cached_property
    def measurer(self) -> Measurer:
        s = self.session
        collate = s.collate(self.options, self.member.name)
        return Measurer(s.archive, s.task(self.options), collate, self.seed, s.experiment.cost, s.hardware)

    @property
    def budgets(self) -> list[Budget]:
        """Those that the method can meet at all."""
        return self.session.possible(self.member, self.session.task(self.options).head)

    def search(self, supernet: Supernet) -> None:
        """Under every budget, with the shared weights on the split `search`."""
        archive, chosen = self.session.archive, self.session.experiment.search
        measurer = replace(self.measurer, task=self.measurer.task.restricted("search"))
        digest = weights_digest(supernet)
        cost_of = self.session.cost_of(self.member, self.session.task(self.options).head)

        def evaluate(architecture: Architecture) -> Evaluated:
            run = partial(run_supernet, supernet, architecture)
            return measurer.measure(run, architecture, cost_of(architecture), "search", digest, "shared")

        def known(architecture: Architecture) -> Measurement | None:
            return measurer.known(architecture, "search", digest, "shared")

        bar = progress_bar(1, "search")

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        budgets = self.budgets
        if budgets:
            evaluator = one_by_one(evaluate)
            result = search(
                self.member.space, evaluator, budgets, chosen.strategy, chosen.evaluations, self.seed, cost_of, known, archive.add, progress
            )
            archive.record_searches([self._cost_of_search(part) for part in result.passes])
        bar.close()

    def _cost_of_search(self, part: Pass) -> SearchRow:
        """Added up from its measurements, so that an interrupted search costs what an uninterrupted one does; FLOPs at the mean length."""
        split, collate = self.session.task(self.options).split("search"), self.measurer.collate
        length = max(1, round(float(collate.encode(split).lengths.mean())))
        shape, head = self.session.shape, self.session.task(self.options).head
        flops = sum(costs(self.member.space.spec(m.architecture, shape, head, "hosted"), length).flops for m in part.measurements)
        seconds = sum(m.seconds for m in part.measurements)
        names = (self.options.name, self.member.name, self.seed, part.strategy, part.label)
        return SearchRow(*names, len(part.measurements), seconds, float(flops * len(split)))

    def winners(self, supernet: Supernet) -> list[Answer]:
        """What the search chose under each budget, by this supernet's shared weights on `search`."""
        measured = self.session.archive.measurements(self.options.name, self.member.name, "shared", "search")
        digest = weights_digest(supernet)
        found = [m for m in measured if (m.seed, m.weights_digest) == (self.seed, digest)]
        answers = [best(found, budget) for budget in self.budgets] if found else []
        return [answer for answer in answers if isinstance(answer, Answer)]

    def finish(self, supernet: Supernet, architecture: Architecture, control: str = "") -> None:
        """The network that would ship, measured on `search` and `validation`."""
        network = self.recipe.finish(self.context, supernet, architecture)
        self.measurer.network(network, architecture, "control" if control else "finished", control)

    def random(self, supernet: Supernet) -> None:
        """Random architectures that use up each budget, finished as the winners are."""
        cost, space = self.session.experiment.cost, self.member.space
        shape, head = self.session.shape, self.session.task(self.options).head
        batch_costs = partial(space.batch_costs, backbone=shape, head=head, length=cost.length, batch=cost.batch)
        drawn = {
            architecture
            for budget in self.budgets
            for architecture in random_in_window(space, batch_costs, budget, self.session.experiment.controls.random, self.seed)
        }
        for architecture in sorted(drawn, key=lambda a: a.id):
            self.finish(supernet, architecture, RANDOM)

    def untrained(self, architectures: Collection[Architecture]) -> None:
        """The winners' shapes cut from the supernet before its first trained stage."""
        if not architectures:
            return
        initial = self.recipe.initial(self.context).to(self.session.hardware.device).eval()
        for architecture in architectures:
            self.measurer.network(initial.extract(architecture), architecture, "control", self.recipe.initial_name)

    def report_all(self, supernet: Supernet) -> None:
        """Every architecture of an enumerable space on `validation`, whatever it costs; nothing is chosen by it."""
        digest = weights_digest(supernet)
        cost_of = self.session.cost_of(self.member, self.session.task(self.options).head)
        for architecture in self.member.space.enumerate():
            run = partial(run_supernet, supernet, architecture)
            self.measurer.keep(run, architecture, cost_of(architecture), "validation", digest, "shared")
