"""Faults amid a whole run on a cluster of several nodes, with methods of a module that only the experiment names."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
import yaml

pytest.importorskip("ray")

import psutil

import workbench
from methods.errors import UserError
from search.archive import Archive
from tests.conftest import STORE
from tests.workbench.test_ray_run import assert_same, predictions, wait_for
from tests.workbench.troubled_methods import BALLAST, FULL, MARKS, NEARLY_FULL, SEARCHED, TRAINED

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

FAST = {"epochs": 1, "learning_rate": 0.003, "batch_size": 16}
APPETITE = 3e9
Result = TypeVar("Result")


def begun(call: Callable[[], Result]) -> Future[Result]:
    """In a thread that ends with the process; Ray's nodes are added in the main one."""
    future: Future[Result] = Future()

    def work() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    return future


def node(cluster: Cluster, **given: Any) -> Any:
    """One more node of one processor."""
    try:
        return cluster.add_node(num_cpus=1, object_store_memory=STORE, **given)
    except Exception as error:  # a machine too busy for Ray's own deadline of 30 s
        pytest.skip(f"no Ray node starts here: {error}")


def write(folder: Path, backbone: Path, *methods: str, marks: tuple[str, ...] = (), **resources: dict[str, Any]) -> Path:
    """An experiment with these methods. Troubles of `marks` are over."""
    folder.mkdir(exist_ok=True)
    for mark in marks:
        (folder / mark).touch()
    data = {
        "backbone": str(backbone),
        "plugins": ["tests.workbench.troubled_methods"],
        "task": {"name": "demo", "data": "generated", "rows": 100, "max_length": 32},
        "teacher": {"schedule": FAST},
        "methods": [{"name": name, "marks": str(folder), "resources": resources.get(name), **FAST} for name in methods],
        "controls": {"random": 0, "untrained": False, "truncated_kd": None, "int8": True},
        "budgets": [{"max_flops": "1G"}],
        "cost": {"length": 16},
        "hardware": {"device": "cpu", "threads": 1},
    }
    path = folder / "troubled.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


@pytest.fixture
def threshold() -> Iterator[None]:
    """Of the memory monitor of nodes that are added: what is used now and a little more."""
    memory = psutil.virtual_memory()
    if memory.available < 2 * APPETITE:
        pytest.skip("too little memory is free")
    os.environ["RAY_memory_usage_threshold"] = f"{1 - (memory.available - APPETITE) / memory.total:.3f}"  # noqa: SIM112
    yield
    del os.environ["RAY_memory_usage_threshold"]  # noqa: SIM112


def test_nodes_and_workers_that_die_change_no_number(cluster: Cluster, threshold: None, tiny_backbone_folder: Path, tmp_path: Path) -> None:
    """One method's node dies in training, the next one in the search. The other method's workers are killed by the memory monitor until
    it is given up."""
    where = {"sleeping": {"cpus": 1, "memory": "1T"}, "hungry": {"cpus": 1, "gpus": 1}}
    file = write(tmp_path / "on ray", tiny_backbone_folder, "sleeping", "hungry", **where)
    small = node(cluster, num_gpus=1)
    os.environ["RAY_memory_usage_threshold"] = "0.95"  # noqa: SIM112
    large = {one.node_id: one for one in (node(cluster, memory=2 * 10**12) for _ in range(3))}
    outcome = begun(lambda: workbench.run(file, output=tmp_path / "run", ray="auto"))
    for mark in (file.parent / TRAINED, file.parent / SEARCHED):
        wait_for(lambda: outcome.done() or (mark.exists() and mark.read_text() in large))  # noqa: B023 (called at once)
        cluster.remove_node(large.pop(mark.read_text()), allow_graceful=False)
    failed = outcome.result().failed
    for one in (small, *large.values()):
        cluster.remove_node(one)
    assert len(failed) == 1 and "demo, hungry, seed 0, failed: demo hungry seed 0 train: its worker died 4 times" in failed[0]
    assert "raise resources.memory" in failed[0]
    undisturbed = write(tmp_path / "alone", tiny_backbone_folder, "sleeping", marks=MARKS)
    workbench.run(undisturbed, output=tmp_path / "other")
    assert_same(tmp_path / "run", tmp_path / "other")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_is_told_and_the_same_command_goes_on(
    cluster: Cluster, small_disk: Path, tiny_backbone_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Full to the last byte, then with room for the archive but for no weights, then not."""
    marks, run = small_disk / "marks", small_disk / "run"
    file = write(marks, tiny_backbone_folder, "filling")
    with pytest.raises(UserError, match=r"archive.db: .*full"):
        workbench.run(file, output=run, ray="auto")
    assert (marks / FULL).exists() and "failed: demo filling seed 0 train: " in (said := " ".join(capsys.readouterr().err.split()))
    assert "No space left on device" in said
    (marks / BALLAST).unlink()
    kept = predictions(run)
    assert {kind for *_, kind in kept} == {"control"}

    outcome = workbench.run(file, output=run, ray="auto")
    assert (marks / NEARLY_FULL).exists()
    assert len(outcome.failed) == 1 and "demo, filling, seed 0, failed: demo filling seed 0 train: " in outcome.failed[0]
    assert "No space left on device" in outcome.failed[0]
    (marks / BALLAST).unlink()
    assert predictions(run).keys() == kept.keys()

    assert not workbench.run(file, output=run, ray="auto").failed
    undisturbed = write(tmp_path / "alone", tiny_backbone_folder, "filling", marks=MARKS)
    workbench.run(undisturbed, output=tmp_path / "other")
    assert_same(run, tmp_path / "other")
    with Archive(run / "archive.db", create=False) as archive:
        assert not [name for name in archive.notes() if name.endswith("failed")]
