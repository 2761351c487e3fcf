"""The networks that a corpus run chose, finished on a task and measured there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from methods.network import Network
from methods.recipe import Context, StageRecord
from workbench.corpus_running import Chosen, CorpusRun, winners_flops
from workbench.experiment import TaskOptions
from workbench.measuring import Measurer
from workbench.progress import Reporter
from workbench.session import Session


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
    stages: dict[str, StageRecord] = field(default_factory=dict)

    def run(self) -> None:
        """Every chosen network on the task's splits."""
        run, s = self.run_on_corpus, self.session
        self.reporter.say(self.options.name, run.member.name, f"seed {self.seed}", "finishing")
        collate = s.collate(self.options, run.member.method)
        measurer = Measurer(s.archive, s.task(self.options), collate, self.seed, s.experiment.cost, s.hardware, s.devices)
        for chosen in run.chosen:
            measurer.network(self.network(chosen), chosen.architecture, chosen.kind, chosen.control)

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
                self.reporter.finished(self.options.name, member.name, stage.stage)
            self.stages[stage.stage] = stage

        member, s = self.run_on_corpus.member, self.session
        folder = s.folder.method(self.options.name, member.name, self.seed)
        who = f"{member.name} {variant}" if variant else member.name
        return s.context(self.options, folder / variant, self.seed, who, self.teacher, member.recipe.reads, heard)
