"""The command line: what it prints, where, and with which exit code."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

import workbench.verbs.run
from methods.registry import register, unregister
from tests.toy_method import METHOD, ToyRecipe
from tests.workbench.test_experiment import experiment
from workbench.cli import app


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(result: Result) -> str:
    """The one message of a user's mistake: on stderr, exit code 2, no traceback."""
    assert result.exit_code == 2, result.output
    assert result.stdout == "" and result.stderr.startswith("elastibench: ") and "Traceback" not in result.output
    return result.stderr.removeprefix("elastibench: ").rstrip("\n")


@pytest.fixture
def small(tmp_path: Path, tiny_backbone_folder: Path) -> Any:
    """Writes an experiment on the tiny backbone with these changes; returns its path."""

    def write(**changes: Any) -> Path:
        path = tmp_path / "small.yaml"
        task = {"name": "demo", "data": "generated", "rows": 64, "max_length": 48}
        path.write_text(yaml.safe_dump(experiment(**{"backbone": str(tiny_backbone_folder), "task": task, **changes})))
        return path

    return write


@pytest.mark.parametrize("command", ["run", "plan", "query", "compare", "dashboard", "export", "methods", "tasks", "version"])
def test_help_has_examples(command: str) -> None:
    result = call(command, "--help")
    assert result.exit_code == 0 and f"elastibench {command}" in result.stdout


def test_lists() -> None:
    assert [line.split()[0] for line in call("methods").stdout.splitlines()] == ["dynabert", "nasbert", "adabert"]
    assert {"sst2", "trec6", "demo"} <= {line.split()[0] for line in call("tasks").stdout.splitlines()}
    assert call("version").stdout.startswith("elastibench ")


def test_an_unknown_option_is_a_usage_error() -> None:
    assert call("run", "--faster").exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "none.yaml"), "none.yaml: there is no such file"),
        (("plan", "none.yaml"), "none.yaml: there is no such file"),
        (("query", "none"), "none: no run folder"),
        (("compare", "none"), "none: no run folder"),
        (("export", "none", "0a", "new"), "none: no run folder"),
    ],
)
def test_what_is_not_there(arguments: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert said in refused(call(*arguments))
    assert not list(tmp_path.iterdir())


def data_folder(tmp_path: Path, train: str, validation: str = "sentence\tlabel\na fine film\t1\n") -> dict[str, Any]:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "train.tsv").write_text(train)
    (folder / "validation.tsv").write_text(validation)
    return {"name": "sst2", "data": str(folder), "max_length": 48}


GOOD = "sentence\tlabel\n" + "".join(f"a film number {i} that is {i * 7}\t{i % 2}\n" for i in range(40))


@pytest.mark.parametrize(
    ("train", "validation", "said"),
    [
        ("sentence\tlabel\nonly one field\n", GOOD, "train.tsv, line 2"),
        (GOOD.replace("\t1\n", "\t7\n", 1), GOOD, "train.tsv, line 3"),
        ("sentence\tlabel\n", GOOD, "train.tsv"),
        (GOOD, "sentence\tlabel\n", "validation.tsv"),
        (GOOD.replace("sentence", "phrase"), GOOD, "'sentence'"),
    ],
)
def test_bad_data_is_named_by_file_and_line(small: Any, tmp_path: Path, train: str, validation: str, said: str) -> None:
    message = refused(call("run", small(task=data_folder(tmp_path, train, validation)), "--output", tmp_path / "run"))
    assert said in message and "\n" not in message
    assert not (tmp_path / "run").exists()


def test_missing_data(small: Any, tmp_path: Path) -> None:
    assert "task.data" in refused(call("run", small(task={"name": "sst2", "data": str(tmp_path / "none")}), "--output", tmp_path / "run"))


