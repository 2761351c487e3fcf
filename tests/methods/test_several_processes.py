"""Two processes on gloo do what one does, however their shares of a batch differ, and one of them writes."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
import torch

from methods.dynabert.options import Sampling
from tests.apart import printed_by_several
from tests.methods.several_processes import SAMPLED, STEPS, sampled, shrunk, taught, trained


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Any]:
    """The folder of two processes, and what each found."""
    folder = tmp_path_factory.mktemp("two")
    with socket.create_server(("127.0.0.1", 0)) as free:
        shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    environments = [shared | {"RANK": rank, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": "2"} for rank in ("0", "1")]
    printed_by_several("from tests.methods.several_processes import main; main()", str(folder), environments=environments)
    return folder, *(json.loads((folder / f"rank{rank}.json").read_text()) for rank in (0, 1))


def largest_difference(a: list[float], b: list[float]) -> float:
    return float((torch.tensor(a) - torch.tensor(b)).abs().max())


@pytest.mark.parametrize("name", STEPS)
def test_two_processes_step_as_one_does(two: tuple[Path, Any, Any], tmp_path: Path, name: str) -> None:
    """Batches of 3 rows and of 1, of unequal lengths: weights after four steps of gradient descent."""
    _, one, other = two
    assert one[name] == other[name]
    assert largest_difference(one[name], trained(name, tmp_path)) < 2e-6


@pytest.mark.parametrize("kind", SAMPLED)
def test_every_process_trains_the_same_drawn_sub_networks_as_one_does(two: tuple[Path, Any, Any], tmp_path: Path, kind: Sampling) -> None:
    _, one, other = two
    assert one[kind] == other[kind]
    alone = sampled(kind, tmp_path)
    assert one[kind]["drawn"] == alone["drawn"] and len({tuple(drawn) for drawn in alone["drawn"]}) > 1
    assert largest_difference(one[kind]["gradients"], alone["gradients"]) < 1e-6
    assert max(map(abs, alone["gradients"])) > 1e-3


def test_a_teacher_is_pretrained_as_by_one(two: tuple[Path, Any, Any], tmp_path: Path) -> None:
    _, one, other = two
    assert one["teacher"] == other["teacher"]
    assert largest_difference(one["teacher"], taught(tmp_path)) < 1e-4


def test_the_survivors_are_those_of_the_main_process(two: tuple[Path, Any, Any], tmp_path: Path) -> None:
    """The other process ranks by another text."""
    _, one, other = two
    assert one["shrunk"] == other["shrunk"]
    alone, elsewhere = (shrunk(tmp_path / str(search), search) for search in (6, 7))
    assert alone["alive"] != elsewhere["alive"], "the two texts choose differently"


def test_what_is_before_the_first_training_is_written_by_the_main_process_alone(two: tuple[Path, Any, Any]) -> None:
    folder, _, _ = two
    assert (folder / "own0" / "shared" / "teacher" / "origin.json").is_file()
    assert not (folder / "own1" / "shared").exists()
