"""`elastibench latency`: the file it writes, what it prints, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from methods.errors import UserError
from methods.latency import LatencyTable
from tests.workbench.test_cli import call, refused
from tests.workbench.test_experiment import experiment
from workbench.loading import load_experiment
from workbench.verbs.latency import label, served_by, served_by_default, setting_of


@pytest.fixture
def file(tmp_path: Path, tiny_backbone_folder: Path) -> Path:
    path = tmp_path / "small.yaml"
    task = {"name": "demo", "data": "generated", "rows": 64, "max_length": 48}
    methods = [{"name": "dynabert", "widths": [0.5, 1.0], "depths": [0.5, 1.0]}]
    data = experiment(backbone=str(tiny_backbone_folder), task=task, methods=methods, cost={"length": 12, "batch": 2})
    path.write_text(yaml.safe_dump(data))
    return path


def test_a_table_is_measured_written_and_shown(file: Path, tmp_path: Path) -> None:
    result = call("latency", "laptop", "--experiment", file, "--seconds", 1, "--output", tmp_path / "tables" / "laptop.json")
    assert result.exit_code == 0, result.output
    table = LatencyTable.load(tmp_path / "tables" / "laptop.json")
    seen = table.fingerprint
    assert (table.name, seen.length, seen.batch, seen.threads, seen.backend) == ("laptop", 12, 2, 1, "torch")
    shape = load_experiment(file)
    for one in served_by(shape, "small"):
        for architecture in one.space.enumerate():
            assert 0 < table.network(one.spec(architecture)) < 60
    assert (
        "stem:" in result.stdout and "a network takes" in result.stdout and f"{len(table.keys())} parts measured, written" in result.stdout
    )
    assert "latency of laptop" in result.stderr


@pytest.mark.parametrize(
    ("device", "options", "said"),
    [
        ("lap/top", [], "DEVICE-NAME 'lap/top': letters"),
        ("laptop", ["--backend", "abacus"], "--backend abacus: there is no such backend; there are torch"),
        ("laptop", ["--length", "4096"], "--length 4096: the backbone has positions for"),
    ],
)
def test_what_cannot_be_measured_is_refused(file: Path, tmp_path: Path, device: str, options: list[str], said: str) -> None:
    result = call("latency", device, "--experiment", file, *options, "--output", tmp_path / "x.json")
    assert said in refused_last(result.stderr) and result.exit_code == 2 and not (tmp_path / "x.json").exists()


def refused_last(text: str) -> str:
    """The message behind what the bar of progress left."""
    assert "Traceback" not in text
    return text.rpartition("elastibench: ")[2]


def test_a_directory_is_no_file(file: Path, tmp_path: Path) -> None:
    assert "--output" in refused(call("latency", "laptop", "--experiment", file, "--output", tmp_path))


def test_a_place_that_cannot_be_written_to_is_refused_before_anything_is_measured(file: Path) -> None:
    said = refused(call("latency", "laptop", "--experiment", file, "--output", file / "laptop.json"))
    assert "--output" in said and "no file can be written there" in said


def test_without_an_experiment_all_methods_are_measured_on_bert_base() -> None:
    found = served_by_default()
    assert {one.space.method for one in found} >= {"dynabert", "nasbert", "adabert"} and {one.head.pair for one in found} == {False, True}
    assert all(one.spec(one.space.smallest()).stem.vocabulary == 30522 for one in found)


def test_a_scenario_sets_batch_and_length(monkeypatch: pytest.MonkeyPatch) -> None:
    found = setting_of(None, "torch", None, None, 1, 60.0, "paper-cpu")
    assert (found.batch, found.length, found.device, found.runs) == (1, 128, "cpu", 0)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UserError, match="--scenario paper-gpu: needs a GPU"):
        setting_of(None, "torch", None, None, 1, 60.0, "paper-gpu")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    found = setting_of(None, "torch", None, None, 1, 60.0, "paper-gpu")
    assert (found.batch, found.length, found.device, found.runs) == (128, 128, "cuda", 100)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--scenario", "moon"], "--scenario moon: there is no such scenario; there are paper-cpu, paper-gpu"),
        (["--scenario", "paper-cpu", "--batch", 2], "--batch: --scenario paper-cpu says it already"),
        (["--set", "seeds=[1]"], "--set: changes an experiment, and none is given"),
    ],
)
def test_what_contradicts_itself_is_refused(options: list[Any], said: str) -> None:
    assert said in refused(call("latency", "laptop", *options))


def test_labels_are_short() -> None:
    key = json.dumps({"kind": "first_token_head", "hidden": 128, "labels": 2, "pooler": False})
    assert label(key) == "first token head: hidden 128, labels 2"
    assert label('{"kind":"cell","nodes":[[{"kind":"cell_edge"}]],"width":8}') == "cell: width 8"
