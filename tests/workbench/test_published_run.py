"""A published DynaBERT from an experiment file to a table: loaded, searched, never trained; what does not fit is refused at the start."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import BertConfig, BertForSequenceClassification

import workbench
from methods.errors import UserError
from search.archive import Archive
from search.query import Answer
from tests.conformance.cases import randomise
from tests.methods.roberta_cases import make_roberta
from tests.workbench.test_experiment import experiment
from workbench.loading import load_experiment
from workbench.planning import make_plan

FAST = {"epochs": 1, "batch_size": 16, "learning_rate": 0.003}


def publish(folder: Path, backbone: Path) -> Path:
    """A random classifier of the backbone's shape."""
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig.from_pretrained(backbone, num_labels=2))
    randomise(model, 0)
    model.save_pretrained(folder)
    return folder


def write(path: Path, backbone: Path, method: dict[str, Any], truncated: Any = False) -> Path:
    data = experiment(
        backbone=str(backbone),
        task={"name": "demo", "data": "generated", "rows": 48, "max_length": 32},
        methods=[method],
        teacher={"schedule": FAST},
        controls={"random": 0, "truncated_kd": truncated},
        budgets=[{"max_flops": "1G"}],
        cost={"length": 32, "batch": 1},
        hardware={"device": "cpu", "threads": 1},
    )
    path.write_text(yaml.safe_dump(data))
    return path


def test_a_checkpoint_goes_straight_to_search(tmp_path: Path, tiny_backbone_folder: Path) -> None:
    publish(tmp_path / "published", tiny_backbone_folder)
    method = {"name": "dynabert", "widths": [0.5, 1.0], "depths": [0.5, 1.0], "checkpoint": "published"}
    path, run = write(tmp_path / "e.yaml", tiny_backbone_folder, method, FAST), tmp_path / "run"
    assert load_experiment(path).methods[0].options.model_dump()["checkpoint"] == str(tmp_path / "published")
    table = workbench.run(path, output=run).table
    assert {"dynabert", "teacher", "teacher-cut (dynabert)", "truncated-kd"} <= {row.row for row in table.rows}
    with Archive(run / "archive.db", create=False) as archive:
        stages = [(row.stage, row.steps, row.flops) for row in archive.stages() if row.method == "dynabert"]
        assert len(archive.measurements("demo", "dynabert", "shared", "search")) == 4
    assert stages == [("loaded", 0, 0.0)]
    assert [place.name for place in (run / "demo" / "dynabert" / "seed-0").iterdir()] == ["loaded"]
    answer = workbench.query(run, max_flops="1G")
    assert isinstance(answer, Answer)
    exported = workbench.export(run, answer.architecture.id[:12], tmp_path / "network")
    assert exported.architecture == answer.architecture
    file = tmp_path / "published" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "note": "another"}))
    with pytest.raises(UserError, match=r"config\.json: has changed since this run loaded it"):
        workbench.run(path, output=run)


def test_a_checkpoint_that_does_not_fit_is_refused_before_anything_is_trained(tmp_path: Path, tiny_backbone_folder: Path) -> None:
    publish(tmp_path / "published", tiny_backbone_folder)
    file = tmp_path / "published" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "hidden_size": 32}))
    method = {"name": "dynabert", "widths": [0.5, 1.0], "checkpoint": str(tmp_path / "published")}
    path = write(tmp_path / "e.yaml", tiny_backbone_folder, method)
    with pytest.raises(UserError, match=r"e\.yaml: methods\[0\]: .*config\.json: hidden_size: 32, but the backbone has 16"):
        workbench.run(path, output=tmp_path / "run")
    assert not (tmp_path / "run" / "teacher").exists()


def test_truncated_kd_beside_a_checkpoint_is_planned_by_its_epochs(tmp_path: Path, tiny_backbone_folder: Path) -> None:
    """There are no training FLOPs that it could be given."""
    method = {"name": "dynabert", "widths": [0.5, 1.0], "checkpoint": "someone/dynabert"}
    path = write(tmp_path / "e.yaml", tiny_backbone_folder, method, FAST)
    rows = {(row.who, row.stage): row for row in make_plan(load_experiment(path), str(path)).stages}
    assert rows["dynabert", "loaded"].flops == 0 and rows["dynabert", "loaded"].note == "from someone/dynabert"
    assert rows["truncated-kd", "distil"].flops > 0 and rows["truncated-kd", "distil"].note == "each depth by its own epochs"


def test_dynaroberta_is_one_changed_line(tmp_path: Path, tiny_backbone_folder: Path) -> None:
    make_roberta(tmp_path / "roberta")
    method = {"name": "dynabert", "widths": [0.5, 1.0], "depths": [0.5, 1.0], "width": FAST, "depth": FAST}
    path = write(tmp_path / "e.yaml", tiny_backbone_folder, method)
    table = workbench.run(path, output=tmp_path / "run", set=[f"backbone={tmp_path / 'roberta'}"]).table
    assert {"dynabert", "teacher", "rewired-cut (dynabert)"} <= {row.row for row in table.rows}
    answer = workbench.query(tmp_path / "run", max_flops="1G")
    assert isinstance(answer, Answer)
    workbench.export(tmp_path / "run", answer.architecture.id[:12], tmp_path / "network")
    config = json.loads((tmp_path / "network" / "config.json").read_text())
    assert config["network"]["stem"]["position_offset"] == 2


@pytest.mark.parametrize("space", ["grid", "elastic"])
def test_plan_and_table_say_which_shapes_were_never_trained(tmp_path: Path, tiny_backbone_folder: Path, space: str) -> None:
    publish(tmp_path / "published", tiny_backbone_folder)
    method = {"name": "dynabert", "widths": [0.5, 1.0], "depths": [0.5, 1.0], "checkpoint": "published", "space": space}
    path = write(tmp_path / "e.yaml", tiny_backbone_folder, method)
    plan = make_plan(load_experiment(path, ["search.evaluations=5"]), "e")
    (loaded,) = [row for row in plan.stages if row.who == "dynabert" and row.stage == "loaded"]
    assert ("were never trained" in loaded.note) == (space == "elastic") and "published" in loaded.note
    outcome = workbench.run(path, output=tmp_path / "run", set=["search.evaluations=5", "controls.untrained=false"])
    said = " ".join(outcome.table.render().split())
    assert ("were never trained" in said) == (space == "elastic") and "demo, dynabert, supernet: from" in said
