"""A stage that diverges ends its own part of a run alone; the archive says so, and once it is mended forgets it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

import workbench
from methods.errors import StageError, UserError
from search.archive import Archive
from tests.workbench.test_adabert_run import write_data
from workbench.cli import app
from workbench.failing import Failures
from workbench.planning import Plan
from workbench.progress import Reporter

FAST = {"epochs": 1, "learning_rate": 0.01, "batch_size": 16}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory, tiny_backbone_folder: Path) -> Path:
    """Two entries of one method, the first of which diverges, and a truncated teacher that does so too."""
    folder = tmp_path_factory.mktemp("failing")
    sizes = {"widths": [0.5, 1.0], "depths": [1.0], "width": FAST, "depth": FAST}
    wild = {**sizes, "label": "wild", "width": {**FAST, "learning_rate": 1e36, "clip": 1e36}}
    data: dict[str, Any] = {
        "backbone": str(tiny_backbone_folder),
        "task": write_data(folder / "single", False),
        "teacher": {"schedule": FAST},
        "methods": [{"name": "dynabert", **wild}, {"name": "dynabert", **sizes}],
        "controls": {"random": 0, "untrained": False, "truncated_kd": {**FAST, "learning_rate": 1e36, "clip": 1e36}, "equal_flops": False},
        "budgets": [{"max_flops": "1G"}],
        "cost": {"length": 16},
        "hardware": {"device": "cpu", "threads": 1},
    }
    path = folder / "failing.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


@pytest.fixture(scope="module")
def outcome(file: Path) -> workbench.verbs.run.Outcome:
    return workbench.run(file, output=file.parent / "run")


def test_the_rest_goes_on(outcome: workbench.verbs.run.Outcome) -> None:
    heads = ["single, wild, seed 0, failed: stage width: ", "single, truncated-kd, seed 0, failed: stage "]
    assert [any(line.startswith(head) for line in outcome.failed) for head in heads] == [True, True] and len(outcome.failed) == 2
    assert "lower its learning_rate (1e+36)" in outcome.failed[0]
    with Archive(outcome.folder / "archive.db", create=False) as archive:
        finished = {m.architecture.method for m in archive.measurements("single") if m.kind == "finished"}
        assert (
            finished == {"dynabert"} and {"single, wild, seed 0, failed", "single, truncated-kd, seed 0, failed"} <= archive.notes().keys()
        )
    assert "single, wild, seed 0, failed: stage width" in " ".join(outcome.table.render().split())


def test_the_command_line_says_what_failed_and_is_no_success(file: Path, outcome: workbench.verbs.run.Outcome) -> None:
    result = CliRunner().invoke(app, ["run", str(file), "--output", str(outcome.folder)])
    assert result.exit_code == 1 and "dynabert" in result.stdout and "single, wild, seed 0, failed" in result.stderr


def test_what_is_mended_is_forgotten_and_another_error_ends_the_run(tmp_path: Path) -> None:
    with Archive(tmp_path / "archive.db") as archive:
        failures = Failures(archive, Reporter(Plan((), (), ()), 1.0))
        for again in (True, False):
            with failures.kept("single", "dynabert"):
                if again:
                    raise StageError("stage width: out of memory")
            assert list(archive.notes()) == ["single, dynabert, failed"] * again
        assert failures.told == ["single, dynabert, failed: stage width: out of memory"]
        with pytest.raises(UserError), failures.kept("single", "dynabert"):
            raise UserError("a file is damaged")
