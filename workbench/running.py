"""The work of a run: teacher, supernets, searches, winners and controls of one task after the other; all of it resumable."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from methods.budget import Budget
from methods.errors import UserError
from methods.network import Network
from methods.recipe import Context, StageRecord, TaskRecipe
from methods.space import Architecture
from methods.supernet import Supernet
from methods.training.teacher import fine_tune_teacher
from search.limits import CostFunction
from search.loop import SearchResult
from search.measurement import Measurement
from search.query import Answer, best
from search.selections import Selection, keep_selection, selections
from search.timings import as_measured, timed_in
from workbench.corpus_controls import random_within
from workbench.corpus_running import winners_flops
from workbench.experiment import DATA_SEED, Controls, TaskOptions
from workbench.measuring import Measurer
from workbench.progress import Reporter
from workbench.session import Member, Session
from workbench.shared_scores import SharedScores
from workbench.stopwatch import Stopwatch
from workbench.task_controls import TaskControls
from workbench.workers import Job, Workers, called

TEACHER = "teacher"
RANKED = 20
"""So many random controls show how well shared weights rank (a diagnostic of methods with a rule of their own)."""


def teacher(session: Session, options: TaskOptions, reporter: Reporter) -> Network:
    """The task's fine-tuned teacher, trained or read back, and measured as control."""
    reporter.say(options.name, TEACHER)
    context = session.context(
        options,
        session.folder.teacher(options.name),
        DATA_SEED,
        TEACHER,
        heard=lambda stage: reporter.finished(options.name, TEACHER, stage.stage, stage.seconds),
    )
    network = fine_tune_teacher(context, session.experiment.teacher)
    shape = session.shape
    architecture = Architecture.of(TEACHER, {"layers": shape.layers, "heads": shape.heads, "neurons": shape.intermediate})
    of_task = (session.archive, session.task(options), session.collate(options), DATA_SEED)
    measurer = Measurer(*of_task, session.experiment.cost, session.hardware, session.devices)
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
    workers: Workers = field(default_factory=Workers)
    earlier: Sequence[Callable[[], object]] = ()
    """Waits for the same with earlier seeds: networks that no seed changes are theirs."""
    stages: dict[str, StageRecord] = field(default_factory=dict)

    def run(self) -> None:
        """Trains (or reads back), searches, finishes what was chosen and measures the controls."""
        where = (self.options.name, self.member.name, f"seed {self.seed}")
        for subject, text in self.recipe.about().items():
            self.session.archive.note(f"{self.options.name}, {self.member.name}, {subject}", text)
        self.reporter.say(*where, "training")
        self.workers.ahead([self.job("trained", "train")])
        _ = self.supernet
        self.reporter.say(*where, "search")
        scores = self.scores
        with self.workers.evaluator(self) as elsewhere:
            selected = self.search(replace(scores, elsewhere=elsewhere))
        strategy = self.session.experiment.search.strategy_for(self.member.space)
        self.reporter.finished(self.options.name, self.member.name, f"search ({strategy})")
        self.reporter.say(*where, "winners and controls")
        chosen = dict.fromkeys([*self.in_time(scores.digest), *selected])
        controls = TaskControls(self)
        self.workers.ahead([*(self.job("finished", f"finish {called(a)}", a, "") for a in chosen), *controls.jobs()])
        for architecture in chosen:
            self.finish(architecture)
        chosen |= dict.fromkeys(self.settle())
        controls.run(chosen)
        if self.session.experiment.search.report_all:
            self.workers.ahead([self.job("reported", "validation of all")])
            self.report_all()

    def job(self, call: str, stage: str, *arguments: Any) -> Job:
        """A part of this for other workers."""
        where = (self.options.name, self.member.name, self.seed)
        name = "{} {} seed {} {}".format(*where, stage)
        return Job(call, (*where, *arguments), name, self.options.name, self.session.resources_of(self.member))

    @cached_property
    def supernet(self) -> Supernet:
        """Trained, or read back."""
        return self.recipe.train(self.context).to(self.session.hardware.device).eval()

    @property
    def scores(self) -> SharedScores:
        """Architectures with the supernet's weights."""
        return SharedScores(self.recipe, self.context, self.supernet, self.measurer, self.cost_of)

    @property
    def training_flops(self) -> float:
        """Of all stages that the winners owe their weights to."""
        return winners_flops(self.stages.values(), {found for budget in self.budgets if (found := self.best(budget))})

    @cached_property
    def context(self) -> Context:
        def heard(stage: StageRecord) -> None:
            if stage.stage not in self.stages:
                self.reporter.finished(self.options.name, self.member.name, stage.stage, stage.seconds)
            self.stages[stage.stage] = stage

        folder = self.session.folder.method(self.options.name, self.member.name, self.seed)
        return self.session.context(self.options, folder, self.seed, self.member.name, self.teacher, self.recipe.reads, heard)

    @cached_property
    def measurer(self) -> Measurer:
        s = self.session
        collate = s.collate(self.options, self.member.method)
        return Measurer(s.archive, s.task(self.options), collate, self.seed, s.experiment.cost, s.hardware, s.devices)

    @cached_property
    def stopwatch(self) -> Stopwatch:
        return Stopwatch(self.session.archive, self.options.name, self.session.devices)

    @cached_property
    def cost_of(self) -> CostFunction:
        return self.session.cost_of(self.member, self.session.task(self.options).head)

    @cached_property
    def budgets(self) -> list[Budget]:
        """Those that the method can meet at all."""
        return self.session.possible(self.member, self.session.task(self.options).head)

    @property
    def controls(self) -> Controls:
        """The control rows that the method gets."""
        return self.session.experiment.controls_of(self.member.entry)

    @cached_property
    def random(self) -> list[Architecture]:
        """Random architectures that use up each budget, or cost what the method's own rule found there, in the order of their ids."""
        count, space = self.controls.random, self.member.space
        drawn = {a for budget in self.budgets for a in random_within(space, self.window(budget), self.cost_of, count, self.seed)}
        return sorted(drawn, key=lambda architecture: architecture.id)

    def window(self, budget: Budget) -> Budget:
        """What random architectures have to use up."""
        mine = (self.options.name, self.member.name, self.seed, self.recipe.derived_by, budget.limits())
        for s in selections(self.session.archive) if self.recipe.derived_by else ():
            if (s.task, s.method, s.seed, s.by, dict(s.limits)) == mine and s.architecture is not None:
                return budget.used_by(self.cost_of(s.architecture))
        return budget

    def search(self, scores: SharedScores) -> list[Architecture]:
        """Under every budget, on the split `search`, by the strategy; then by the method's own rule, where it has one.

        Returns what each of the two found where there are two: all of it is finished. Whatever was scored competes for the budgets.
        """
        scores = scores.on("search")
        result = scores.search(self.budgets, self.session.experiment.search)
        spent = [scores.cost(part.strategy, part.label, part.measurements, part.hopeless) for part in result.passes]
        selected = self._selected(result) + self._derived(scores) if self.recipe.derived_by else []
        for one in selected:
            keep_selection(self.session.archive, one)
            if one.architecture and one.limits and one.by == self.recipe.derived_by:
                label = next(budget.label() for budget in self.budgets if budget.limits() == one.limits)
                spent.append(scores.cost(one.by, label, [scores.keep(one.architecture)]))
        if spent:
            self.session.archive.record_searches(spent)
        if self.recipe.derived_by and self.controls.random >= RANKED:
            scores.keep_all(self.random)
        return [one.architecture for one in selected if one.architecture and one.limits]

    def _selected(self, result: SearchResult) -> list[Selection]:
        """What the strategy alone would ship."""
        found = []
        for part in result.passes:
            for budget in part.budgets:
                answer = best(part.measurements, budget) if part.measurements else None
                found.append(self._selection(part.strategy, budget, answer.architecture if isinstance(answer, Answer) else None))
        return found

    def _derived(self, scores: SharedScores) -> list[Selection]:
        """What the method's rule finds, without a budget and under each; nothing where no network is as fast as a budget asks."""

        def derived(budget: Budget) -> Architecture | None:
            try:
                return self.recipe.derive(self.context, scores.supernet, budget, self.cost_of)
            except UserError as error:
                if not budget.max_latency:
                    raise
                self.reporter.say(str(error))
                return None

        return [self._selection(self.recipe.derived_by, budget, derived(budget)) for budget in (Budget(), *self.budgets)]

    def _selection(self, by: str, budget: Budget, found: Architecture | None) -> Selection:
        return Selection(self.options.name, self.member.name, self.seed, by, budget.limits(), found)

    def winners(self, digest: str) -> list[Answer]:
        """The best under each budget by the shared weights on `search`; `digest`: of these."""
        measured = self.session.archive.measurements(self.options.name, self.member.name, "shared", "search")
        found = self._timed(m for m in measured if (m.seed, m.weights_digest) == (self.seed, digest))
        answers = [best(found, budget) for budget in self.budgets] if found else []
        return [answer for answer in answers if isinstance(answer, Answer)]

    def best(self, budget: Budget) -> Architecture | None:
        """What this seed ships under a budget, by all that is measured now."""
        measured = self.session.archive.measurements(self.options.name, self.member.name)
        found = self._timed(m for m in measured if m.seed == self.seed)
        answer = best(found, budget) if any(m.kind in ("shared", "finished") for m in found) else None
        return answer.architecture if isinstance(answer, Answer) else None

    def _timed(self, measurements: Iterable[Measurement]) -> list[Measurement]:
        """With the latency that was measured, where the experiment has devices."""
        return as_measured(measurements, timed_in(self.session.archive)) if self.session.devices else list(measurements)

    def in_time(self, digest: str) -> list[Architecture]:
        """The winners by shared weights; each is timed, and where it breaks its limit the next best takes its place and is timed."""
        while True:
            found = [answer.architecture for answer in self.winners(digest)]
            if not self.stopwatch.time({a: self.cost_of.spec(a) for a in found}):
                return found

    def settle(self) -> list[Architecture]:
        """Times what ships under each budget as it ships, until nothing takes the place of what breaks its limit; all that was timed."""
        settled: dict[Architecture, None] = {}
        while new := [a for b in self.budgets if self.session.devices and (a := self.best(b)) and a not in settled]:
            for architecture in dict.fromkeys(new):
                self.stopwatch.time({architecture: self.finish(architecture)})
                settled[architecture] = None
        return list(settled)

    def finish(self, architecture: Architecture, control: str = "") -> Network:
        """The network that would ship, measured on `search` and `validation`."""
        network = self.recipe.finish(self.context, self.supernet, architecture)
        self.measurer.network(network, architecture, "control" if control else "finished", control)
        return network

    def report_all(self) -> None:
        """Every architecture of an enumerable space on `validation`, whatever it costs; nothing is chosen by it."""
        scores = self.scores
        for architecture in self.member.space.enumerate():
            scores.keep(architecture, "validation")
