"""Hyper-parameters searched by Ray Tune: trials side by side, bad ones stopped early, the whole of it resumable."""

from __future__ import annotations

import json
import logging
import math
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import TPESampler
from ray import tune
from ray.tune.callback import Callback
from ray.tune.experiment import Trial
from ray.tune.schedulers import AsyncHyperBandScheduler
from ray.tune.search.optuna import OptunaSearch

from methods.errors import StageError, UserError
from search.ray_.tasks import RETRIES

PROGRESS, QUALITY = "progress", "quality"
SETTINGS = {
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
}
_DOMAINS: Mapping[str, Callable[..., Any]] = {
    "uniform": tune.uniform,
    "loguniform": tune.loguniform,
    "integer": lambda low, high: tune.randint(low, high + 1),
    "choice": lambda *values: tune.choice(list(values)),
}
Row = dict[str, Any]
"""A report in the journal: what the trial said, with its name, its parameters and the scheduler's decision."""


class JournaledAsha(AsyncHyperBandScheduler):
    """ASHA on the share of a trial's training. Every report is appended to a journal, from which the scheduler of a driver that was
    started again has what was decided so far: Tune does not keep that. `place`: where the journal lies by now, its folder being moved."""

    place: Path | None = None

    def __init__(self, journal: str, grace: float, reduction: float) -> None:
        super().__init__(PROGRESS, max_t=1.0, grace_period=grace, reduction_factor=reduction)  # type: ignore[arg-type]
        self.journal = Path(journal)
        self.names: dict[str, str] = {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.journal = type(self).place or self.journal

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        super().on_trial_add(tune_controller, trial)
        told = reports(self.journal)
        self.names.setdefault(trial.trial_id, self._name(trial, told))
        for row in told:
            if row["trial"] == self.names[trial.trial_id]:
                super().on_trial_result(tune_controller, trial, _told(row))

    def _name(self, trial: Trial, told: Sequence[Row]) -> str:
        """In the journal: its own, or that of a trial of these parameters which Tune had not saved when its driver was killed."""
        known = [row["trial"] for row in told]
        lost = [row["trial"] for row in told if row["parameters"] == trial.config and row["trial"] not in self.names.values()]
        return trial.trial_id if trial.trial_id in known or not lost else str(lost[0])

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: Mapping[str, Any]) -> str:
        name = self.names[trial.trial_id]
        for row in reports(self.journal):
            if (row["trial"], row[PROGRESS]) == (name, result[PROGRESS]):
                return str(row["decision"])
        decision = super().on_trial_result(tune_controller, trial, dict(result))
        line = {"trial": name, "parameters": trial.config, "decision": decision, **json.loads(result["said"])}
        with self.journal.open("a") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())
        return decision


def _told(row: Row) -> dict[str, float]:
    return {PROGRESS: row[PROGRESS], QUALITY: -math.inf if row[QUALITY] is None else row[QUALITY]}


def reports(journal: Path) -> list[Row]:
    """All reports so far; a line that a killed driver has not written to its end does not count."""
    found = []
    for line in journal.read_text().splitlines() if journal.exists() else ():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


class Told(Callback):
    """Says a line for each report, with the time left."""

    def __init__(self, name: str, trials: int, metric: str) -> None:
        self.name, self.trials, self.metric = name, trials, metric
        self.names: list[str] = []
        self.ended: set[str] = set()
        self.begun = 0

    def setup(self, *_: Any, **__: Any) -> None:
        self.started, self.begun = time.monotonic(), len(self.ended)

    def on_trial_result(self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **_: Any) -> None:  # noqa: ARG002
        said = json.loads(result["said"])
        quality = "no rating" if said[QUALITY] is None else f"{self.metric} {said[QUALITY]:.4f}"
        rated = said.get("failed") or f"{quality} after {said[PROGRESS]:.0%}"
        if result.get("done"):
            self.ended.add(trial.trial_id)
            rated += "" if said[PROGRESS] >= 1 else ", stopped"
        print(f"{self.name} · trial {self._number(trial)} of {self.trials}: {rated}  ({self._left()})", file=sys.stderr, flush=True)

    def _number(self, trial: Trial) -> int:
        if trial.trial_id not in self.names:
            self.names.append(trial.trial_id)
        return self.names.index(trial.trial_id) + 1

    def _left(self) -> str:
        now = len(self.ended) - self.begun
        if not now:
            return f"{len(self.ended)} ended"
        seconds = (time.monotonic() - self.started) / now * (self.trials - len(self.ended))
        return f"{len(self.ended)} ended, about {seconds:,.0f} s left"


