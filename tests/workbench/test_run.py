"""A small run from end to end: what it leaves, that it goes on where it stopped, and what can be asked of it."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import workbench
from methods.errors import UserError
from search.archive import Archive
from search.query import Answer, NothingFits
from tests.apart import printed_apart

Rows = list[dict[str, str]]


def rows(run: Path) -> Rows:
    """All measurements without what time they took, in an order of their own."""
    with (run / "report" / "measurements.csv").open() as file:
        return sorted(csv.DictReader(file), key=lambda row: tuple(row.values()))


@pytest.fixture
def run_copy(demo_run: Path, tmp_path: Path) -> Path:
    """A run folder of one's own."""
    return Path(shutil.copytree(demo_run, tmp_path / "run"))


def again(demo_run: Path, folder: Path, *overrides: str) -> workbench.verbs.run.Outcome:
    return workbench.run(demo_run.parent / "demo.yaml", output=folder, set=overrides)


def test_what_a_run_leaves(demo_run: Path) -> None:
    for name in ("experiment.yaml", "environment.json", "archive.db", "report/table.md", "report/table.tex", "report/pareto.png"):
        assert (demo_run / name).stat().st_size > 0
    assert (demo_run / "teacher" / "demo").is_dir() and (demo_run / "demo" / "dynabert" / "seed-0").is_dir()
    environment = json.loads((demo_run / "environment.json").read_text())
    assert environment[-1]["threads"] == 1 and environment[-1]["packages"]["torch"]
    measured = rows(demo_run)
    assert {row["control"] for row in measured} == {"", "teacher", "rewired-cut", "truncated-kd"}
    assert {(row["kind"], row["split"]) for row in measured if row["kind"] == "shared"} == {("shared", "search")}


def test_every_winner_and_control_is_on_both_splits_with_predictions(demo_run: Path) -> None:
    with Archive(demo_run / "archive.db", create=False) as archive:
        shipped = [m for m in archive.measurements() if m.kind in ("finished", "control")]
        assert shipped
        for split in ("search", "validation"):
            assert {(m.architecture, m.control) for m in shipped if m.split == split} == {(m.architecture, m.control) for m in shipped}
        for m in shipped:
            kept = archive.predictions(m.key)
            assert kept is not None and kept.labels is not None
            assert np.mean(kept.logits.argmax(-1) == kept.labels) == pytest.approx(m.metrics["accuracy"])


def test_nothing_over_every_limit_was_searched(demo_run: Path) -> None:
    with Archive(demo_run / "archive.db", create=False) as archive:
        searched = archive.searches()
        assert [(s.method, s.strategy, s.budget, s.evaluations) for s in searched] == [("dynabert", "exhaustive", "", 4)]
        assert {stage.stage for stage in archive.stages(method="dynabert")} == {"rewire", "width", "width-and-depth"}
        trained = sum(stage.flops for stage in archive.stages(method="dynabert"))
        control = sum(stage.flops for stage in archive.stages(method="truncated-kd"))
    assert control == pytest.approx(trained, rel=0.35)


def test_run_again_measures_nothing(demo_run: Path, run_copy: Path) -> None:
    before = rows(run_copy)
    with Archive(run_copy / "archive.db", create=False) as archive:
        made = [(m.key, m.created, m.seconds) for m in archive.measurements()]
    outcome = again(demo_run, run_copy)
    with Archive(run_copy / "archive.db", create=False) as archive:
        assert [(m.key, m.created, m.seconds) for m in archive.measurements()] == made
    assert rows(run_copy) == before and outcome.folder == run_copy


def test_a_run_that_lost_its_end_gives_the_same_numbers(demo_run: Path, run_copy: Path) -> None:
    before = rows(run_copy)
    for file in run_copy.glob("archive.db*"):
        file.unlink()
    shutil.rmtree(run_copy / "demo" / "dynabert" / "seed-0" / "width-and-depth")
    again(demo_run, run_copy)
    assert rows(run_copy) == before


