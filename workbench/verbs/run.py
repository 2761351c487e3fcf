"""`run`: from an experiment file to a run folder with a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from methods.baselines.truncated import NAME
from methods.errors import UserError
from methods.network import Network
from methods.training.processes import join_processes
from workbench import environment
from workbench.augmenting import augment, check_source
from workbench.checking import check, check_corpus, ordered_tasks
from workbench.corpus_finishing import CorpusFinish
from workbench.corpus_running import CorpusRun, corpus_run
from workbench.failing import Failures
from workbench.folder import RunFolder
from workbench.loading import load_experiment
from workbench.planning import assemble
from workbench.progress import Reporter
from workbench.report import write_report
from workbench.running import TEACHER, MethodRun, teacher
from workbench.session import Member, Session
from workbench.sizes import size_of
from workbench.speed import SHARE, matmul_rate
from workbench.truncation import truncated

if TYPE_CHECKING:
    from analysis.head_to_head import HeadToHead


@dataclass(frozen=True)
class Outcome:
    """Where the run lies, its table, and what failed, one line each: stages whose loss is not finite or that ran out of memory."""

    folder: Path
    table: HeadToHead
    failed: tuple[str, ...] = ()


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
    join_processes(session.hardware)
    with folder.held():
        _claim(session)
        environment.record(folder.environment, session.hardware.threads)
        failed = _work(session, _reporter(session))
        session.archive.close()
        try:
            return Outcome(folder.path, write_report(folder), failed)
        except UserError as error:
            raise UserError("\n".join([str(error), *failed])) from error


def _work(session: Session, reporter: Reporter) -> tuple[str, ...]:
    """Supernets of the corpus first; then one task after the other. Returns what failed."""
    experiment, failures = session.experiment, Failures(session.archive, reporter)
    on_corpus: dict[tuple[str, int], CorpusRun] = {}
    for member in session.members:
        for seed in _corpus_seeds(session, member):
            with failures.kept(session.corpus.name, member.name, f"seed {seed}"):
                on_corpus[member.name, seed] = corpus_run(session, member, seed, reporter)
    finished: dict[tuple[str, int], dict[str, CorpusFinish]] = {}
    for options in ordered_tasks(experiment, session.members, session.name):
        network: Network | None = None
        with failures.kept(options.name, TEACHER):
            network = teacher(session, options, reporter)
            augment(session, options, network, reporter)
        for seed in experiment.seeds_of(options) if network is not None else ():
            assert network is not None
            flops = [0.0]
            for member in session.members:
                its = on_corpus.get((member.name, experiment.corpus_seed(seed)))
                if not member.entry.runs(options.name, seed) or (member.on_corpus and its is None):
                    continue
                with failures.kept(options.name, member.name, f"seed {seed}"):
                    if member.on_task:
                        one = MethodRun(session, options, member, member.on_task, seed, network, reporter)
                        one.run()
                        flops.append(one.training_flops)
                    elif its is not None:
                        others = finished.setdefault((member.name, seed), {})
                        others[options.name] = CorpusFinish(session, options, its, seed, network, reporter, others)
                        others[options.name].run()
                        flops.append(others[options.name].training_flops())
            if experiment.controls.truncated_kd is not None:
                with failures.kept(options.name, NAME, f"seed {seed}"):
                    truncated(session, options, seed, network, experiment.controls.truncated_kd, max(flops), reporter)
    return tuple(failures.told)


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
