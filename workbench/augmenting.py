"""A task's training rows with other words in them: made once, shared by all methods and seeds of an experiment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from methods.errors import UserError
from methods.recipe import Context, StageRecord
from methods.tasks.task import AUGMENTED, Task
from methods.training.augmentation import building
from methods.training.augmentation.soft_labels import SoftLabels
from methods.training.augmentation.source import models_of
from workbench.experiment import DATA_SEED, TaskOptions

if TYPE_CHECKING:
    from methods.network import Network
    from workbench.progress import Reporter
    from workbench.session import Session

NAME = "augmentation"
"""Its stages are recorded under this name; as the teacher's, they are no method's own."""


@dataclass(frozen=True)
class AugmentedTask:
    """`task` has the split `augmented`, all others as they are; `soft_labels` are the teacher's of that split."""

    task: Task
    soft_labels: SoftLabels


def augmented_task(session: Session, options: TaskOptions, teacher: Network) -> AugmentedTask:
    """The copies that the experiment asks for: made in the run folder, or read back. Raises UserError."""
    task = session.task(options)

    def record(stage: StageRecord) -> None:
        session.archive.record_stage(task.name, NAME, DATA_SEED, stage)

    folder, view = session.folder.augmented(task.name), task.restricted("train", "search")
    context = Context(folder, session.backbone, view, DATA_SEED, teacher, session.hardware, record, options.max_length)
    whole = task.with_copies(building.augment(context, session.experiment.augmentation))
    return AugmentedTask(whole, SoftLabels(context, teacher, whole.split(AUGMENTED)))


def check_source(session: Session) -> None:
    """Raises UserError where other words can't be had as the experiment says."""
    options = session.experiment.augmentation
    if options.copies:
        try:
            models_of(options, session.backbone)
        except UserError as error:
            raise UserError(f"{session.name}: {error}") from error


def augment(session: Session, options: TaskOptions, teacher: Network, reporter: Reporter) -> None:
    """Makes the copies before anything is trained on them, where the experiment asks for any."""
    if session.experiment.augmentation.copies:
        reporter.say(options.name, NAME)
        session.augmented(options, teacher)
        reporter.finished(options.name, NAME, building.STAGE)
