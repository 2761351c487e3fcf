"""The run folder: whose it is, what may be added to it, and what is refused with nothing changed."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from methods.errors import UserError
from methods.recipe import StageRecord
from methods.training.checkpoint import CHECKPOINTS
from methods.training.stage import DONE, write_mark
from tests.workbench.test_experiment import experiment
from workbench.experiment import Experiment, HardwareOptions
from workbench.folder import RunFolder, differences, settle
from workbench.loading import check


def made(**changes: Any) -> Experiment:
    return check(experiment(hardware={"device": "cpu", "threads": 1}, **changes), "my.yaml")


def claimed(path: Path, **changes: Any) -> RunFolder:
    folder = RunFolder(path)
    folder.claim(folder.examine(made(**changes)))
    return folder


def test_the_resolved_experiment_lies_in_the_folder(tmp_path: Path) -> None:
    folder = claimed(tmp_path / "run")
    assert folder.experiment().resolved() == made().resolved()


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"methods": [{"name": "dynabert", "widths": [0.25, 1.0]}]}, "methods[0].widths"),
        ({"task": {"name": "sst2", "rows": 50}}, "tasks[0].rows"),
        ({"task": {"name": "rte"}}, "tasks[0] (sst2 is missing)"),
        ({"teacher": {"schedule": {"epochs": 9}}}, "teacher.schedule.epochs"),
        ({"cost": {"length": 64}}, "cost.length"),
        ({"budgets": [{"max_flops": "2G"}]}, "budgets"),
        ({"seeds": [1]}, "seeds"),
        ({"backbone": "bert-large-uncased"}, "backbone"),
    ],
)
def test_another_experiment_is_refused_by_key_and_nothing_is_written(tmp_path: Path, changes: dict[str, Any], key: str) -> None:
    folder = claimed(tmp_path / "run")
    before = folder.experiment_file.read_bytes()
    with pytest.raises(UserError, match="another experiment") as caught:
        folder.examine(made(**changes))
    assert f"different: {key}" in str(caught.value)
    assert folder.experiment_file.read_bytes() == before


@pytest.mark.parametrize(
    "changes",
    [
        {"seeds": [0, 1]},
        {"budgets": [{"max_flops": "1.2G"}, {"max_params": "8M"}]},
        {"methods": [{"name": "adabert"}, {"name": "dynabert", "widths": [0.5, 1.0]}]},
        {"task": None, "tasks": [{"name": "sst2"}, {"name": "rte"}]},
        {"controls": {"random": 1}},
        {"search": {"report_all": True}},
    ],
)
def test_a_run_may_grow(tmp_path: Path, changes: dict[str, Any]) -> None:
    folder = claimed(tmp_path / "run")
    grown = folder.examine(made(**changes))
    folder.claim(grown)
    assert folder.experiment().resolved() == grown.resolved() != made().resolved()


def test_what_was_settled_stays(tmp_path: Path) -> None:
    folder = claimed(tmp_path / "run")
    open_ended = check(experiment(), "my.yaml")
    assert open_ended.hardware.threads is None
    assert folder.examine(open_ended).hardware == folder.experiment().hardware


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty and no run folder"):
        RunFolder(tmp_path).examine(made())
    with pytest.raises(UserError, match="is no folder"):
        RunFolder(tmp_path / "notes.txt").examine(made())


def test_a_read_only_place_is_refused() -> None:
    """Root may write anywhere, so as root it is tried as a user who may not."""
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o555)
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)
        try:
            with pytest.raises(UserError, match="can't be written to"):
                claimed(Path(place) / "run")
        finally:
            if root:
                os.seteuid(0)
            Path(place).chmod(0o755)
        assert not list(Path(place).iterdir())


def test_a_place_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="can't be written to"):
        claimed(tmp_path / "file" / "run")


def test_a_damaged_experiment_is_refused(tmp_path: Path) -> None:
    folder = claimed(tmp_path / "run")
    folder.experiment_file.write_text("methods: [")
    with pytest.raises(UserError, match=r"experiment.yaml, line"):
        folder.examine(made())


def test_no_run_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run folder"):
        RunFolder(tmp_path / "none").experiment()


def test_equal_experiments_do_not_differ() -> None:
    data = made().resolved()
    assert differences(data, yaml.safe_load(yaml.safe_dump(data))) == []


def test_one_run_at_a_time(tmp_path: Path) -> None:
    folder = claimed(tmp_path / "run")
    with folder.held():
        before = sorted(folder.path.iterdir())
        with pytest.raises(UserError, match="another run works in this folder"), RunFolder(folder.path).held():
            raise AssertionError("held twice")
        assert sorted(folder.path.iterdir()) == before
    with RunFolder(folder.path).held():
        pass


def test_what_a_killed_run_left_half_done_is_removed(tmp_path: Path) -> None:
    """All else stays: what was measured, what is begun, a checkpoint beside a damaged mark, what has such a name for another reason."""
    folder, half = claimed(tmp_path / "run"), f"{'0' * 32}.part"
    finished, begun, damaged = (folder.path / "demo" / "a" / "seed-0" / name for name in ("finished", "begun", "damaged"))
    predictions, named = folder.path / "predictions", folder.path / "demo.part"
    kept = [stage / name for stage in (begun, damaged) for name in CHECKPOINTS]
    kept += [finished / "weights.safetensors", damaged / DONE, named / "weights.safetensors", folder.archive, predictions / "a.npz"]
    gone = [*(finished / name for name in CHECKPOINTS), begun / f"a.pt.{half}", predictions / "b.part", named / "c.json.part"]
    gone += [folder.text("tiny") / f"ab.{half}" / "train.tokens"]
    for path in (*kept, *gone):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{")
    write_mark(finished, {}, StageRecord("x", 1, 1, 1.0, 1.0))
    with folder.held():
        assert [path for path in kept if not path.exists()] == [path for path in gone if path.exists()] == []
    assert (finished / DONE).exists() and not gone[-1].parent.exists()
    assert folder.experiment().resolved() == made().resolved()


def with_tables(path: Path) -> dict[str, Any]:
    """A method whose bins read a latency table, and the table of a device."""
    corpus = {"name": "tiny", "data": "generated"}
    method = {"name": "nasbert", "shrinking": {"latency": str(path)}}
    return {"methods": [method], "corpus": corpus, "devices": {"phone": str(path)}}


def test_latency_tables_are_compared_by_what_they_hold(tmp_path: Path) -> None:
    first, moved = tmp_path / "first.json", tmp_path / "moved.json"
    first.write_text("1")
    folder = claimed(tmp_path / "run", **with_tables(first))
    first.rename(moved)
    folder.claim(folder.examine(made(**with_tables(moved))))
    assert folder.experiment().devices == {"phone": str(moved)}
    moved.write_text("2")
    with pytest.raises(UserError, match=r"different: methods\[0\]\.shrinking\.latency, devices\.phone"):
        folder.examine(made(**with_tables(moved)))
    with pytest.raises(UserError, match=r"none\.json: there is no latency table"):
        folder.examine(made(**with_tables(tmp_path / "none.json")))
    folder.latency.write_text("[")
    with pytest.raises(UserError, match=r"latency\.json: damaged"):
        folder.examine(made(**with_tables(moved)))


def test_bf16_is_refused_where_the_gpu_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """No such GPU is here: what torch says of one stands in for it."""
    options = HardwareOptions(device="cuda", precision="bf16", threads=1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for supported in (True, False):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, found=supported: found)
        if supported:
            assert settle(options, None) == options
    with pytest.raises(UserError, match=r"hardware\.precision: bf16, but this GPU"):
        settle(options, None)
    assert settle(options, None, present=False) == options, "a run of another machine can be looked at"


def test_how_often_checkpoints_are_saved_may_change(tmp_path: Path) -> None:
    claimed(tmp_path / "run")
    other = check(experiment(hardware={"device": "cpu", "threads": 1, "checkpoint_seconds": 5}), "my.yaml")
    assert RunFolder(tmp_path / "run").examine(other).hardware.checkpoint_seconds == 5
