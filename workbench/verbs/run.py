"""`run`: from an experiment file to a run folder with a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from methods.errors import UserError
from workbench import environment
from workbench.augmenting import augment, check_source
from workbench.checking import check, check_corpus, ordered_tasks
from workbench.corpus_finishing import CorpusFinish
from workbench.corpus_running import corpus_run
from workbench.folder import RunFolder
from workbench.loading import load_experiment
from workbench.planning import assemble
from workbench.progress import Reporter
from workbench.report import write_report
from workbench.running import MethodRun, teacher
from workbench.session import Member, Session
from workbench.sizes import size_of
from workbench.speed import SHARE, matmul_rate
from workbench.truncation import truncated

if TYPE_CHECKING:
    from analysis.head_to_head import HeadToHead


@dataclass(frozen=True)
class Outcome:
    """Where the run lies, and its table."""

    folder: Path
    table: HeadToHead


def run(experiment: Path | str, output: Path | str | None = None, set: Sequence[str] = ()) -> Outcome:
    """Runs an experiment file, or goes on with it: what the folder (default: runs/<name of the file>) holds is not made again.

    `set`: replacements such as `methods[0].widths=[0.5,1.0]`. Raises UserError, before anything is trained, for whatever can be
    known to be wrong then.
    """
    path = Path(experiment)
    folder = RunFolder(output or Path("runs") / path.stem)
    settled = folder.examine(load_experiment(path, set))
    session = Session(settled, folder, str(path))
    torch.set_num_threads(session.hardware.threads)
    check(session)
    _open(session)
    _claim(session)
    environment.record(folder.environment, session.hardware.threads)
    _work(session, _reporter(session))
    session.archive.close()
    return Outcome(folder.path, write_report(folder))


def _work(session: Session, reporter: Reporter) -> None:
    """Supernets of the corpus first; then one task after the other."""
    experiment = session.experiment
    on_corpus = {(m.name, seed): corpus_run(session, m, seed, reporter) for m in session.members for seed in _corpus_seeds(session, m)}
    finished: dict[tuple[str, int], dict[str, CorpusFinish]] = {}
    for options in ordered_tasks(experiment, session.members, session.name):
        network = teacher(session, options, reporter)
        augment(session, options, network, reporter)
        for seed in experiment.seeds_of(options):
            flops = 0.0
            for member in session.members:
                if not member.entry.runs(options.name, seed):
                    continue
                if member.on_task:
                    one = MethodRun(session, options, member, member.on_task, seed, network, reporter)
                    one.run()
                    flops = max(flops, one.training_flops)
                else:
                    others = finished.setdefault((member.name, seed), {})
                    its = on_corpus[member.name, experiment.corpus_seed(seed)]
                    others[options.name] = CorpusFinish(session, options, its, seed, network, reporter, others)
                    others[options.name].run()
                    flops = max(flops, others[options.name].training_flops())
            if experiment.controls.truncated_kd is not None:
                truncated(session, options, seed, network, experiment.controls.truncated_kd, flops, reporter)


def _corpus_seeds(session: Session, member: Member) -> tuple[int, ...]:
    return session.experiment.corpus_seeds(member.entry) if member.on_corpus else ()


def _claim(session: Session) -> None:
    """Makes the folder this run's. The corpus is packed there; where that fails a folder that was new is given back."""
    folder, new = session.folder, not session.folder.experiment_file.exists()
    folder.claim(session.experiment)
    try:
        check_corpus(session)
    except UserError:
        if new:
            folder.give_back()
        raise


def _open(session: Session) -> None:
    """Reads what is there already while the folder is nobody's yet, so that a mistake in it can still be corrected. Raises UserError."""
    if session.experiment.backbone != "demo":
        session.backbone.weights()
        check_source(session)
    if session.folder.archive.exists():
        session.archive.measurements()


def _reporter(session: Session) -> Reporter:
    sizes = {options.name: size_of(session.task(options), options.max_length) for options in session.experiment.all_tasks}
    plan = assemble(session.experiment, session.shape, session.members, sizes)
    return Reporter(plan, SHARE * matmul_rate(session.shape, session.hardware.threads, 0.2))