def test_backbone_weights_that_can_not_be_read_claim_no_folder(small: Any, tmp_path: Path, tiny_backbone_folder: Path) -> None:
    folder = Path(shutil.copytree(tiny_backbone_folder, tmp_path / "backbone"))
    (folder / "model.safetensors").write_bytes(b"no tensors")
    assert str(folder) in refused(call("run", small(backbone=str(folder)), "--output", tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_broken_configuration_is_one_line(small: Any, tmp_path: Path, tiny_backbone_folder: Path) -> None:
    folder = Path(shutil.copytree(tiny_backbone_folder, tmp_path / "backbone"))
    config = json.loads((folder / "config.json").read_text())
    for broken in ({**config, "num_hidden_layers": "two"}, {**config, "hidden_size": None}, [1]):
        (folder / "config.json").write_text(json.dumps(broken))
        message = refused(call("plan", small(backbone=str(folder))))
        assert "\n" not in message and str(folder) in message


def test_a_backbone_that_is_no_bert(small: Any, tmp_path: Path) -> None:
    folder = tmp_path / "gpt"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    assert "no BERT-like encoder" in refused(call("run", small(backbone=str(folder)), "--output", tmp_path / "run"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"methods": [{"name": "dynabert", "widths": [0.05]}]}, "methods[0].widths: 0.05 leaves no head of 2"),
        ({"methods": [{"name": "dynabert", "widths": [1.0], "depths": [0.1]}]}, "methods[0].depths: 0.1 leaves no layer of 2"),
        ({"budgets": [{"max_flops": "1G"}, {"max_flops": 10}]}, "budgets[1]: no method can meet it"),
        ({"methods": [{"name": "dynabert", "widths": [1.0]}, {"name": "nasbert", "blocks": 1}]}, "methods[1]"),
        ({"task": {"name": "demo", "max_length": 500}}, "max_length: 500"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(small: Any, tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    path = small(**changes)
    message = refused(call("run", path, "--output", tmp_path / "run"))
    assert said in message and str(path) in message
    assert not (tmp_path / "run").exists()


def test_a_method_that_can_only_be_planned_is_refused(small: Any, tmp_path: Path) -> None:
    class Planned(ToyRecipe):
        trainable = False

    register(replace(METHOD, name="planned", recipe=Planned))
    try:
        path = small(methods=[{"name": "planned"}])
        assert "methods[0]: planned can be planned and hosted" in refused(call("run", path, "--output", tmp_path / "run"))
    finally:
        unregister("planned")
    assert not (tmp_path / "run").exists()


def test_an_output_that_is_something_else(small: Any, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "thesis.tex").write_text("mine")
    assert "not empty and no run folder" in refused(call("run", small(), "--output", tmp_path / "own"))
    assert [path.name for path in (tmp_path / "own").iterdir()] == ["thesis.tex"]


def test_an_interruption_says_how_to_go_on(small: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(workbench.verbs.run, "run", interrupted)
    result = call("run", small())
    assert result.exit_code == 130 and "goes on from here" in result.stderr


def test_plan_prints_a_table_and_json(small: Any) -> None:
    path = small()
    table = call("plan", path)
    assert table.exit_code == 0 and "width-and-depth" in table.stdout and "meet it" in table.stdout
    assert {stage["who"] for stage in json.loads(call("plan", path, "--json").stdout)["stages"]} == {"teacher", "dynabert", "truncated-kd"}


def test_plan_refuses_a_search_that_cannot_end(small: Any) -> None:
    assert "exhaustive takes spaces of at most" in refused(
        call("plan", small(methods=[{"name": "adabert"}], search={"strategy": "exhaustive"}))
    )


def test_query_prints_text_and_json(demo_run: Path) -> None:
    text = call("query", demo_run, "--max-flops", "250K")
    assert text.exit_code == 0 and "left of max_flops" in text.stdout
    found = json.loads(call("query", demo_run, "--max-flops", "250K", "--json").stdout)
    assert found["id"] in text.stdout and found["slack"]["max_flops"] >= 0


def test_query_names_the_command_that_exports(demo_run: Path, tmp_path: Path) -> None:
    command = json.loads(call("query", demo_run, "--max-flops", "250K", "--json").stdout)["export"]
    assert command in call("query", demo_run, "--max-flops", "250K").stdout
    words = command.replace("DIR", str(tmp_path / "network")).split()
    assert words[0] == "elastibench" and "written" in call(*words[1:]).stdout


def test_query_lists_the_front_within_the_limits(demo_run: Path) -> None:
    found = json.loads(call("query", demo_run, "--pareto", "--json").stdout)["fronts"]
    assert [front["kind"] for front in found] == ["finished", "shared"]
    for front in found:
        flops = [point["costs"]["flops"] for point in front["points"]]
        assert flops == sorted(flops)
    assert "on search and max_params, shared" in call("query", demo_run, "--pareto", "--cost", "max_params").stdout
    nothing = call("query", demo_run, "--pareto", "--max-params", "10")
    assert nothing.exit_code == 1 and nothing.stdout == call("query", demo_run, "--max-params", "10").stdout
    assert json.loads(call("query", demo_run, "--pareto", "--max-params", "10", "--json").stdout)["binding"] == ["max_params"]
    for unknown in (["--max-latency", "phone=1s"], ["--pareto", "--cost", "max_latency.phone"]):
        assert "max_latency.phone: the run has no such device; there are none" in refused(call("query", demo_run, *unknown))
    assert "there are max_params" in refused(call("query", demo_run, "--pareto", "--cost", "price"))


def test_query_of_several_runs_says_whose_answer_it_is(demo_run: Path, tmp_path: Path) -> None:
    (tmp_path / "again").symlink_to(demo_run)
    both = (demo_run, tmp_path / "again")
    found = json.loads(call("query", *both, "--json").stdout)
    assert found["run"] == str(demo_run) and found["id"] == json.loads(call("query", demo_run, "--json").stdout)["id"]
    assert found["export"].split()[2] == str(demo_run)
    assert "one run at a time" in refused(call("query", *both, "--by", "predicted"))


def test_query_where_nothing_fits_exits_with_1(demo_run: Path) -> None:
    result = call("query", demo_run, "--max-params", "10", "--max-flops", "1G")
    assert result.exit_code == 1 and "the smallest that exists is max_params" in result.stdout
    assert json.loads(call("query", demo_run, "--max-params", "10", "--json").stdout)["binding"] == ["max_params"]


def test_query_refuses(demo_run: Path) -> None:
    assert "3X" in refused(call("query", demo_run, "--max-flops", "3X"))
    assert "nosuch" in refused(call("query", demo_run, "--method", "nosuch"))


@pytest.mark.parametrize(("form", "mark"), [("table", "budget small"), ("md", "|"), ("tex", "toprule"), ("csv", ","), ("json", "{")])
def test_compare_in_every_form(demo_run: Path, form: str, mark: str) -> None:
    result = call("compare", demo_run, "--format", form)
    assert result.exit_code == 0 and mark in result.stdout


def test_compare_refuses_another_form(demo_run: Path) -> None:
    assert call("compare", demo_run, "--format", "pdf").exit_code == 2


def test_report_refuses_a_directory_before_anything_is_drawn(demo_run: Path, tmp_path: Path) -> None:
    assert f"--output {tmp_path}: is a directory" in refused(call("report", demo_run, "--output", tmp_path))


def test_export(demo_run: Path, tmp_path: Path) -> None:
    found = json.loads(call("query", demo_run, "--json").stdout)
    result = call("export", demo_run, found["id"][:10], tmp_path / "network")
    assert result.exit_code == 0 and found["id"] in result.stdout
    assert "not empty" in refused(call("export", demo_run, found["id"], tmp_path / "network"))
