"""The networks that a corpus run chose, finished on a task and measured there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from methods.network import Network
from methods.recipe import Context, StageRecord
from workbench.corpus_running import Chosen, CorpusRun, winners_flops
from workbench.experiment import TaskOptions
from workbench.int8_control import measure_int8
from workbench.measuring import Measurer
from workbench.progress import Reporter
from workbench.session import Session
from workbench.stopwatch import Stopwatch
from workbench.workers import Job, Workers, called


@dataclass
class CorpusFinish:
    """One method on one task with one seed; `run`: its supernet's. `others`: the same of tasks that were finished before, by task."""

    session: Session
    options: TaskOptions
    run_on_corpus: CorpusRun
    seed: int
    teacher: Network
    reporter: Reporter
    others: Mapping[str, CorpusFinish]
    workers: Workers = field(default_factory=Workers)
    stages: dict[str, StageRecord] = field(default_factory=dict)

    def run(self) -> None:
        """Every chosen network on the task's splits."""
        run = self.run_on_corpus
        self.reporter.say(self.options.name, run.member.name, f"seed {self.seed}", "finishing")
        self.workers.ahead([self.job(chosen) for chosen in run.chosen])
        stopwatch = Stopwatch(self.session.archive, self.options.name, self.session.devices)
        for chosen in run.chosen:
            self.measure(chosen)
            if self.session.devices and not chosen.control:
                stopwatch.time({chosen.architecture: self.network(chosen)})

    def job(self, chosen: Chosen) -> Job:
        """One network for other workers."""
        run = self.run_on_corpus
        where = (self.options.name, run.member.name, self.seed)
        name = "{} {} seed {} finish ".format(*where) + called(chosen.architecture, chosen.control)
        return Job("fine_tuned", (*where, run.seed, chosen), name, self.options.name, self.session.resources_of(run.member))

    def measure(self, chosen: Chosen) -> None:
        """One network, finished."""
        network = self.network(chosen)
        self._measurer.network(network, chosen.architecture, chosen.kind, chosen.control)
        if not chosen.control and self.session.experiment.controls_of(self.run_on_corpus.member.entry).int8:
            measure_int8(self._measurer, network, chosen.architecture)

    @cached_property
    def _measurer(self) -> Measurer:
        run, s = self.run_on_corpus, self.session
        collate = s.collate(self.options, run.member.method)
        return Measurer(s.archive, s.task(self.options), collate, self.seed, s.experiment.cost, s.hardware, s.devices)

    def training_flops(self) -> float:
        """Of the winners: their stages on the task, and their stages on the corpus divided by the tasks that it serves."""
        own = winners_flops(self.stages.values(), set(self.run_on_corpus.winners.values()))
        return own + self.run_on_corpus.training_flops() / len(self.run_on_corpus.tasks)

    def network(self, chosen: Chosen) -> Network:
        """The network that ships: fine-tuned, or read back."""
        run = self.run_on_corpus
        other = run.recipe.starts_from(self.options.name)
        start = None if other is None else self.others[other].network(chosen)
        return run.recipe.finish(self.context(chosen.variant), run.pretrained(chosen), chosen.architecture, start)

    def context(self, variant: str) -> Context:
        """Networks that are finished in another way lie in a folder of that name, and their stages are recorded under that name too, so
        that they count for no winner."""

        def heard(stage: StageRecord) -> None:
            if variant:
                return
            if stage.stage not in self.stages:
                self.reporter.finished(self.options.name, member.name, stage.stage, stage.seconds)
            self.stages[stage.stage] = stage

        member, s = self.run_on_corpus.member, self.session
        folder = s.folder.method(self.options.name, member.name, self.seed)
        who = f"{member.name} {variant}" if variant else member.name
        return s.context(self.options, folder / variant, self.seed, who, self.teacher, member.recipe.reads, heard)
