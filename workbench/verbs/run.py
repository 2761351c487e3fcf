"""`run`: from an experiment file to a run folder with a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from workbench import environment
from workbench.folder import RunFolder
from workbench.loading import load_experiment
from workbench.planning import assemble
from workbench.progress import Reporter
from workbench.report import write_report
from workbench.running import MethodRun, teacher
from workbench.session import Session
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
    session.check()
    _open(session)
    folder.claim(settled)
    environment.record(folder.environment, session.hardware.threads)
    reporter = _reporter(session)
    for options in settled.all_tasks:
        network = teacher(session, options, reporter)
        for seed in settled.seeds:
            flops = 0.0
            for member in session.members:
                one = MethodRun(session, options, member, seed, network, reporter)
                one.run()
                flops = max(flops, one.training_flops)
            if settled.controls.truncated_kd is not None:
                truncated(session, options, seed, network, settled.controls.truncated_kd, flops, reporter)
    session.archive.close()
    return Outcome(folder.path, write_report(folder))


def _open(session: Session) -> None:
    """Reads what is there already while the folder is nobody's yet, so that a mistake in it can still be corrected. Raises UserError."""
    if session.experiment.backbone != "demo":
        session.backbone.weights()
    if session.folder.archive.exists():
        session.archive.measurements()


def _reporter(session: Session) -> Reporter:
    sizes = {options.name: size_of(session.task(options), options.max_length) for options in session.experiment.all_tasks}
    plan = assemble(session.experiment, session.shape, session.members, sizes)
    return Reporter(plan, SHARE * matmul_rate(session.shape, session.hardware.threads, 0.2))
