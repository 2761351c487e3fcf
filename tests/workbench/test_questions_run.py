"""Question answering from experiment file to table, and what is refused of it before anything is trained."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import workbench
from analysis.paired import Answers, compared, one_by_one
from analysis.runs import open_runs
from methods import load_network
from methods.errors import UserError
from search.archive import Archive
from tests.question_cases import write_articles
from workbench.loading import check, load_experiment
from workbench.sizes import task_size

SCHEDULE = {"epochs": 1, "learning_rate": 0.003, "batch_size": 16}


def write(folder: Path, backbone: Path, **changes: Any) -> Path:
    task = {"name": "squad", "data": str(write_articles(folder / "qa", train=12, validation=2)), "max_length": 40, "stride": 8}
    experiment = {
        "backbone": str(backbone),
        "task": {**task, "question_length": 8},
        "teacher": {"schedule": SCHEDULE},
        "methods": [{"name": "dynabert", "widths": [0.5, 1.0], "depths": [0.5, 1.0], "width": SCHEDULE, "depth": SCHEDULE}],
        "controls": {"random": 0, "truncated_kd": {**SCHEDULE}},
        "budgets": [{"name": "small", "max_flops": "250K"}, {"name": "all", "max_flops": "1G"}],
        "cost": {"length": 32, "batch": 1},
        "hardware": {"device": "cpu", "threads": 1},
        **changes,
    }
    path = folder / "qa.yaml"
    path.write_text(yaml.safe_dump(experiment))
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_backbone_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("qa")
    workbench.run(write(folder, tiny_backbone_folder), output=folder / "run")
    return folder / "run"


def test_every_network_has_both_metrics_and_a_score_per_question(run: Path) -> None:
    with (run / "report" / "measurements.csv").open() as file:
        controls = {row["control"] for row in csv.DictReader(file)}
    assert controls == {"", "teacher", "rewired-cut", "truncated-kd"}
    with Archive(run / "archive.db", create=False) as archive:
        shipped = [m for m in archive.measurements() if m.kind in ("finished", "control")]
        assert {m.split for m in shipped} == {"search", "validation"}
        for m in shipped:
            kept = archive.predictions(m.key)
            assert m.metric == "answer_f1" and kept is not None
            assert kept.logits.mean(axis=0).tolist() == pytest.approx([m.metrics["answer_f1"], m.metrics["exact_match"]])
            assert kept.labels is not None and kept.labels.shape == (len(kept.ids), 2)
    assert "squad" in (run / "report" / "table.md").read_text()


def test_run_again_measures_nothing_and_export_reads_back(run: Path, tmp_path: Path) -> None:
    with Archive(run / "archive.db", create=False) as archive:
        made = [(m.key, m.created) for m in archive.measurements()]
        finished = next(m for m in archive.measurements() if m.kind == "finished")
    workbench.run(run.parent / "qa.yaml", output=run)
    with Archive(run / "archive.db", create=False) as archive:
        assert [(m.key, m.created) for m in archive.measurements()] == made
    workbench.export(run, finished.architecture.id, tmp_path / "network")
    assert load_network(tmp_path / "network").spec.task.kind == "span"
    said = json.loads((tmp_path / "network" / "config.json").read_text())["task"]
    assert (said["max_length"], said["stride"], said["question_length"]) == (40, 8, 8)


def test_paired_tests_are_of_single_questions(run: Path) -> None:
    """Permutation of the questions' F1, McNemar's test of exact matches."""
    (read,) = open_runs([run])
    with read.archive:
        measured = [m for m in read.archive.measurements() if m.kind == "finished" and m.split == "validation"][:1]
        other = [m for m in read.archive.measurements() if m.control == "teacher" and m.split == "validation"]
        f1, kept = one_by_one(read, measured, other), [read.predictions(m) for m in (*measured, *other)]
    a, b = kept
    assert a is not None and b is not None
    assert f1.name == "paired permutation" and f1.difference == pytest.approx(float((a.logits - b.logits)[:, 0].mean()), abs=1e-6)
    rng = np.random.default_rng(0)
    scores, ids = rng.integers(0, 2, (2, 30, 1, 2)).astype(float), np.arange(30)
    ours, theirs = (Answers("exact_match", np.zeros((30, 2)), each, ids) for each in scores)
    match = compared(ours, theirs)
    assert match.test.name.startswith("McNemar")
    assert match.test.difference == pytest.approx(float((scores[0] - scores[1])[:, 0, 1].mean()))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": [{"name": "adabert"}]}, r"methods\[0\]: adabert: task squad: AdaBERT makes one vector of a text"),
        ({"augmentation": {"copies": 1}}, r"augmentation\.copies: task squad: other words in a text would move its answers"),
    ],
)
def test_what_can_not_be_done_is_refused_at_the_start(
    changes: dict[str, Any], message: str, tmp_path: Path, tiny_backbone_folder: Path
) -> None:
    with pytest.raises(UserError, match=message):
        workbench.run(write(tmp_path, tiny_backbone_folder, **changes), output=tmp_path / "run")
    assert not (tmp_path / "run" / "teacher").exists()


def task_of(**task: Any) -> Any:
    data = {"backbone": "demo", "methods": [{"name": "dynabert"}], "budgets": [{"max_flops": "1G"}], "task": task}
    return check(data, "file").all_tasks[0]


def test_lengths_of_questions_have_defaults_of_their_own() -> None:
    for name, metric in (("squad", None), ("own", "exact_match")):
        options = task_of(name=name, metric=metric)
        assert (options.max_length, options.stride, options.question_length) == (384, 128, 64)
    assert task_of(name="squad", stride=32).windows.stride == 32
    assert task_of(name="sst2").max_length == 128 and task_of(name="sst2").windows is None
    with pytest.raises(UserError, match="task sst2: stride and question_length are of questions"):
        task_of(name="sst2", stride=3)
    with pytest.raises(UserError, match=r"task squad: max_length: 128 leaves no room for windows; .* at least 197 is needed"):
        task_of(name="squad", max_length=128)


def test_plan_counts_windows(run: Path) -> None:
    options = load_experiment(run.parent / "qa.yaml").all_tasks[0]
    size, task = task_size(options), options.load()
    assert size.rows > len(task.split("train")) and size.length <= 40
    assert f"{len(task.split('train'))} training questions in about {size.rows} windows" in size.note
