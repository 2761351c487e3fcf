"""What workers compute of a run, by name: the same code that a run without workers goes through, in a process that knows the run folder.

Each function below `run_on_corpus` can be a `Job.call`. Stages leave their weights in the run folder. What is measured is handed over to
the driver, which alone writes into the archive.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console

from methods.budget import Budget
from methods.errors import UserError
from methods.recipe import Estimate, StageRecord
from methods.space import Architecture
from search.loop import Evaluated
from search.measurement import Key, Kind, Measurement
from search.predictions import Predictions
from workbench.augmenting import augment
from workbench.corpus_finishing import CorpusFinish
from workbench.corpus_running import Chosen, CorpusRun
from workbench.experiment import TaskOptions
from workbench.planning import Plan
from workbench.progress import Reporter
from workbench.running import MethodRun, teacher
from workbench.session import Member, Session
from workbench.task_controls import TaskControls
from workbench.truncation import truncated

if TYPE_CHECKING:
    from methods.network import Network


class Collected:
    """Stands for the archive in a worker: answers from `known`, and keeps what is added so that it can be handed over."""

    def __init__(self, known: Iterable[Measurement]) -> None:
        self._known = {m.key: m for m in known}
        self.added: list[Evaluated] = []
        self.stages: list[tuple[str, str, int, StageRecord]] = []

    def get(self, key: Key) -> Measurement | None:
        return self._known.get(key)

    def find(self, architecture_id: str, task: str, split_digest: str, weights_digest: str, kind: Kind) -> Measurement | None:
        return self.get((architecture_id, task, split_digest, weights_digest, kind))

    def add(self, measurement: Measurement, predictions: Predictions | None = None) -> bool:
        if measurement.key in self._known:
            return False
        self._known[measurement.key] = measurement
        self.added.append((measurement, predictions))
        return True

    def record_stage(self, task: str, method: str, seed: int, record: StageRecord) -> None:
        self.stages.append((task, method, seed, record))


def quiet() -> Reporter:
    """The driver reports."""
    return Reporter(Plan((), (), ()), 1.0, Console(quiet=True))


def member_called(session: Session, name: str) -> Member:
    return next(member for member in session.members if member.name == name)


def task_called(session: Session, name: str) -> TaskOptions:
    return next(options for options in session.experiment.all_tasks if options.name == name)


def teacher_of(session: Session, task: str) -> Network:
    """Read back; each process reads it once."""
    kept: dict[str, Network] = session.__dict__.setdefault("_teachers", {})
    if task not in kept:
        kept[task] = teacher(session, task_called(session, task), quiet())
    return kept[task]


def run_of(session: Session, task: str, method: str, seed: int) -> MethodRun:
    """The run of a method, in a process of its own."""
    member, options = member_called(session, method), task_called(session, task)
    if member.on_task is None:
        raise UserError(f"{method} is not trained on a task")
    return MethodRun(session, options, member, member.on_task, seed, teacher_of(session, task), quiet())


def method_run(session: Session, task: str, method: str, seed: int) -> MethodRun:
    """The same with its supernet, trained or read back; the last one is kept, so that the next job finds it."""
    run: MethodRun = _with_supernet(session, run_of(session, task, method, seed), (task, method, seed))
    return run


def run_on_corpus(session: Session, method: str, seed: int, trained: bool = True) -> CorpusRun:
    """The same of a method that is trained on the corpus."""
    member = member_called(session, method)
    if member.on_corpus is None:
        raise UserError(f"{method} is not trained on a corpus")
    run = CorpusRun(session, member, member.on_corpus, seed, quiet())
    if trained:
        _with_supernet(session, run, (method, seed))
    return run


def _with_supernet(session: Session, run: Any, key: tuple[Any, ...]) -> Any:
    kept: dict[tuple[Any, ...], Any] = session.__dict__.setdefault("_supernets", {})
    if key not in kept:
        kept.clear()
        kept[key] = run.supernet
    run.__dict__["supernet"] = kept[key]
    return run


def taught(session: Session, task: str) -> None:
    """The task's teacher, and the copies of its rows."""
    augment(session, task_called(session, task), teacher_of(session, task), quiet())


def trained(session: Session, task: str, method: str, seed: int) -> None:
    """The stages up to the trained supernet."""
    method_run(session, task, method, seed)


def finished(session: Session, task: str, method: str, seed: int, architecture: Architecture, control: str) -> None:
    """What ships of an architecture, measured."""
    method_run(session, task, method, seed).finish(architecture, control)


def floors(session: Session, task: str, method: str, seed: int, budget: Budget) -> None:
    TaskControls(method_run(session, task, method, seed)).floors(budget)


def beside(session: Session, task: str, method: str, seed: int, winner: Architecture, budget: Budget) -> None:
    TaskControls(method_run(session, task, method, seed)).beside(winner, budget)


def quantised(session: Session, task: str, method: str, seed: int, winner: Architecture) -> None:
    """A winner's ONNX file with weights of 8 bit, measured."""
    TaskControls(method_run(session, task, method, seed)).quantised(winner)


def untrained(session: Session, task: str, method: str, seed: int, chosen: Sequence[Architecture]) -> None:
    TaskControls(method_run(session, task, method, seed)).untrained(chosen)


def reported(session: Session, task: str, method: str, seed: int) -> None:
    """Every architecture with the supernet's weights on `validation`."""
    method_run(session, task, method, seed).report_all()


def distilled(session: Session, task: str, seed: int, flops: float) -> None:
    """The truncated teacher."""
    controls = session.experiment.controls.truncated_kd
    if controls is not None:
        truncated(session, task_called(session, task), seed, teacher_of(session, task), controls, flops, quiet())


def prepared(session: Session, method: str, seed: int) -> None:
    """The stages that serve all seeds."""
    run = run_on_corpus(session, method, seed, trained=False)
    run.recipe.prepare(run.context)


def part_trained(session: Session, method: str, seed: int, part: int) -> None:
    """A part of the supernet that can be trained by itself."""
    run = run_on_corpus(session, method, seed, trained=False)
    run.recipe.train_part(run.context, part)


def trained_on_corpus(session: Session, method: str, seed: int) -> None:
    run_on_corpus(session, method, seed)


def assembled(session: Session, method: str, seed: int, estimates: Sequence[Estimate]) -> None:
    """Whole networks with the supernet's weights."""
    run_on_corpus(session, method, seed).assemble(estimates)


def pre_trained(session: Session, method: str, seed: int, chosen: Chosen) -> None:
    """A chosen network pre-trained on the corpus, measured there."""
    run_on_corpus(session, method, seed).measure(chosen)


def fine_tuned(session: Session, task: str, method: str, seed: int, corpus_seed: int, chosen: Chosen) -> None:
    """A pre-trained network fine-tuned on a task, measured there."""
    _finish(session, task, run_on_corpus(session, method, corpus_seed), seed).measure(chosen)


def _finish(session: Session, task: str, run: CorpusRun, seed: int) -> CorpusFinish:
    """With those of other tasks that it starts from."""
    other = run.recipe.starts_from(task)
    others = {} if other is None else {other: _finish(session, other, run, seed)}
    return CorpusFinish(session, task_called(session, task), run, seed, teacher_of(session, task), quiet(), others)
