"""The experiment file: every mistake is named by its place, and what is not written is settled and written out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from methods.errors import UserError
from workbench.experiment import Experiment
from workbench.loading import apply_override, check, load_experiment

Data = dict[str, Any]


def experiment(**changes: Any) -> Data:
    """A right one, changed."""
    data: Data = {
        "backbone": "bert-base-uncased",
        "task": {"name": "sst2"},
        "methods": [{"name": "dynabert", "widths": [0.5, 1.0]}],
        "budgets": [{"max_flops": "1.2G"}],
    }
    return {key: value for key, value in {**data, **changes}.items() if value is not None}


def tuning(domain: Data) -> Data:
    return {"method": "dynabert", "parameters": {"width.learning_rate": domain}}


def refusal(data: Data) -> str:
    with pytest.raises(UserError) as caught:
        check(data, "my.yaml")
    return str(caught.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"methods": [{"name": "dynabert", "widts": [0.5]}]}, ["my.yaml: methods[0].widts: unknown key", "widths"]),
        ({"methods": [{"name": "dynabert"}, {"name": "dynabart"}]}, ["my.yaml: methods[1].name: ", "'dynabart'", "dynabert"]),
        ({"methods": [{"name": "dynabert", "widths": "wide"}]}, ["my.yaml: methods[0].widths: ", "'wide'"]),
        ({"methods": [{"name": "dynabert", "width": {"epochs": -1}}]}, ["my.yaml: methods[0].width.epochs: ", "greater than 0", "-1"]),
        ({"methods": [{"widths": [0.5]}]}, ["my.yaml: methods[0].name: missing"]),
        ({"methods": []}, ["my.yaml: methods: "]),
        ({"backbone": None}, ["my.yaml: backbone: missing"]),
        ({"task": {"name": "sst2", "rows": 0}}, ["my.yaml: task.rows: ", "0"]),
        ({"task": {"name": "sst2", "metrics": "f1"}}, ["my.yaml: task.metrics: unknown key", "metric"]),
        ({"task": {"name": "reviews", "text": "review"}}, ["my.yaml: ", "reviews", "task.label"]),
        ({"task": {"name": "sst2", "metric": "spearman"}}, ["my.yaml: ", "sst2", "metric", "accuracy"]),
        ({"task": None}, ["my.yaml: ", "`task`", "`tasks`"]),
        ({"tasks": [{"name": "rte"}]}, ["my.yaml: ", "`task`", "`tasks`"]),
        ({"task": None, "tasks": [{"name": "rte"}, {"name": "rte"}]}, ["my.yaml: ", "tasks must be distinct", "rte"]),
        ({"budgets": [{"max_flops": "1.2Q"}]}, ["my.yaml: budgets[0].max_flops: ", "'1.2Q'", "1.2G"]),
        ({"budgets": [{"max_flops": -3}]}, ["my.yaml: budgets[0].max_flops: ", "above 0"]),
        ({"budgets": [{"name": "none"}]}, ["my.yaml: budgets[0]: no limit"]),
        ({"budgets": [{"max_flop": "1G"}]}, ["my.yaml: budgets[0].max_flop: unknown key", "max_flops"]),
        ({"budgets": [{"max_flops": "1G"}, {"name": "a", "max_flops": 1e9}]}, ["my.yaml: ", "budgets[0] and budgets[1]", "same limits"]),
        ({"seeds": [2**63]}, ["my.yaml: seeds[0]: ", str(2**63 - 1)]),
        ({"task": {"name": "../rte"}}, ["my.yaml: task.name: ", "letters", "'../rte'"]),
        ({"task": {"name": ""}}, ["my.yaml: task.name: ", "letters"]),
        ({"task": {"name": "teacher"}}, ["my.yaml: task.name: ", "choose another", "'teacher'"]),
        ({"task": {"name": ".."}}, ["my.yaml: task.name: ", "choose another"]),
        ({"seeds": [0, "one"]}, ["my.yaml: seeds[1]: ", "'one'"]),
        ({"search": {"strategy": "annealing"}}, ["my.yaml: search.strategy: ", "'annealing'", "nsga2"]),
        ({"search": {"strategy": "tpe", "report_all": True}}, ["my.yaml: search: report_all goes with strategy: exhaustive"]),
        ({"search": {"objectives": ["flops"]}}, ["my.yaml: search: objectives[0]: 'flops' is no cost", "max_flops"]),
        ({"search": {"objectives": ["max_flops", "max_flops"]}}, ["my.yaml: search: objectives must be distinct"]),
        ({"search": {"objectives": ["max_latency.phone"]}}, ["my.yaml: ", "search.objectives: there is no device 'phone'", "`devices`"]),
        ({"hardware": {"precision": "fp8"}}, ["my.yaml: hardware.precision: ", "'fp8'"]),
        ({"teacher": {"schedule": {"warmup": 2}}}, ["my.yaml: teacher.schedule.warmup: ", "2"]),
        ({"controls": {"truncated_kd": {"epoch": 1}}}, ["my.yaml: controls.truncated_kd.epoch: unknown key", "epochs"]),
        ({"serch": {}}, ["my.yaml: serch: unknown key", "search"]),
        ({"seeds": 3}, ["my.yaml: seeds: write a list", "3"]),
        ({"methods": {"name": "dynabert"}}, ["my.yaml: methods: write a list"]),
        ({"methods": ["dynabert"]}, ["my.yaml: methods[0]: write a mapping", "'dynabert'"]),
        ({"methods": [{"name": "dynabert", "finish": True}]}, ["my.yaml: methods[0].finish: write a mapping", "True"]),
        ({"methods": [{"name": "dynabert"}] * 2}, ["my.yaml: methods must be distinct", "dynabert", "label"]),
        ({"methods": [{"name": "dynabert", "label": "truncated-kd"}]}, ["my.yaml: methods[0].label: truncated-kd ", "choose another"]),
        ({"methods": [{"name": "dynabert", "label": "teacher"}]}, ["my.yaml: methods[0].label: teacher ", "choose another"]),
        ({"task": {"name": "sst2", "label": False}}, ["my.yaml: task.label: write text, in quotes", "False"]),
        ({"tune": [tuning({"logunifrom": [1e-5, 1e-3]})]}, ["tune[0].parameters.width.learning_rate.logunifrom: unknown", "loguniform"]),
        ({"tune": [tuning({"choice": [[1], 2]})]}, ["my.yaml: tune[0].parameters.width.learning_rate.choice[0]: ", "number"]),
    ],
)
def test_a_mistake_is_named_by_its_place(changes: Data, said: list[str]) -> None:
    message = refusal(experiment(**changes))
    assert all(part in message for part in said), message
    assert "\n" not in message
    assert not any(jargon in message for jargon in ("pydantic", "tuple", "instance of"))


def test_all_mistakes_are_told_at_once() -> None:
    message = refusal(experiment(seeds=[-1], cost={"length": 0}))
    assert "2 mistakes" in message and "seeds[0]" in message and "cost.length" in message


def test_resolved_says_everything_and_reads_back_the_same() -> None:
    data = experiment(controls={"truncated_kd": False}, budgets=[{"name": "a", "max_params": "8M"}])
    resolved = check(data, "my.yaml").resolved()
    assert resolved["methods"][0]["depths"] == [0.5, 0.75, 1.0]
    assert resolved["budgets"][0]["max_params"] == 8_000_000 and resolved["controls"]["truncated_kd"] is None
    again = check(yaml.safe_load(yaml.safe_dump(resolved)), "resolved.yaml")
    assert again.resolved() == resolved


@pytest.mark.parametrize(
    ("override", "look"),
    [
        ("methods[0].widths=[0.25, 1.0]", lambda e: e.methods[0].options.widths == (0.25, 1.0)),
        ("methods.0.width.epochs=5", lambda e: e.methods[0].options.width.epochs == 5),
        ("search.evaluations=7", lambda e: e.search.evaluations == 7),
        ("budgets[0].max_flops=3G", lambda e: e.all_budgets()[0].max_flops == 3e9),
        ("seeds=[1, 2]", lambda e: e.seeds == (1, 2)),
        ("controls.truncated_kd=false", lambda e: e.controls.truncated_kd is None),
    ],
)
def test_set_replaces_a_value(tmp_path: Path, override: str, look: Callable[[Experiment], bool]) -> None:
    path = tmp_path / "e.yaml"
    path.write_text(yaml.safe_dump(experiment()))
    assert not look(load_experiment(path))
    assert look(load_experiment(path, [override]))


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("methods[3].widths=1", "no entry [3]"),
        ("seeds", "KEY=VALUE"),
        ("=1", "KEY=VALUE"),
        ("backbone.size=3", "'size' is no key"),
        ("seeds=[1", "no YAML value"),
        ("budgets[0].name=2020-13-45", "no YAML value"),
    ],
)
def test_set_refuses_what_leads_nowhere(override: str, said: str) -> None:
    with pytest.raises(UserError, match="--set") as caught:
        apply_override(experiment(seeds=[0]), override)
    assert said in str(caught.value)


def test_set_leaves_what_shares_an_anchor_alone(tmp_path: Path) -> None:
    path = tmp_path / "e.yaml"
    shared = {"epochs": 2}
    path.write_text(yaml.safe_dump(experiment(methods=[{"name": "dynabert", "width": shared, "depth": shared}])))
    assert "&" in path.read_text()
    options = load_experiment(path, ["methods[0].width.epochs=5"]).methods[0].options
    assert (options.width.epochs, options.depth.epochs) == (5, 2)


def test_set_of_an_unknown_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "e.yaml"
    path.write_text(yaml.safe_dump(experiment()))
    with pytest.raises(UserError, match=r"methods\[0\]\.widdths: unknown key; did you mean width"):
        load_experiment(path, ["methods[0].widdths=[1]"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("backbone: [1\ntask: 3\n", "line 2"),
        ("backbone: a\nbackbone: b\n", "line 2: no valid YAML: key 'backbone' is there twice"),
        ("backbone: a\narchive: 2020-13-45\n", "line 2: no valid YAML: '2020-13-45'"),
        ("backbone: a\n? [1]\n: b\n", "line 2: no valid YAML: a key"),
        ("backbone: &a [*a]\n", "within itself"),
        ("- 1\n", "a mapping"),
        ("", "a mapping"),
    ],
)
def test_a_file_that_is_no_mapping(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "e.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        load_experiment(path)
    assert str(path) in str(caught.value) and said in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        load_experiment(tmp_path / "none.yaml")


def test_relative_directories_start_here_or_beside_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("here/both", "file/both", "file/own"):
        (tmp_path / name).mkdir(parents=True)
    path = tmp_path / "file" / "e.yaml"
    path.write_text(yaml.safe_dump(experiment(backbone="both", task={"name": "sst2", "data": "own"})))
    monkeypatch.chdir(tmp_path / "here")
    loaded = load_experiment(path)
    assert Path(loaded.backbone) == tmp_path / "here/both" and Path(loaded.all_tasks[0].data) == tmp_path / "file/own"


def test_a_backbone_that_can_only_be_a_directory_must_be_there(tmp_path: Path) -> None:
    path = tmp_path / "e.yaml"
    path.write_text(yaml.safe_dump(experiment(backbone="../backbones/none")))
    with pytest.raises(UserError, match="backbone: there is no directory"):
        load_experiment(path)
