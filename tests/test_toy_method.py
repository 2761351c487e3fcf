"""A fourth method is one file: registered, run, searched, queried, exported and tabled without a change anywhere else."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml

import workbench
from methods import load_network, registry
from methods.errors import UserError
from tests import toy_method
from workbench.loading import load_experiment


@pytest.fixture
def toy() -> object:
    registry.register(toy_method.METHOD)
    yield toy_method.METHOD
    registry.unregister("toy")


def test_it_is_short() -> None:
    lines = Path(toy_method.__file__).read_text().splitlines()
    assert sum(bool(line.strip()) for line in lines) < 60


def test_a_fourth_method_goes_all_the_way(toy: object, tmp_path: Path, tiny_backbone_folder: Path) -> None:
    schedule = {"epochs": 1, "learning_rate": 0.003, "batch_size": 16}
    experiment = {
        "backbone": str(tiny_backbone_folder),
        "task": {"name": "demo", "data": "generated", "rows": 100, "max_length": 48},
        "teacher": {"schedule": schedule},
        "methods": [{"name": "toy", **schedule}],
        "controls": {"random": 2, "truncated_kd": None},
        "budgets": [{"max_flops": "30K"}, {"max_flops": "1G"}],
        "search": {"strategy": "tpe", "evaluations": 3},
        "cost": {"length": 32, "batch": 1},
        "hardware": {"device": "cpu", "threads": 1},
    }
    path = tmp_path / "toy.yaml"
    path.write_text(yaml.safe_dump(experiment))
    workbench.run(path, output=tmp_path / "run")
    answer = workbench.query(tmp_path / "run", max_flops=30_000)
    assert answer.architecture.method == "toy" and answer.costs.flops <= 30_000
    workbench.export(tmp_path / "run", answer.architecture.id[:10], tmp_path / "network")
    logits = load_network(tmp_path / "network")(torch.tensor([[2, 5, 3]])).logits
    assert logits.shape == (1, 2) and logits.isfinite().all()
    assert "toy" in workbench.compare([tmp_path / "run"]).render("md")


MODULE = "a_module_with_a_toy"


@pytest.fixture
def of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An experiment in the current directory, beside a module that registers the toy method and some that can't be imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    Path(f"{MODULE}.py").write_text("from methods.registry import register\nfrom tests.toy_method import METHOD\n\nregister(METHOD)\n")
    for name, line in (("a_broken_module", "1 / 0"), ("a_script", "raise SystemExit(3)"), ("no_python", "def of(:")):
        Path(f"{name}.py").write_text(f"\n{line}\n")
    task, budget = {"name": "demo", "data": "generated"}, {"max_flops": "1G"}
    data = {"backbone": "demo", "task": task, "methods": [{"name": "toy"}], "budgets": [budget]}
    Path("toy.yaml").write_text(yaml.safe_dump(data))
    yield Path("toy.yaml")
    registry.unregister("toy")
    sys.modules.pop(MODULE, None)


def test_a_module_of_the_current_directory_is_a_plugin(of_ones_own: Path) -> None:
    with pytest.raises(UserError, match="no method 'toy'"):
        load_experiment(of_ones_own)
    experiment = load_experiment(of_ones_own, [f"plugins=[{MODULE}]"])
    assert experiment.methods[0].options.epochs == 3.0
    assert experiment.resolved()["plugins"] == [MODULE]


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("no_such_module", "plugins: there is no module 'no_such_module'; install its package, or start in the directory"),
        ("a_broken_module", r"plugins: module 'a_broken_module': ZeroDivisionError: .*a_broken_module.py, line 2\)"),
        ("a_script", r"plugins: module 'a_script': SystemExit: 3 .*a_script.py, line 2\)"),
        ("no_python", r"plugins: module 'no_python': SyntaxError: .*no_python.py, line 2\)"),
    ],
)
def test_a_module_that_can_not_be_imported_is_told_of(of_ones_own: Path, module: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        load_experiment(of_ones_own, [f"plugins=[{module}]"])


def test_an_installed_package_names_its_methods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "a_toy-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: a-toy\nVersion: 1.0\n")
    points = "toy = tests.toy_method:METHOD\nother = tests.toy_method:ToySpace\ngone = no_such_module:METHOD\n"
    (package / "entry_points.txt").write_text(f"[elastibench.methods]\n{points}")
    monkeypatch.syspath_prepend(tmp_path)
    registry._installed.cache_clear()
    try:
        assert {"toy", "other"} < set(registry.names())
        assert registry.get("toy") is toy_method.METHOD
        with pytest.raises(UserError, match=r"other = tests.toy_method:ToySpace of elastibench.methods is no Method named 'other'"):
            registry.get("other")
        with pytest.raises(UserError, match=r"gone = no_such_module:METHOD of elastibench.methods can't be loaded \(ModuleNotFoundError"):
            registry.get("gone")
    finally:
        registry._installed.cache_clear()
