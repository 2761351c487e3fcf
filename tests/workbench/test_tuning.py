"""Tuning without a cluster: what an experiment may say of it, what a trial trains and says; looking at training changes nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import yaml
from torch import nn

import workbench
from methods.adabert.recipe import AdaBertRecipe
from methods.backbone import Backbone
from methods.dynabert.options import DynaBertOptions
from methods.dynabert.recipe import DynaBertRecipe
from methods.errors import UserError
from methods.evaluation import weights_digest
from methods.network import Network
from methods.recipe import Context, Hardware, StageRecord, TaskRecipe
from methods.supernet import Supernet
from methods.tasks.task import Task
from methods.training.checkpoint import hand_over
from search.archive import Archive
from tests.methods.adabert_search_cases import context_of, options_of
from tests.workbench.test_adabert_run import experiment_of, write_data
from workbench import jobs
from workbench.folder import RunFolder
from workbench.loading import check, load_experiment
from workbench.planning import make_plan
from workbench.session import Session
from workbench.trial import SPENT, rated, trial_run
from workbench.tuned import Trial, Tuned, dearest, pending, record, result_file, with_tuned

SCHEDULE = {"epochs": 1, "learning_rate": 0.003, "batch_size": 16}
RATES = {"width.learning_rate": {"choice": [0.003, 50.0]}, "depth.learning_rate": {"loguniform": [0.001, 0.003]}}


def tuning_of(folder: Path, backbone: Path, **tune: Any) -> dict[str, Any]:
    """DynaBERT on a task that it learns, without controls."""
    return {
        "backbone": str(backbone),
        "task": write_data(folder / "single", pair=False),
        "teacher": {"schedule": {"epochs": 4, "learning_rate": 0.01, "batch_size": 16}},
        "methods": [{"name": "dynabert", "widths": [0.5, 1.0], "depths": [0.5, 1.0], "width": SCHEDULE, "depth": SCHEDULE}],
        "controls": {"random": 0, "untrained": False, "truncated_kd": None},
        "budgets": [{"name": "small", "max_flops": "150K"}, {"name": "all", "max_flops": "1G"}],
        "cost": {"length": 16, "batch": 1},
        "hardware": {"device": "cpu", "threads": 1},
        "tune": [{"method": "dynabert", "samples": 4, "reports": 2, "concurrent": 1, "parameters": RATES, **tune}],
    }


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, tiny_backbone_folder: Path) -> dict[str, Any]:
    return tuning_of(tmp_path_factory.mktemp("tuning"), tiny_backbone_folder)


def written(folder: Path, data: dict[str, Any], **changes: Any) -> Path:
    path = folder / "my.yaml"
    path.write_text(yaml.safe_dump({**data, **changes}))
    return path


@pytest.mark.parametrize(
    ("tune", "said"),
    [
        ({"method": "dynabart"}, "tune[0].method: there is no method 'dynabart'; there are dynabert"),
        ({"task": "sst2"}, "tune[0].task: dynabert is not run on 'sst2'; it is run on single"),
        ({"parameters": {}}, "tune[0].parameters: "),
        ({"parameters": {"width.learning_rate": {"uniform": [1e-3, 1e-4]}}}, "first value must be below the second, got [0.001, 0.0001]"),
        ({"parameters": {"width.learning_rate": {"loguniform": [0, 1]}}}, "loguniform: values must be above 0"),
        ({"parameters": {"width.learning_rate": {"loguniform": [1e-4, 1], "choice": [1, 2]}}}, "write one of uniform, loguniform, integer"),
        ({"parameters": {"width.epochs": {"choice": [1, 1.0]}}}, "values must be distinct"),
        ({"samples": 0}, "tune[0].samples: "),
        ({"scheduler": {"grace": 1.5}}, "tune[0].scheduler.grace: "),
        ({"parameters": {"width.lerning_rate": {"choice": [1, 2]}}}, "width.lerning_rate: unknown key; did you mean learning_rate?"),
        ({"parameters": {"width.learning_rate": {"uniform": [-1, 1]}}}, "parameters.width.learning_rate: input should be greater than 0"),
        ({"parameters": {"width.batch_size": {"uniform": [1, 4]}}}, "tune[0].parameters.width.batch_size: .*write integer: [LOW, HIGH]"),
        ({"parameters": {"width.objective": {"choice": ["task", "tusk"]}}}, "tune[0].parameters.width.objective: .*'tusk'"),
        ({"parameters": {"final.learning_rate": {"choice": [1, 2]}}}, "final is null in methods[0]; write it there"),
        ({"parameters": {"widths.low": {"choice": [1, 2]}}}, "widths is [0.5, 1.0] in methods[0]; it has no options of its own"),
        ({"parameters": {"label": {"choice": ["a", "b"]}}}, "tune[0].parameters.label: is a name"),
        ({"parameters": {"space": {"choice": ["grid", "elastic"]}}}, "parameters.space: changes the search space (with 'elastic')"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_by_its_place(data: dict[str, Any], tmp_path: Path, tune: dict[str, Any], said: str) -> None:
    path = written(tmp_path, data, tune=[{**data["tune"][0], **tune}])
    with pytest.raises(UserError) as mistake:
        make_plan(load_experiment(path), str(path))
    assert str(mistake.value).startswith(f"{path}: ") and all(part in str(mistake.value) for part in said.split(".*"))


def test_a_method_of_the_corpus_is_refused(data: dict[str, Any], tmp_path: Path) -> None:
    changes = {"methods": [{"name": "nasbert", "blocks": 2}], "corpus": {"name": "text", "data": "generated"}}
    tune = [{"method": "nasbert", "parameters": {"finetune.epochs": {"choice": [1, 2]}}}]
    path = written(tmp_path, data, **changes, tune=tune)
    with pytest.raises(UserError, match=r"tune\[0\].method: nasbert can't be tuned: its supernet is trained on a corpus"):
        make_plan(load_experiment(path), str(path))


def test_the_plan_bounds_it_from_above(data: dict[str, Any], tmp_path: Path) -> None:
    parameters = {"width.epochs": {"choice": [2, 3, 1]}, "depth.lambda_hidden": {"uniform": [0, 1]}}
    path = written(tmp_path, data, tune=[{"method": "dynabert", "samples": 5, "parameters": parameters}])
    stages = make_plan(load_experiment(path), str(path)).stages
    tune = next(row for row in stages if row.stage == "tune")
    alone = {row.stage: row for row in stages if row.who == "dynabert-tuned"}
    assert alone["width"].steps == 3 * next(row.steps for row in stages if (row.who, row.stage) == ("dynabert", "width"))
    assert tune.flops == 5 * sum(alone[name].flops for name in ("rewire", "width", "width-and-depth")) > 0
    exhausted = {"width.epochs": {"integer": [1, 2]}, "depth.epochs": {"choice": [1, 2]}}
    path = written(tmp_path, data, tune=[{"method": "dynabert", "samples": 50, "parameters": exhausted}])
    assert "4 trials" in next(row.note for row in make_plan(load_experiment(path), str(path)).stages if row.stage == "tune")


def test_resolved_it_is_read_back(data: dict[str, Any], tmp_path: Path) -> None:
    experiment = load_experiment(written(tmp_path, data))
    resolved = json.loads(json.dumps(experiment.resolved()))
    assert resolved["tune"][0]["parameters"] == RATES and check(resolved, "resolved").resolved() == resolved


def test_without_ray_it_says_what_to_write(data: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="tune: trials need Ray; add --ray local"):
        workbench.run(written(tmp_path, data), output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


class Meddler:
    """A watch that draws random numbers, spoils what it is shown, and hands over what would go on elsewhere."""

    def __init__(self, folder: Path, copies: Path | None = None) -> None:
        self.folder, self.copies, self.seen = folder, copies, list[tuple[str, float, type[nn.Module]]]()

    def wants(self, stage: str, step: int, total: int) -> bool:
        return step % 2 == 0

    def look(self, share: float, model: nn.Module, so_far: StageRecord) -> None:
        assert not model.training and so_far.flops > 0
        self.seen.append((so_far.stage, share, type(model)))
        torch.rand(3)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()
        if self.copies is not None and len(self.seen) == 3:
            hand_over(self.folder, self.copies)


def taught(backbone: Backbone, folder: Path, task: Task) -> Context:
    from methods.training.options import Schedule
    from methods.training.teacher import TeacherOptions, fine_tune_teacher

    context = Context(folder, backbone, task.restricted("train", "search"), 0, None, Hardware(), max_length=16)
    fast = TeacherOptions(schedule=Schedule(epochs=1, batch_size=16, learning_rate=3e-3))
    return Context(folder, backbone, context.task, 0, fine_tune_teacher(context, fast), Hardware(), max_length=16)


def moved(context: Context, folder: Path, **more: Any) -> Context:
    from dataclasses import replace

    return replace(context, folder=folder, **more)


@pytest.mark.parametrize("method", ["dynabert", "adabert"])
def test_looking_changes_no_weight_and_can_be_gone_on_from(method: str, tiny_backbone: Backbone, tiny_task: Task, tmp_path: Path) -> None:
    recipe: Callable[[], TaskRecipe]
    if method == "dynabert":
        options = DynaBertOptions.model_validate({"widths": [0.5, 1.0], "depths": [0.5, 1.0], "width": SCHEDULE, "depth": SCHEDULE})
        recipe, context = lambda: DynaBertRecipe(options), taught(tiny_backbone, tmp_path / "teacher", tiny_task)
    else:
        recipe, context = lambda: AdaBertRecipe(options_of()), context_of(tiny_backbone, tmp_path / "teacher")
    alone = weights_digest(recipe().train(moved(context, tmp_path / "alone")))
    watch = Meddler(tmp_path / "watched", tmp_path / "copies")
    watched = recipe().train(moved(context, tmp_path / "watched", watch=watch))
    assert weights_digest(watched) == alone and len(watch.seen) >= 3
    assert all(issubclass(kind, Supernet) for *_, kind in watch.seen) and {0.0 < share <= 1.0 for _, share, _ in watch.seen} == {True}
    assert not list((tmp_path / "copies").rglob("events*"))
    again = Meddler(tmp_path / "copies")
    assert weights_digest(recipe().train(moved(context, tmp_path / "copies", watch=again))) == alone
    assert [seen[:2] for seen in again.seen] == [seen[:2] for seen in watch.seen[3:]]


@pytest.fixture(scope="module")
def session(data: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Session:
    """With a trained teacher."""
    folder = tmp_path_factory.mktemp("session")
    experiment = load_experiment(written(folder, data))
    made = Session(experiment, RunFolder(folder / "run"), "my.yaml")
    made.archive = cast(Archive, jobs.Collected(()))
    return made


def said_by(session: Session, folder: Path, values: dict[str, Any]) -> list[tuple[dict[str, Any], bool]]:
    said: list[tuple[dict[str, Any], bool]] = []
    tune = session.experiment.tune[0]
    teacher = jobs.teacher_of(session, "single")
    trial_run(session, tune, values, teacher, folder, lambda report, keep: said.append((report, keep))).run()
    return said


def test_a_trial_says_what_it_is_worth_as_it_goes_on(session: Session, tmp_path: Path) -> None:
    said = said_by(session, tmp_path / "trial", {"depth.learning_rate": 0.001})
    progress = [report["progress"] for report, _ in said]
    assert progress == sorted(set(progress)) and len(said) == 4 and progress[-1] == 1.0
    assert [keep for _, keep in said] == [True, True, True, False]
    for name in SPENT:
        assert [report[name] for report, _ in said] == sorted(report[name] for report, _ in said)
    stages = [json.loads(path.read_text())["record"] for path in (tmp_path / "trial").glob("*/stage.json")]
    assert said[-1][0]["flops"] == sum(stage["flops"] for stage in stages) and said[-1][0]["rating_flops"] > 0
    architectures = rated(session, session.members[0], session.experiment.all_tasks[0])
    assert len(architectures) == 2 and session.members[0].space.largest() in architectures
    assert said_by(session, tmp_path / "trial", {"depth.learning_rate": 0.001})[-1][0]["quality"] == said[-1][0]["quality"]
    with pytest.raises(UserError, match=r"other settings|other schedule"):
        said_by(session, tmp_path / "trial", {"depth.learning_rate": 0.002})


def test_a_trial_whose_loss_is_not_finite_is_the_worst(session: Session, tmp_path: Path) -> None:
    (*_, last) = said_by(session, tmp_path / "trial", {"width.learning_rate": 1e30})
    assert last[0]["quality"] is None and last[0]["progress"] == 1.0 and "not finite" in last[0]["failed"]


def test_adabert_is_rated_by_what_it_derives(tmp_path: Path, tiny_backbone_folder: Path) -> None:
    data = experiment_of(tmp_path, tiny_backbone_folder)
    parameters = {"search.loss.gamma": {"uniform": [0, 1]}, "finish.epochs": {"choice": [1, 2]}}
    path = written(tmp_path, data, tune=[{"method": "adabert", "task": "single", "parameters": parameters, "reports": 2}])
    experiment = load_experiment(path)
    assert make_plan(experiment, str(path)).stages
    session = Session(experiment, RunFolder(tmp_path / "run"), str(path))
    session.archive = cast(Archive, jobs.Collected(()))
    said = said_by(session, tmp_path / "trial", {"search.loss.gamma": 0.25, "finish.epochs": 1})
    progress = [report["progress"] for report, _ in said]
    assert len(said) == 4 and progress == sorted(set(progress)) and progress[-1] == 1.0
    finished = list((tmp_path / "trial").glob("finish-*/stage.json"))
    assert len(finished) == 1 and all(0 <= report["quality"] <= 1 for report, _ in said)


def trial(quality: float | None, ended: str = "finished") -> Trial:
    return Trial({"width.learning_rate": 0.003, "depth.learning_rate": 0.002}, quality, 1.0, ended, 10, 100, 1e6, 2.0, 30)


def test_what_was_tuned_is_a_row_that_costs_more(session: Session, tmp_path: Path) -> None:
    folder, experiment = RunFolder(shutil.copytree(session.folder.path, tmp_path / "run")), session.experiment
    tune = experiment.tune[0]
    trials = [trial(0.9), trial(0.5, "stopped"), trial(None, "failed: not finite")]
    found = Tuned("dynabert", "single", "accuracy", [], trials[0].parameters, 0.9, trials)
    found.save(result_file(folder.path, tune))
    assert Tuned.load(result_file(folder.path, tune)) == found
    both = with_tuned(experiment, folder.path)
    assert [entry.label for entry in both.methods] == ["dynabert", "dynabert-tuned"] and not pending(both)
    options = cast(DynaBertOptions, both.methods[1].options)
    assert (options.width.learning_rate, options.depth.learning_rate) == (0.003, 0.002)
    assert options.width.model_copy(update={"learning_rate": 0.003}) == cast(DynaBertOptions, both.methods[0].options).width
    with Archive(folder.archive) as archive:
        recorded = Session(both, folder, "my.yaml")
        recorded.archive = archive
        for _ in range(2):
            record(recorded, jobs.quiet())
        stages, notes = archive.stages(), archive.notes()
    assert [(row.method, row.stage, row.flops, row.steps) for row in stages] == [("dynabert-tuned", "tune", 3e6, 30)]
    assert "best of 3 trials on single (1 stopped early, 1 failed)" in notes["single, dynabert-tuned, tune"]
    result_file(folder.path, tune).write_text("{")
    with pytest.raises(UserError, match=r"tuned.json: damaged"):
        with_tuned(experiment, folder.path)


def test_a_folder_goes_on_with_more_tuning_but_no_other(data: dict[str, Any], tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    experiment = load_experiment(written(tmp_path, data, tune=[]))
    folder.claim(folder.examine(experiment))
    with_it = load_experiment(written(tmp_path, data))
    folder.claim(dearest(folder.examine(with_it), Session(with_it, folder, "x").shape, "x"))
    elsewhere = load_experiment(written(tmp_path, data, tune=[{**data["tune"][0], "storage": "/there", "concurrent": 3}]))
    assert "tune[" not in str(examined(folder, elsewhere))
    more = load_experiment(written(tmp_path, data, tune=[{**data["tune"][0], "samples": 5}]))
    assert r"tune[0].samples" in str(examined(folder, more))


def examined(folder: RunFolder, experiment: Any) -> UserError:
    """The tuned row lacks here, which is a mistake of its own."""
    with pytest.raises(UserError, match="dynabert-tuned is missing") as mistake:
        folder.examine(experiment)
    return mistake.value


def test_networks_are_shown_while_they_are_finished(tiny_backbone: Backbone, tmp_path: Path) -> None:
    context = context_of(tiny_backbone, tmp_path / "alone")
    recipe = AdaBertRecipe(options_of())
    supernet = recipe.train(context)
    watch = Meddler(tmp_path / "watched")
    shutil.copytree(tmp_path / "alone", tmp_path / "watched")
    alone = recipe.finish(context, supernet, supernet.space.smallest())
    watched = recipe.finish(moved(context, tmp_path / "watched", watch=watch), supernet, supernet.space.smallest())
    assert weights_digest(watched) == weights_digest(alone)
    assert watch.seen and all(issubclass(kind, Network) for *_, kind in watch.seen)
