"""The section `augmentation` of an experiment: planned, made once for all methods and seeds, read back, never changed midway."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

import workbench
from methods.errors import UserError
from methods.training.augmentation import building
from methods.training.stage import DONE
from search.archive import Archive
from tests.workbench.test_experiment import experiment, refusal
from workbench.loading import load_experiment
from workbench.planning import make_plan

FAST = {"epochs": 1, "batch_size": 16, "learning_rate": 0.003}
METHOD = {"name": "dynabert", "widths": [1.0], "depths": [0.5, 1.0], "width": FAST, "depth": FAST, "rewiring": False}


def write(path: Path, backbone: Path, **changes: Any) -> Path:
    data = experiment(
        backbone=str(backbone),
        task={"name": "demo", "data": "generated", "rows": 64, "max_length": 32},
        methods=[METHOD],
        budgets=[{"max_flops": "1G"}],
        **{
            "teacher": {"schedule": FAST},
            "augmentation": {"copies": 2, "candidates": 3},
            "controls": {"random": 0, "untrained": False, "truncated_kd": False},
            "cost": {"length": 32, "batch": 1},
            "hardware": {"device": "cpu", "threads": 1},
            "seeds": [0, 1],
            **changes,
        },
    )
    path.write_text(yaml.safe_dump(data))
    return path


def test_a_run_makes_the_rows_once(tmp_path: Path, tiny_backbone_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, run = write(tmp_path / "e.yaml", tiny_backbone_folder), tmp_path / "run"
    workbench.run(path, output=run)
    rows = run / "augmented" / "demo" / building.ROWS
    made, count = rows.read_bytes(), len(rows.read_text().splitlines()) - 1
    assert 0 < count <= 128
    (stage,) = [row for row in Archive(run / "archive.db").stages() if row.method == "augmentation"]
    assert (stage.stage, stage.examples) == ("augment", count)
    marks = [json.loads((run / "demo" / "dynabert" / f"seed-{seed}" / "width" / DONE).read_text()) for seed in (0, 1)]
    assert [mark["record"]["examples"] for mark in marks] == [64 + count] * 2
    assert json.loads((run / "teacher" / "demo" / "fine-tune" / DONE).read_text())["record"]["examples"] == 64
    monkeypatch.setattr(building, "make_copies", lambda *_: pytest.fail("made again"))
    workbench.run(path, output=run)
    assert rows.read_bytes() == made
    with pytest.raises(UserError, match=r"different: augmentation\.rate"):
        workbench.run(path, output=run, set=["augmentation.rate=0.5"])


def test_copies_are_planned(tmp_path: Path, tiny_backbone_folder: Path) -> None:
    off = make_plan(load_experiment(write(tmp_path / "off.yaml", tiny_backbone_folder, augmentation={"copies": 0})), "e")
    on = make_plan(load_experiment(write(tmp_path / "on.yaml", tiny_backbone_folder)), "e")
    before, after = ({(row.who, row.stage): row for row in plan.stages} for plan in (off, on))
    assert set(after) - set(before) == {("augmentation", "augment")}
    assert after["augmentation", "augment"].examples == 128 and after["augmentation", "augment"].times == 1
    for key in (("dynabert", "width"), ("dynabert", "width-and-depth")):
        assert (before[key].steps, after[key].steps) == (4, 12) and after[key].flops == pytest.approx(3 * before[key].flops)
    assert before["teacher", "fine-tune"] == after["teacher", "fine-tune"]


def test_mistakes_are_named_by_their_place(tmp_path: Path, tiny_backbone_folder: Path) -> None:
    assert "augmentation.rate" in refusal(experiment(augmentation={"rate": 1.5}))
    assert "augmentation.copy: unknown key; did you mean copies?" in refusal(experiment(augmentation={"copy": 1}))
    path = write(tmp_path / "e.yaml", tiny_backbone_folder, augmentation={"copies": 1, "source": "masked_words"})
    with pytest.raises(UserError, match=r"augmentation\.source: masked_words, but backbone"):
        workbench.run(path, output=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    relative = write(tmp_path / "f.yaml", tiny_backbone_folder, augmentation={"backbone": tiny_backbone_folder.name})
    (tmp_path / tiny_backbone_folder.name).symlink_to(tiny_backbone_folder)
    assert load_experiment(relative).augmentation.backbone == str(tiny_backbone_folder)
