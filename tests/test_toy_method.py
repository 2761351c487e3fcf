"""A fourth method is one file: registered, run, searched, queried, exported and tabled without a change anywhere else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

import workbench
from methods import load_network, registry
from tests import toy_method


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