@dataclass(frozen=True)
class Tuning:
    """`domains`: name -> (kind, values). `storage`: a directory or URL; `journal`: a file of the driver's. `name`: of the folder in the
    storage; `called`: how messages call it."""

    name: str
    called: str
    domains: Mapping[str, tuple[str, tuple[Any, ...]]]
    samples: int
    exhaustive: bool
    seed: int
    grace: float
    reduction: float
    concurrent: int | None
    storage: str
    journal: Path
    metric: str
    resources: Mapping[str, float]

    def run(self, train: Callable[[dict[str, Any]], None]) -> None:
        """All trials, those of a driver that was killed read back or gone on with. The journal has what they said.

        `train` is called in a worker with a value for each domain, and calls `report`. Raises StageError where trials raised.
        """
        os.environ.update(SETTINGS)
        quiet()
        place = f"{self.storage.rstrip('/')}/{self.name}"
        trainable = tune.with_resources(_trainable(train), dict(self.resources))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                known = tune.Tuner.can_restore(place)
                tuner = self._restored(place, trainable) if known else self._begun(trainable)
        except (OSError, ImportError, ValueError) as error:  # Arrow's own are among them
            raise UserError(f"{self.called}: {place} can't be used ({_line(error)}); write another storage under `tune`") from error
        try:
            grid = tuner.fit()
        except (tune.TuneError, OSError) as error:
            raise StageError(f"{self.called}: {_line(error)}") from error
        for found in (grid[index] for index in range(len(grid))):
            if found.checkpoint is not None:
                found.checkpoint.filesystem.delete_dir(found.checkpoint.path)
        if grid.errors:
            more = f" (and {len(grid.errors) - 1} more)" if len(grid.errors) > 1 else ""
            raise StageError(f"{self.called}: {_line(grid.errors[0])}{more}")

    def _space(self) -> dict[str, Any]:
        if self.exhaustive:
            return {name: tune.grid_search(_listed(*domain)) for name, domain in self.domains.items()}
        return {name: _DOMAINS[kind](*values) for name, (kind, values) in self.domains.items()}

    def _restored(self, place: str, trainable: Any) -> tune.Tuner:
        JournaledAsha.place = self.journal
        return tune.Tuner.restore(place, trainable, resume_unfinished=True, resume_errored=True, param_space=self._space())

    def _begun(self, trainable: Any) -> tune.Tuner:
        searcher = None if self.exhaustive else OptunaSearch(sampler=TPESampler(seed=self.seed))
        how = tune.TuneConfig(
            metric=QUALITY,
            mode="max",
            search_alg=searcher,
            scheduler=JournaledAsha(str(self.journal), self.grace, self.reduction),
            num_samples=1 if self.exhaustive else self.samples,
            max_concurrent_trials=self.concurrent,
            reuse_actors=True,
        )
        where = tune.RunConfig(
            name=self.name,
            storage_path=self.storage,
            failure_config=tune.FailureConfig(max_failures=RETRIES),
            checkpoint_config=tune.CheckpointConfig(num_to_keep=1),
            callbacks=[Told(self.called, self.samples, self.metric)],
            verbose=0,
        )
        return tune.Tuner(trainable, param_space=self._space(), tune_config=how, run_config=where)


def _listed(kind: str, values: tuple[Any, ...]) -> list[Any]:
    return list(values) if kind == "choice" else list(range(values[0], values[1] + 1))


def _trainable(train: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, Any]], None]:
    def trial(config: dict[str, Any]) -> None:
        train(config)

    return trial


def report(said: Mapping[str, Any], folder: Path | None = None) -> None:
    """Tells Tune what a trial says (plain data with `progress` and `quality`, None being the worst) and, where there is a `folder`, that
    the trial can go on from it. Does not return where the trial is stopped."""
    result = {**_told(dict(said)), "said": json.dumps(said)}
    tune.report(result, checkpoint=None if folder is None else tune.Checkpoint.from_directory(str(folder)))


def handed(folder: Path) -> None:
    """What the trial reported last, on whatever node, into an empty folder."""
    checkpoint = tune.get_checkpoint()
    if checkpoint is not None:
        checkpoint.to_directory(str(folder))


def quiet() -> None:
    """Of Tune and Optuna only mistakes are heard."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    for name in ("ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.ERROR)


def scratch() -> tempfile.TemporaryDirectory[str]:
    """A folder on the node for a trial's stages."""
    return tempfile.TemporaryDirectory(prefix="elastibench-trial-")


def _line(error: BaseException) -> str:
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return (lines[-1].strip() if lines else "") or type(error).__name__
