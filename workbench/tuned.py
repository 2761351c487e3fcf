"""What tuning found, as the run folder keeps it, and the experiment with the rows that it adds."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from methods.backbone import BackboneConfig
from methods.errors import UserError
from methods.recipe import StageRecord
from methods.tasks.head import Head
from methods.training.checkpoint import write_atomically
from workbench.experiment import Experiment, MethodEntry, TaskOptions
from workbench.session import Member, Session, member_of
from workbench.tune_options import TuneEntry, with_values

if TYPE_CHECKING:
    from workbench.progress import Reporter

STAGE = "tune"
"""What the archive and the plan call it."""


@dataclass(frozen=True)
class Trial:
    """What became of one: its parameters, its last rating on `search` (None: it failed), what share of its training it did, and what
    training and ratings took. `ended`: `finished`, `stopped` (by ASHA) or `failed: why`."""

    parameters: dict[str, Any]
    quality: float | None
    progress: float
    ended: str
    steps: int
    examples: int
    flops: float
    seconds: float
    subnetwork_steps: int


@dataclass(frozen=True)
class Tuned:
    """The best parameters of a method, found on a task, and all trials in the order in which they began."""

    method: str
    task: str
    metric: str
    rated: list[str]
    best: dict[str, Any]
    quality: float
    trials: list[Trial]

    def save(self, path: Path) -> None:
        write_atomically(path, json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Tuned | None:
        """None where nothing is tuned yet. Raises UserError where the file is damaged."""
        try:
            data = json.loads(path.read_text())
            return cls(**{**data, "trials": [Trial(**trial) for trial in data["trials"]]})
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: damaged ({error}); remove the folder {path.parent} to tune anew") from error

    @property
    def record(self) -> StageRecord:
        """What all trials took together."""
        names = ("steps", "examples", "flops", "seconds", "subnetwork_steps")
        return StageRecord(STAGE, *(sum(getattr(trial, name) for trial in self.trials) for name in names))

    def told(self) -> str:
        """In a sentence."""
        stopped = sum(trial.ended == "stopped" for trial in self.trials)
        failed = sum(trial.ended.startswith("failed") for trial in self.trials)
        found = ", ".join(f"{name} {_short(value)}" for name, value in self.best.items())
        ends = f"{stopped} stopped early" + (f", {failed} failed" if failed else "")
        spent = f"{self.record.flops / 1e12:,.3g} TFLOPs, {self.record.seconds:,.0f} s"
        return (
            f"{found}: best of {len(self.trials)} trials on {self.task} ({ends}) with {self.metric} {self.quality:.4f} on search; "
            f"{spent}, counted whole in the training of each of its networks"
        )


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool | None) else str(value)


def entry_of(experiment: Experiment, tune: TuneEntry) -> tuple[int, MethodEntry]:
    """The entry of `methods` that is tuned, and its place."""
    return next((index, entry) for index, entry in enumerate(experiment.methods) if entry.label == tune.method)


def task_of(experiment: Experiment, tune: TuneEntry) -> TaskOptions:
    """The task that the trials train on."""
    own = experiment.tasks_of(entry_of(experiment, tune)[1])
    return next(task for task in own if tune.task in (None, task.name))


def pending(experiment: Experiment) -> list[TuneEntry]:
    """What is not tuned yet."""
    labels = [entry.label for entry in experiment.methods]
    return [tune for tune in experiment.tune if tune.label not in labels]


def with_values_of(entry: MethodEntry, values: dict[str, Any], label: str) -> MethodEntry:
    """An entry with some other options, called `label`."""
    options = {**with_values(entry.options.model_dump(mode="json"), values), "label": label}
    rest = {name: getattr(entry, name) for name in ("name", "tasks", "seeds", "controls", "resources")}
    return MethodEntry(**rest, **options)


def with_row(experiment: Experiment, tune: TuneEntry, values: dict[str, Any]) -> Experiment:
    """The experiment with the tuned row behind the untuned one."""
    index, entry = entry_of(experiment, tune)
    methods = [*experiment.methods[: index + 1], with_values_of(entry, values, tune.label), *experiment.methods[index + 1 :]]
    return experiment.model_copy(update={"methods": tuple(methods)})


def with_tuned(experiment: Experiment, folder: Path) -> Experiment:
    """The experiment with a row for all that is tuned in a run folder. Raises UserError where what lies there is damaged."""
    for tune in pending(experiment):
        found = Tuned.load(result_file(folder, tune))
        experiment = with_row(experiment, tune, found.best) if found else experiment
    return experiment


def record(session: Session, reporter: Reporter) -> None:
    """What tuning took, in the archive: under every task and seed of a tuned row, whose networks would not have been without it."""
    experiment = session.experiment
    for tune in experiment.tune:
        found = Tuned.load(result_file(session.folder.path, tune))
        if found is None:
            continue
        _, entry = entry_of(experiment, tune)
        for options in experiment.tasks_of(entry):
            for seed in (seed for seed in experiment.seeds_of(options) if entry.runs(options.name, seed)):
                session.archive.record_stage(options.name, tune.label, seed, found.record)
            session.archive.note(f"{options.name}, {tune.label}, {STAGE}", found.told())
        reporter.finished(found.task, tune.label, STAGE)


def result_file(folder: Path, tune: TuneEntry) -> Path:
    return folder / "tune" / tune.method / "tuned.json"


def dearest(experiment: Experiment, backbone: BackboneConfig, name: str) -> Experiment:
    """The experiment with rows for what is to be tuned yet, each with those values of its domains that cost most."""
    for tune in pending(experiment):
        index, entry = entry_of(experiment, tune)
        head, chosen = task_of(experiment, tune).spec.head, dict[str, Any]()
        for path, domain in tune.parameters.items():
            options = [with_values_of(entry, chosen | {path: value}, tune.label) for value in domain.values]
            flops = [planned_flops(member_of(each, index, backbone, name), backbone, head) for each in options]
            chosen[path] = domain.values[flops.index(max(flops))]
        experiment = with_row(experiment, tune, chosen)
    return experiment


def planned_flops(member: Member, backbone: BackboneConfig, head: Head, rows: int = 1000, length: int = 32) -> float:
    """Of one training and, where that is training too, of finishing one network."""
    return sum(stage.flops for stage in member.recipe.plan(member.space, backbone, head, rows, min(length, backbone.positions)))
