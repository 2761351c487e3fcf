"""A run that is killed again and again ends with the numbers of one that is left alone."""

from __future__ import annotations

import json
import random
import signal
from pathlib import Path

import pytest

from methods.training.checkpoint import CHECKPOINTS
from tests.apart import exit_code_apart
from tests.workbench.interrupted import ADABERT, COUNT, DYNABERT, NASBERT, left, write_experiment

CODE = "from tests.workbench.interrupted import main; main()"
KILLS = 8


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory, tiny_backbone_folder: Path) -> Path:
    """All three methods, augmentation, a search, controls; left alone it is in `whole/run` beside the file."""
    folder = tmp_path_factory.mktemp("interrupted")
    path = write_experiment(folder, tiny_backbone_folder, DYNABERT, ADABERT, NASBERT)
    assert exit_code_apart(CODE, str(path), str(folder / "whole" / "run"), "0", "0") == 0
    return path


def test_killed_at_random_instants_it_ends_with_the_same_numbers(experiment: Path) -> None:
    """Half of the kills hit the moment before a file takes its place, half come from a clock that knows nothing of the work."""
    folder, rng = experiment.parent / "killed" / "run", random.Random(0)
    whole, kills = json.loads((experiment.parent / "whole" / COUNT).read_text()), 0
    code = -signal.SIGKILL
    while code != 0:
        at, seconds = (rng.randint(2, whole["renames"] // 4), 0.0) if kills % 2 == 0 else (0, whole["seconds"] * rng.uniform(0.1, 0.3))
        if kills == KILLS:
            at, seconds = 0, 0.0
        code = exit_code_apart(CODE, str(experiment), str(folder), str(at), str(seconds))
        assert code in (0, -signal.SIGKILL)
        kills += code != 0
    assert kills > 3
    expected, found = left(experiment.parent / "whole" / "run"), left(folder)
    assert expected.keys() == found.keys()
    assert [name for name in expected if expected[name] != found[name]] == []
    stages = {json.loads(row)["stage"].split("-")[0] for row in expected["StageRow"]}
    assert stages >= {"fine", "augment", "rewire", "width", "final", "probes", "signals", "search", "derive", "finish", "truncated"}
    assert stages >= {"teacher", "supernet", "shrinking", "tables", "retrain", "finetune", "bag"}
    assert not [path for path in folder.rglob("*") if path.name.endswith(".part") or path.name in CHECKPOINTS]
