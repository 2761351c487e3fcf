"""What NAS-BERT's options cannot work out with: `plan` and `run` say it at the start, by its place, and nothing is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

import workbench
from methods.errors import UserError
from tests.workbench.test_experiment import experiment
from workbench.verbs.plan import plan

SIZES = {"sublayers": 4, "blocks": 2, "hidden_sizes": [8, 16], "operations": ["M", "F", "S3"], "embedding_sizes": [8], "head_size": 8}
LENGTHS = {"supernet": {"length": 12}, "teacher": {"source": "backbone", "length": 12}}


@pytest.fixture
def written(tmp_path: Path, tiny_backbone_folder: Path) -> Path:
    methods: list[dict[str, Any]] = [
        {"name": "dynabert", "widths": [0.5, 1.0], "controls": False},
        {"name": "nasbert", **SIZES, **LENGTHS, "retrain": {"length": 12}},
    ]
    data = experiment(
        backbone=str(tiny_backbone_folder),
        task={"name": "demo", "data": "generated", "rows": 64, "max_length": 48},
        methods=methods,
        corpus={"name": "words", "data": "generated"},
        budgets=[{"name": "small", "max_flops": "1G"}],
    )
    path = tmp_path / "e.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def test_what_is_right_is_planned(written: Path) -> None:
    assert {row.stage for row in plan(written).plan.stages} >= {"supernet", "shrinking", "tables", "select"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["methods[1].embedding_sizes=[8, 32]", "methods[1].retrain.start=inherit"], "embedding_sizes: 32 is wider"),
        (["methods[1].embedding_sizes=[8, 32]", "controls.variants=[small]"], "embedding_sizes: 32 is wider"),
        (["methods[1].sublayers=30"], "sublayers: 30 in 2 blocks"),
        (["methods[1].shrinking.latency=BROKEN"], r"shrinking.latency: .*broken.json: no latency table, it can't be read"),
        (["methods[1].supernet.warmup_epochs=0", "methods[1].shrinking.kept=24"], "supernet.warmup_epochs: 0 makes no training step"),
    ],
)
def test_plan_and_run_say_it_at_the_start(written: Path, tmp_path: Path, changes: list[str], said: str) -> None:
    (tmp_path / "broken.json").write_text("{")
    changes = [change.replace("BROKEN", str(tmp_path / "broken.json")) for change in changes]
    place = rf"e\.yaml: methods\[1\]: nasbert: {said}"
    with pytest.raises(UserError, match=place):
        plan(written, changes)
    with pytest.raises(UserError, match=place):
        workbench.run(written, output=tmp_path / "run", set=changes)
    assert not (tmp_path / "run").exists()


def test_a_latency_table_that_is_not_there_is_said_at_the_start(written: Path, tmp_path: Path) -> None:
    changes, said = [f"methods[1].shrinking.latency={tmp_path / 'nowhere.json'}"], "nowhere.json: there is no latency table"
    with pytest.raises(UserError, match=said):
        plan(written, changes)
    with pytest.raises(UserError, match=said):
        workbench.run(written, output=tmp_path / "run", set=changes)
    assert not (tmp_path / "run").exists()
