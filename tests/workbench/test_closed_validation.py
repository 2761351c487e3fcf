"""No stage of training or search opens `validation`: the whole run is watched, and only what reports may."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import workbench
from methods.dynabert.recipe import DynaBertRecipe
from methods.tasks.split import Split
from methods.tasks.task import ClosedSplit, Task
from workbench import running


def test_training_and_search_never_open_validation(demo_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    phase, opened = ["report"], set()

    def during(name: str, owner: Any, function: str) -> None:
        original: Callable[..., Any] = getattr(owner, function)

        def wrapped(*arguments: Any, **more: Any) -> Any:
            phase.append(name)
            try:
                return original(*arguments, **more)
            finally:
                phase.pop()

        monkeypatch.setattr(owner, function, wrapped)

    split = Task.split

    def watched(self: Task, name: str) -> Split:
        opened.add((phase[-1], name))
        return split(self, name)

    monkeypatch.setattr(Task, "split", watched)
    during("teacher", running, "fine_tune_teacher")
    during("train", DynaBertRecipe, "train")
    during("search", running.MethodRun, "search")
    experiment = yaml.safe_load((demo_run.parent / "demo.yaml").read_text())
    path = tmp_path / "demo.yaml"
    path.write_text(yaml.safe_dump({**experiment, "controls": {"random": 0, "untrained": False, "truncated_kd": False}}))
    workbench.run(path, output=tmp_path / "run")
    assert {("teacher", "train"), ("train", "train"), ("train", "search"), ("search", "search"), ("report", "validation")} <= opened
    assert not {(name, "validation") for name in ("teacher", "train", "search")} & opened


def test_what_opens_it_fails(tiny_task: Task) -> None:
    with pytest.raises(ClosedSplit, match="'validation' is closed here; open are train, search"):
        tiny_task.restricted("train", "search").split("validation")
