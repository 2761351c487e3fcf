"""Networks of a run read back from their stages, which must be finished: reading back does not train."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from methods.errors import UserError
from methods.network import Network
from methods.recipe import CorpusRecipe, serves
from methods.space import Architecture
from methods.training.teacher import fine_tune_teacher
from search.tables import StageRow
from workbench.experiment import DATA_SEED, TaskOptions
from workbench.session import Member, Session
from workbench.tuned import STAGE as TUNE

TEACHER = "teacher"


@dataclass(frozen=True)
class Place:
    """A folder of stages, and under which names the archive recorded them; `matters` says which of them are looked at, `recorded` that
    no others are."""

    folder: Path
    task: str
    method: str
    seed: int
    matters: Callable[[str], bool] = lambda _: True
    recorded: bool = False
    may_be_empty: bool = False


def check_trained(recorded: list[StageRow], places: Iterable[Place]) -> None:
    """Raises UserError where a stage of a folder was recorded or begun, and is not there or not finished. Stages without a step have
    nothing to be read."""
    for place in places:
        folder = place.folder
        begun = {stage.name for stage in folder.iterdir() if _is_stage(stage)} - {"tensorboard"} if folder.is_dir() else set()
        rows = [row for row in recorded if (row.task, row.method, row.seed) == (place.task, place.method, place.seed)]
        known = {row.stage for row in rows if row.steps and row.stage != TUNE}
        stages = {stage for stage in (known if place.recorded else begun | known) if place.matters(stage)}
        if not (stages or place.may_be_empty) or not all((folder / stage / "stage.json").is_file() for stage in stages):
            raise UserError(f"{folder}: the training there is not finished; go on with it first: elastibench run")


def _is_stage(folder: Path) -> bool:
    """Whether a folder is that of a stage, finished or begun; it may also hold stages of networks finished in another way, or what was
    derived."""
    marks = ("stage.json", "checkpoint.json", "weights.safetensors")
    return folder.is_dir() and (not any(folder.iterdir()) or any((folder / name).exists() for name in marks))


def task_places(session: Session, options: TaskOptions, found: Architecture, seed: int) -> list[Place]:
    """Where the teacher's stages and those of a method's network on a task lie."""
    task, folder, method = options.name, session.folder, found.method
    own = Place(folder.method(task, method, seed), task, method, seed, _of_one(found, ()))
    return [Place(folder.teacher(task), task, TEACHER, DATA_SEED), own]


def task_teacher(session: Session, options: TaskOptions) -> Network:
    """The task's fine-tuned teacher."""
    context = session.context(options, session.folder.teacher(options.name), DATA_SEED, TEACHER)
    return fine_tune_teacher(context, session.experiment.teacher)


def finished_on_corpus(
    session: Session, options: TaskOptions, member: Member, found: Architecture, seed: int, recorded: list[StageRow]
) -> Network:
    """A network whose supernet was trained on the corpus, as it was finished on a task with a seed."""
    recipe = member.on_corpus
    if recipe is None:
        raise TypeError(f"{member.name} is trained on no corpus")
    tasks = _line(session, recipe, options)
    places = _corpus_places(session, recipe, member.name, found, session.experiment.corpus_seed(seed))
    for task in tasks:
        teacher, own = task_places(session, task, found, seed)
        places += [teacher, replace(own, recorded=True)]
    check_trained(recorded, places)
    context = session.corpus_context(member.name, session.experiment.corpus_seed(seed), lambda _: None)
    pretrained = recipe.pretrain(context, recipe.train(context), found)
    network: Network | None = None
    for task in tasks:
        folder = session.folder.method(task.name, member.name, seed)
        on_task = session.context(task, folder, seed, member.name, task_teacher(session, task), recipe.reads)
        network = recipe.finish(on_task, pretrained, found, network)
    assert network is not None
    return network


def _line(session: Session, recipe: CorpusRecipe, options: TaskOptions) -> list[TaskOptions]:
    """The task after those whose networks it starts from, first to last."""
    tasks, line = {task.name: task for task in session.experiment.all_tasks}, [options]
    while (other := recipe.starts_from(line[0].name)) is not None:
        line.insert(0, tasks[other])
    return line


def _corpus_places(session: Session, recipe: CorpusRecipe, method: str, found: Architecture, seed: int) -> list[Place]:
    corpus = session.corpus.name
    shared, own = (session.folder.corpus(corpus, method, each) for each in (None, seed))
    elsewhere = (*recipe.shared_stages, *recipe.inner_stages)
    return [
        Place(shared, corpus, method, DATA_SEED, lambda stage: stage in recipe.shared_stages, recorded=True, may_be_empty=True),
        Place(own, corpus, method, seed, _of_one(found, elsewhere), recorded=True),
    ]


def _of_one(found: Architecture, without: tuple[str, ...]) -> Callable[[str], bool]:
    """Stages that serve the architecture, whether alone or with others; `without` these."""
    return lambda stage: stage not in without and serves(stage, found) is not False