def test_a_run_grows_by_a_budget_with_random_architectures_in_its_window(demo_run: Path, run_copy: Path) -> None:
    before = rows(run_copy)
    largest = max(int(row["flops"]) for row in before if row["kind"] == "shared")
    budgets = f"budgets=[{{name: small, max_flops: 250K}}, {{name: all, max_flops: 1G}}, {{name: tight, max_flops: {largest}}}]"
    again(demo_run, run_copy, budgets, "controls.truncated_kd=false")
    after = rows(run_copy)
    assert {tuple(row.values()) for row in before} <= {tuple(row.values()) for row in after}
    drawn = [row for row in after if row["control"] == "random"]
    assert drawn and all(0.9 * largest <= int(row["flops"]) <= largest for row in drawn)
    assert "budget tight" in (run_copy / "report" / "table.txt").read_text()


def test_every_architecture_on_validation_when_asked_for(demo_run: Path, run_copy: Path) -> None:
    again(demo_run, run_copy, "search.report_all=true")
    shared = [row for row in rows(run_copy) if (row["kind"], row["split"]) == ("shared", "validation")]
    assert len(shared) == 4
    assert isinstance(best := workbench.query(run_copy), Answer) and best.kind == "finished"


def test_another_experiment_is_refused(demo_run: Path, run_copy: Path) -> None:
    with pytest.raises(UserError, match=r"different: teacher.schedule.epochs"):
        again(demo_run, run_copy, "teacher.schedule.epochs=2")


def test_a_damaged_stage_is_refused(demo_run: Path, run_copy: Path) -> None:
    weights = run_copy / "demo" / "dynabert" / "seed-0" / "width" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    with pytest.raises(UserError, match=r"weights.safetensors: damaged"):
        again(demo_run, run_copy)


def test_a_damaged_archive_is_refused_and_left_alone(demo_run: Path, run_copy: Path) -> None:
    archive = run_copy / "archive.db"
    for file in run_copy.glob("archive.db-*"):
        file.unlink()
    archive.write_bytes(b"no database" * 100)
    before = (run_copy / "experiment.yaml").read_text()
    with pytest.raises(UserError, match="archive"):
        again(demo_run, run_copy, "seeds=[0, 1]")
    assert archive.read_bytes() == b"no database" * 100
    assert (run_copy / "experiment.yaml").read_text() == before


def test_scores_of_another_supernet_choose_no_winner(demo_run: Path, run_copy: Path) -> None:
    with Archive(run_copy / "archive.db", create=False) as archive:
        shared = archive.measurements(kind="shared", split="search")
        finished = {m.key for m in archive.measurements(kind="finished")}
        other = next(m for m in shared if m.architecture.id not in {key[0] for key in finished})
        assert archive.add(replace(other, weights_digest="another supernet", metrics={"accuracy": 2.0}))
    again(demo_run, run_copy)
    with Archive(run_copy / "archive.db", create=False) as archive:
        assert {m.key for m in archive.measurements(kind="finished")} == finished


def test_query_under_a_budget(demo_run: Path) -> None:
    answer = workbench.query(demo_run, max_flops="250K", method="dynabert", task="demo")
    assert isinstance(answer, Answer)
    assert answer.costs.flops <= 250_000 and answer.slack == {"max_flops": 250_000 - answer.costs.flops}
    assert answer.validation_kind == "finished"


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"task": "dmo"}, "--task dmo: .* did you mean demo"),
        ({"method": "other", "task": "demo"}, "--method other: .* there are dynabert$"),
    ],
)
def test_query_of_what_is_not_there(asked: dict[str, str], said: str, demo_run: Path) -> None:
    with pytest.raises(UserError, match=said):
        workbench.query(demo_run, **asked)  # type: ignore[arg-type]


def test_query_where_nothing_fits(demo_run: Path) -> None:
    answer = workbench.query(demo_run, max_flops="1K", max_params="1M")
    assert isinstance(answer, NothingFits) and answer.binding == ("max_flops",)
    with Archive(demo_run / "archive.db", create=False) as archive:
        assert answer.smallest["max_flops"] == min(m.costs.flops for m in archive.measurements(kind="shared"))


LOGITS = """
import json, sys
import torch
from transformers import AutoTokenizer
from methods import load_network
folder, texts = sys.argv[1], json.loads(sys.argv[2])
batch = AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")
print(json.dumps(load_network(folder)(**batch).logits.tolist()))
assert not [name for name in sys.modules if name.startswith("methods.dynabert")]
"""


