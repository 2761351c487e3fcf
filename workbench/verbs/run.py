"""`run`: from an experiment file to a run folder with a table."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from methods.errors import UserError
from methods.training.processes import by_main_process, join_processes
from search.database import reach
from workbench import environment
from workbench.augmenting import check_source
from workbench.checking import check, check_corpus
from workbench.folder import RunFolder
from workbench.loading import load_experiment
from workbench.planning import assemble
from workbench.progress import Reporter
from workbench.report import write_report
from workbench.session import Session, members_of
from workbench.sizes import size_of
from workbench.speed import SHARE, matmul_rate
from workbench.tuned import dearest, pending, record, with_tuned
from workbench.working import Work

if TYPE_CHECKING:
    from analysis.head_to_head import HeadToHead


@dataclass(frozen=True)
class Outcome:
    """Where the run lies, its table, and what failed, one line each: stages whose loss is not finite or that ran out of memory."""

    folder: Path
    table: HeadToHead
    failed: tuple[str, ...] = ()


def run(experiment: Path | str, output: Path | str | None = None, set: Sequence[str] = (), ray: str | None = None) -> Outcome:
    """Runs an experiment file, or goes on with it: what the folder (default: runs/<name of the file>) holds is not made again.

    `set`: replacements such as `methods[0].widths=[0.5,1.0]`. `ray`: `local`, `auto` or `ray://HOST:PORT`, where Ray computes the same
    numbers, as many at a time as it has room for. Raises UserError, before anything is trained, for whatever can be
    known to be wrong then.
    """
    if ray is not None:
        _check_ray(ray)
    path = Path(experiment)
    folder = RunFolder(output or Path("runs") / path.stem)
    settled = folder.examine(with_tuned(load_experiment(path, set), folder.path))
    session = Session(settled, folder, str(path))
    join_processes(session.hardware)
    check(session)
    if ray is None and pending(settled):
        raise UserError(f"{path}: tune: trials need Ray; add --ray local, or leave `tune` out with --set tune=[]")
    _open(session)
    with folder.held():
        by_main_process(lambda: _claim(session))
        failed = _work(session, ray)
        session.archive.close()
        try:
            return Outcome(folder.path, by_main_process(lambda: write_report(folder)), failed)
        except UserError as error:
            raise UserError("\n".join([str(error), *failed])) from error


def _work(session: Session, ray: str | None) -> tuple[str, ...]:
    """All parts of the run. Returns what failed."""
    reporter = _reporter(session)
    by_main_process(lambda: record(session, reporter))
    if ray is None:
        return Work(session, reporter).run()
    from search.ray_.cluster import connected
    from workbench.ray_running import RayWorkers, check_resources

    with connected(ray):
        check_resources(session, ray)
        failed: tuple[str, ...] = ()
        if pending(session.experiment):
            from workbench.tuning import tune_all

            failed = tune_all(session, reporter, RayWorkers(session, reporter))
        return failed + Work(session, reporter, RayWorkers(session, reporter)).run()


def _check_ray(address: str) -> None:
    """Raises UserError where Ray is not installed, or the address is none."""
    if importlib.util.find_spec("ray") is None:
        raise UserError("--ray: Ray is not installed; install it with: pip install 'elastibench[ray]'")
    if address not in ("local", "auto") and not address.startswith("ray://"):
        raise UserError(f"--ray {address}: write local, auto or ray://HOST:PORT")


def _claim(session: Session) -> None:
    """Makes the folder this run's. The corpus is packed there and the demo's backbone made; where that fails a folder that was new is
    given back."""
    folder, new = session.folder, not session.folder.experiment_file.exists()
    folder.claim(session.experiment)
    try:
        check_corpus(session)
        _ = session.backbone
    except UserError:
        if new:
            folder.give_back()
        raise
    environment.record(folder.environment, session.hardware.threads)


def _open(session: Session) -> None:
    """Reads what is there already while the folder is nobody's yet, so that a mistake in it can still be corrected. Raises UserError."""
    if session.experiment.backbone != "demo":
        session.backbone.weights()
        check_source(session)
    folder, archive = session.folder, session.experiment.archive
    if folder.archive.exists() or (archive and folder.experiment_file.exists()):
        session.archive.measurements()
    elif archive:
        reach(archive)


def _reporter(session: Session) -> Reporter:
    sizes = {options.name: size_of(session.task(options), options.max_length) for options in session.experiment.all_tasks}
    experiment = dearest(session.experiment, session.shape, session.name)
    plan = assemble(experiment, session.shape, members_of(experiment, session.shape, session.name), sizes)
    return Reporter(plan, SHARE * matmul_rate(session.shape, session.hardware.threads, session.experiment.hardware.precision, 0.2))
