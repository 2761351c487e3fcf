"""The parts of a run, and what each of them waits for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from methods.baselines.truncated import NAME
from methods.network import Network
from workbench.augmenting import augment
from workbench.checking import ordered_tasks
from workbench.corpus_finishing import CorpusFinish
from workbench.corpus_running import CorpusRun, corpus_run
from workbench.experiment import TaskOptions
from workbench.failing import Failures
from workbench.progress import Reporter
from workbench.running import TEACHER, MethodRun, teacher
from workbench.session import Member, Session
from workbench.truncation import truncated
from workbench.workers import Job, Workers

Flops = Callable[[], float]


@dataclass
class Work:
    """All that a run does. A part that comes to no end is told of and left out, and so is what needs it."""

    session: Session
    reporter: Reporter
    workers: Workers = field(default_factory=Workers)
    _finished: dict[tuple[str, int], dict[str, CorpusFinish]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.failures = Failures(self.session.archive, self.reporter)

    def run(self) -> tuple[str, ...]:
        """Supernets of the corpus first; then one task after the other: its teacher, and with every seed the methods, then the truncated
        teacher. Returns what failed."""
        s, start = self.session, self.workers.start
        on_corpus: dict[tuple[str, int], Callable[[], CorpusRun | None]] = {}
        for member in s.members:
            seeds = s.experiment.corpus_seeds(member.entry) if member.on_corpus else ()
            shared = start(partial(self._shared, member, seeds)) if seeds else None
            for seed in seeds:
                on_corpus[member.name, seed] = start(partial(self._on_corpus, member, seed, shared))
        finishing: dict[tuple[str, str, int], Flops] = {}
        trained: dict[tuple[str, str], list[Flops]] = {}
        for options in ordered_tasks(s.experiment, s.members, s.name):
            taught = start(partial(self._taught, options))
            for seed in s.experiment.seeds_of(options):
                parts = []
                for member in s.members:
                    if not member.entry.runs(options.name, seed):
                        continue
                    if member.on_task:
                        earlier = trained.setdefault((options.name, member.name), [])
                        part = start(partial(self._on_task, options, member, seed, taught, tuple(earlier)))
                        earlier.append(part)
                    else:
                        its = on_corpus[member.name, s.experiment.corpus_seed(seed)]
                        part = start(partial(self._finish, options, member, seed, taught, its, finishing))
                        finishing[options.name, member.name, seed] = part
                    parts.append(part)
                start(partial(self._truncated, options, seed, taught, parts))
        self.workers.join()
        return tuple(self.failures.told)

    def _shared(self, member: Member, seeds: Sequence[int]) -> None:
        """Stages that serve all seeds, before the seeds are trained side by side."""
        if member.on_corpus and member.on_corpus.shared_stages:
            name, resources = self.session.corpus.name, self.session.resources_of(member)
            with self.failures.kept(name, member.name):
                job = Job("prepared", (member.name, seeds[0]), f"{name} {member.name} for all seeds", name, resources)
                self.workers.ahead([job])

    def _on_corpus(self, member: Member, seed: int, shared: Callable[[], None] | None) -> CorpusRun | None:
        if shared is not None:
            shared()
        with self.failures.kept(self.session.corpus.name, member.name, f"seed {seed}"):
            return corpus_run(self.session, member, seed, self.reporter, self.workers)
        return None

    def _taught(self, options: TaskOptions) -> Network | None:
        """The task's teacher."""
        s = self.session
        with self.failures.kept(options.name, TEACHER):
            self.workers.ahead([Job("taught", (options.name,), f"{options.name} {TEACHER}", options.name, s.resources_of())])
            network = teacher(s, options, self.reporter)
            augment(s, options, network, self.reporter)
            return network
        return None

    def _on_task(
        self, options: TaskOptions, member: Member, seed: int, taught: Callable[[], Network | None], earlier: Sequence[Flops]
    ) -> float:
        """A method whose supernet is trained on the task. Returns what the winners' training took."""
        network = taught()
        if network is not None and member.on_task is not None:
            with self.failures.kept(options.name, member.name, f"seed {seed}"):
                run = MethodRun(self.session, options, member, member.on_task, seed, network, self.reporter, self.workers, earlier)
                run.run()
                return run.training_flops
        return 0.0

    def _finish(
        self,
        options: TaskOptions,
        member: Member,
        seed: int,
        taught: Callable[[], Network | None],
        its: Callable[[], CorpusRun | None],
        finishing: dict[tuple[str, str, int], Flops],
    ) -> float:
        """The same of a method that was trained on the corpus."""
        network, run = taught(), its()
        if network is None or run is None:
            return 0.0
        before = run.recipe.starts_from(options.name)
        if before is not None and (before, member.name, seed) in finishing:
            finishing[before, member.name, seed]()
        with self.failures.kept(options.name, member.name, f"seed {seed}"):
            others = self._finished.setdefault((member.name, seed), {})
            others[options.name] = CorpusFinish(self.session, options, run, seed, network, self.reporter, others, self.workers)
            others[options.name].run()
            return others[options.name].training_flops()
        return 0.0

    def _truncated(self, options: TaskOptions, seed: int, taught: Callable[[], Network | None], parts: Sequence[Flops]) -> None:
        """The control that costs as much as the dearest method."""
        s, network = self.session, taught()
        flops, controls = max([0.0, *(part() for part in parts)]), s.experiment.controls.truncated_kd
        if network is not None and controls is not None:
            with self.failures.kept(options.name, NAME, f"seed {seed}"):
                name = f"{options.name} {NAME} seed {seed}"
                self.workers.ahead([Job("distilled", (options.name, seed, flops), name, options.name, s.resources_of())])
                truncated(s, options, seed, network, controls, flops, self.reporter)