def test_export_gives_the_measured_network_in_another_process(demo_run: Path, tmp_path: Path) -> None:
    from methods.tasks.task import load_task

    answer = workbench.query(demo_run, max_flops="250K")
    assert isinstance(answer, Answer)
    folder = tmp_path / "network"
    exported = workbench.export(demo_run, answer.architecture.id[:12], folder)
    assert exported.architecture == answer.architecture
    validation = load_task("demo").split("validation")
    texts = list(validation.text[:8])
    logits = json.loads(printed_apart(LOGITS, str(folder), json.dumps(texts)))
    with Archive(demo_run / "archive.db", create=False) as archive:
        shipped = next(m for m in archive.measurements(kind="finished", split="validation") if m.architecture == answer.architecture)
        kept = archive.predictions(shipped.key)
    assert kept is not None
    np.testing.assert_allclose(logits, kept.logits[:8], atol=1e-5)
    config = json.loads((folder / "config.json").read_text())
    genes = answer.architecture.choices
    assert config["kept_layers"] == genes["layers"]
    assert [layer["heads"] for layer in config["layers"]] == genes["heads"]
    assert [layer["ffn_size"] for layer in config["layers"]] == genes["neurons"]
    assert config["layers"][0]["head_size"] == 8 and config["task"]["labels"] == ["negative", "positive"]
    assert config["metrics"]["finished on validation"]["accuracy"] == pytest.approx(shipped.quality)


def test_a_run_of_a_gpu_is_exported_without_one(demo_run: Path, run_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    file = run_copy / "experiment.yaml"
    assert "device: cpu" in file.read_text()
    file.write_text(file.read_text().replace("device: cpu", "device: cuda"))
    answer = workbench.query(run_copy, max_flops="250K")
    assert isinstance(answer, Answer)
    (tmp_path / "here").mkdir()
    (tmp_path / "here.part").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    exported = workbench.export(run_copy, answer.architecture.id, ".")
    assert exported.folder == tmp_path / "here" and (tmp_path / "here" / "model.safetensors").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here", "here.part", "run"]


@pytest.mark.parametrize(
    "lost", ["demo/dynabert/seed-0/width/stage.json", "demo/dynabert/seed-0/width-and-depth", "teacher/demo/fine-tune/stage.json"]
)
def test_export_does_not_train(run_copy: Path, tmp_path: Path, lost: str) -> None:
    answer = workbench.query(run_copy, max_flops="250K")
    assert isinstance(answer, Answer)
    stage = run_copy / lost
    if stage.is_dir():
        shutil.rmtree(stage)
    else:
        stage.unlink()
    with pytest.raises(UserError, match="training there is not finished"):
        workbench.export(run_copy, answer.architecture.id, tmp_path / "network")
    assert not (tmp_path / "network").exists()


def test_an_environment_that_is_no_list_is_begun_anew(tmp_path: Path) -> None:
    from workbench import environment

    path = tmp_path / "environment.json"
    for damage in ('{"a": 1}', "3", "null", "{"):
        path.write_text(damage)
        environment.record(path, 2)
        assert [entry["threads"] for entry in json.loads(path.read_text())] == [2]


def test_export_refuses(demo_run: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        workbench.export(demo_run, "0", tmp_path)
    with pytest.raises(UserError, match=r"mine.txt/new/one: no directory can be made there"):
        workbench.export(demo_run, "0", tmp_path / "mine.txt" / "new" / "one")
    with pytest.raises(UserError, match=r"no architecture .* begins with 'zz'"):
        workbench.export(demo_run, "zz", tmp_path / "new")
    with pytest.raises(UserError, match="--task rte"):
        workbench.export(demo_run, "0", tmp_path / "new", task="rte")
    with Archive(demo_run / "archive.db", create=False) as archive:
        known = {m.architecture.id for m in archive.measurements(kind="shared")}
    with pytest.raises(UserError, match="--seed 7"):
        workbench.export(demo_run, min(known), tmp_path / "new", seed=7)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.txt"]


def test_compare(demo_run: Path) -> None:
    table = workbench.compare(demo_run)
    assert {row.row for row in table.rows} >= {"dynabert", "teacher", "truncated-kd"}
    assert table.render("md") == workbench.compare([demo_run]).render("md")
