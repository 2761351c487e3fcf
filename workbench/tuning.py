"""Hyper-parameters before the run: trials on Ray Tune, the best options as a row of the comparison, and what it took in the archive."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import torch

from methods.errors import StageError
from methods.training.checkpoint import hand_over, write_atomically
from search.archive import Archive
from search.measurement import Measurement
from search.ray_.tuning import PROGRESS, QUALITY, Row, Tuning, handed, quiet, report, reports, scratch
from workbench import jobs
from workbench.failing import Failures
from workbench.progress import Reporter
from workbench.ray_running import Home, RayWorkers, ray_options, session_of
from workbench.session import Session
from workbench.trial import SPENT, rated, trial_run
from workbench.tune_options import TuneEntry
from workbench.tuned import STAGE, Trial, Tuned, entry_of, pending, record, result_file, task_of, with_row
from workbench.workers import Job


def tune_all(session: Session, reporter: Reporter, workers: RayWorkers) -> tuple[str, ...]:
    """Tunes what is not tuned yet; the session goes on with the rows that this adds. Returns what failed."""
    failures = Failures(session.archive, reporter)
    for tune in pending(session.experiment):
        with failures.kept(task_of(session.experiment, tune).name, tune.label, STAGE):
            found = tuned(session, tune, reporter, workers)
            session.take(with_row(session.experiment, tune, found.best))
            session.folder.claim(session.experiment)
            record(session, reporter)
    reporter.begin_anew()
    return tuple(failures.told)


def tuned(session: Session, tune: TuneEntry, reporter: Reporter, workers: RayWorkers) -> Tuned:
    """The best parameters of a method, kept in the run folder."""
    file, options = result_file(session.folder.path, tune), task_of(session.experiment, tune)
    called = f"{options.name} · {tune.method} · tuning"
    workers.ahead([Job("taught", (options.name,), f"{options.name} teacher", options.name, session.resources_of())])
    reporter.say(options.name, tune.method, f"tuning with up to {tune.trials} trials")
    member, task = session.members[entry_of(session.experiment, tune)[0]], session.task(options)
    tuning = Tuning(
        f"{tune.method}-{_name(file.parent / 'name')}",
        called,
        {path: (domain.kind, domain.values) for path, domain in tune.parameters.items()},
        tune.trials,
        tune.exhaustive,
        tune.seed,
        tune.scheduler.grace,
        tune.scheduler.reduction,
        tune.concurrent,
        tune.storage or str(file.parent.resolve() / "ray"),
        file.parent / "reports.jsonl",
        task.spec.metric,
        _resources(ray_options(session.resources_of(member), session)),
    )
    tuning.run(partial(train, Home.of(session), tune, tuple(session.archive.measurements(options.name))))
    trials = [_trial(rows) for rows in _by_trial(reports(tuning.journal))]
    ended = [trial for trial in trials if trial.ended == "finished" and trial.quality is not None]
    if not ended:
        why = next((trial.ended for trial in trials if trial.ended.startswith("failed")), "none came to its end")
        raise StageError(f"none of {len(trials)} trials is of use; {why}; write other parameters in a new run folder")
    best = max(ended, key=lambda trial: cast(float, trial.quality))
    shown = [architecture.canonical for architecture in rated(session, member, options)]
    found = Tuned(tune.method, options.name, task.spec.metric, shown, best.parameters, cast(float, best.quality), trials)
    found.save(file)
    reporter.say(options.name, tune.label, found.told())
    return found


def train(home: Home, tune: TuneEntry, known: tuple[Measurement, ...], values: dict[str, Any]) -> None:
    """A trial in a worker, to its end or until Tune stops it."""
    quiet()
    session = session_of(home)
    session.archive = cast(Archive, jobs.Collected(known))
    torch.set_num_threads(session.hardware.threads)
    teacher = jobs.teacher_of(session, task_of(session.experiment, tune).name)
    with scratch() as at:
        folder = Path(at, "stages")
        handed(folder)
        trial_run(session, tune, values, teacher, folder, partial(_report, folder)).run()


def _report(folder: Path, said: dict[str, Any], keep: bool) -> None:
    if not keep:
        report(said)
        return
    with scratch() as aside:
        hand_over(folder, Path(aside, "stages"))
        report(said, Path(aside, "stages"))


def _name(file: Path) -> str:
    """What tells this run's trials from others' in the same storage."""
    if not file.exists():
        write_atomically(file, uuid4().hex[:12])
    return file.read_text()


def _resources(options: dict[str, Any]) -> dict[str, float]:
    names = {"num_cpus": "cpu", "num_gpus": "gpu", "memory": "memory"}
    return {names[name]: amount for name, amount in options.items() if amount}


def _by_trial(rows: list[Row]) -> list[list[Row]]:
    names = dict.fromkeys(row["trial"] for row in rows)
    return [[row for row in rows if row["trial"] == name] for name in names]


def _trial(rows: list[Row]) -> Trial:
    """A trial from its reports; training and ratings together."""
    last = rows[-1]
    spent = {name: last[name] for name in SPENT}
    spent["flops"] += sum(row.get("rating_flops", 0.0) for row in rows)
    spent["seconds"] += sum(row.get("rating_seconds", 0.0) for row in rows)
    ended = f"failed: {last['failed']}" if "failed" in last else "finished" if last[PROGRESS] >= 1 else "stopped"
    return Trial(last["parameters"], last[QUALITY], last[PROGRESS], ended, **spent)
