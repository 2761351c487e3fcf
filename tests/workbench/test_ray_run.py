"""Ray: the same run, the pool of actors, and what happens when workers, nodes and drivers die. One cluster of two nodes serves all."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import workbench
from methods.errors import StageError, UserError
from search.archive import Archive
from tests.conftest import STORE
from tests.workbench.test_early_stop import BUDGETS, OPTIONS, scores_in, told
from tests.workbench.test_run import rows
from workbench.search_options import SearchOptions

pytest.importorskip("ray")

import ray
from ray.cluster_utils import Cluster
from ray.exceptions import OutOfMemoryError

from search.ray_.failures import gave_up
from search.ray_.pool import Pool
from search.ray_.tasks import completed

NOTHING: Callable[[str], None] = lambda _: None  # noqa: E731


def once(path: Path, first: Callable[[], object]) -> str:
    """Does `first` at the first call for this path, and answers at the second."""
    if not path.exists():
        path.touch()
        first()
    return path.name


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def sleep() -> None:
    time.sleep(300)


def wait_for(true: Callable[[], bool], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def evaluating(folder: Path) -> Callable[[int], tuple[int, int]]:
    """An evaluator whose actor dies at 3, once, and which can't evaluate 5."""

    def evaluate(number: int) -> tuple[int, int]:
        if number == 3:
            once(folder / "three", die)
        if number == 5:
            raise ZeroDivisionError("five")
        if number == 7:
            raise UserError("seven is missing")
        if number == 9:
            die()
        return number, number**2

    return evaluate


def pool(folder: Path, **more: Any) -> Pool:
    return Pool(lambda: partial(evaluating, folder), 2, "squares", {"num_cpus": 1}, again=NOTHING, **more)


def test_a_pool_answers_for_all_and_survives_an_actor(cluster: Cluster, tmp_path: Path) -> None:
    with pool(tmp_path) as squares:
        assert sorted(squares(range(4))) == [(n, n**2) for n in range(4)]
        assert (tmp_path / "three").exists()
        warm = list(squares(range(3)))
        assert sorted(warm) == [(n, n**2) for n in range(3)] and squares._made == 3


@pytest.mark.parametrize(
    ("number", "kind", "said"),
    [
        (5, StageError, r"squares, 5: ZeroDivisionError: five \(.*test_ray_run.py, line \d+\)"),
        (7, UserError, "^seven is missing$"),
        (9, StageError, "squares, 9: its worker died 2 times, the last time: "),
    ],
)
def test_one_that_fails_is_named_after_all_others_have_arrived(
    cluster: Cluster, tmp_path: Path, number: int, kind: type[Exception], said: str
) -> None:
    found = []
    with pytest.raises(kind, match=said), pool(tmp_path, retries=1) as squares:
        for result in squares([0, number, 1, 2]):
            found.append(result)
    assert sorted(found) == [(0, 0), (1, 1), (2, 4)]


def test_tasks_are_done_again_where_a_worker_or_a_node_dies(cluster: Cluster, tmp_path: Path) -> None:
    node = cluster.add_node(num_cpus=1, object_store_memory=STORE, resources={"lost": 1})
    died: list[str] = []
    call = ray.remote(once)
    calls: dict[str, Callable[[], Any]] = {
        "killed": lambda: call.options(max_retries=0).remote(tmp_path / "killed", die),
        "cut off": lambda: call.options(max_retries=0, resources={} if gone else {"lost": 1}).remote(tmp_path / "cut off", sleep),
    }

    @contextmanager
    def waiting() -> Iterator[None]:
        if died and not gone:
            wait_for((tmp_path / "cut off").exists)
            gone.append(cluster.remove_node(node, allow_graceful=False))
        yield

    gone: list[Any] = []
    assert sorted(completed(calls, waiting=waiting, again=died.append)) == [("cut off", "cut off"), ("killed", "killed")]
    assert died == ["killed", "cut off"] and gone


def full() -> None:
    raise OSError(28, "No space left on device")


def test_a_failure_is_told_in_words(cluster: Cluster) -> None:
    with pytest.raises(StageError, match=r"sst2 train: OSError: .*No space left on device \(.*and 1 more\)|No space left.*and 1 more"):
        list(completed({name: lambda: ray.remote(full).options(max_retries=0).remote() for name in ("sst2 train", "rte train")}))
    assert "raise resources.memory" in str(gave_up("sst2 train", OutOfMemoryError("the node was low on memory"), 4))


def predictions(run: Path) -> dict[Any, Any]:
    with Archive(run / "archive.db", create=False) as archive:
        return {m.key: (m.metrics, kept.logits) for m in archive.measurements() if (kept := archive.predictions(m.key))}


def tables(run: Path) -> list[list[Any]]:
    """Stages and searches, seconds and order apart."""
    with sqlite3.connect(run / "archive.db") as connection:
        stages = connection.execute("select task, method, seed, stage, steps, examples, flops from stages").fetchall()
        searches = connection.execute("select task, method, seed, strategy, budget, evaluations, flops from searches").fetchall()
    return [sorted(stages), sorted(searches)]


def assert_same(run: Path, other: Path) -> None:
    """Bit for bit: measurements, predictions, what was recorded of stages and searches, and the table."""
    first, second = predictions(run), predictions(other)
    assert first.keys() == second.keys()
    for key, (metrics, logits) in first.items():
        assert metrics == second[key][0]
        np.testing.assert_array_equal(logits, second[key][1])
    assert rows(run) == rows(other) and tables(run) == tables(other)


def test_a_run_on_ray_gives_the_same_numbers(cluster: Cluster, demo_run: Path, tmp_path: Path) -> None:
    file, limit = demo_run.parent / "demo.yaml", "resources={cpus: 1, memory: 50M, workers: 1}"
    outcome = workbench.run(file, output=tmp_path / "run", set=[limit], ray="auto")
    assert not outcome.failed
    assert_same(tmp_path / "run", demo_run)
    again = workbench.run(file, output=tmp_path / "run")  # and goes on without Ray
    assert again.folder == tmp_path / "run"
    assert_same(tmp_path / "run", demo_run)


def test_a_run_on_ray_with_its_archive_on_a_server(cluster: Cluster, server: str, demo_run: Path, tmp_path: Path) -> None:
    """The driver alone speaks with the server."""
    outcome = workbench.run(demo_run.parent / "demo.yaml", output=tmp_path / "run", set=[f"archive={server}"], ray="auto")
    assert not outcome.failed and not (tmp_path / "run" / "archive.db").exists()
    assert rows(tmp_path / "run") == rows(demo_run)


def answering(folder: Path) -> Callable[[Any], Any]:
    """What an actor evaluates and stops."""
    torch.set_num_threads(1)
    return scores_in(folder).answer


def test_actors_stop_what_the_driver_would_have_stopped(cluster: Cluster, tmp_path: Path) -> None:
    options = SearchOptions(**OPTIONS, early_stop=0.1)
    torch.set_num_threads(1)
    here = scores_in(tmp_path / "here").search(BUDGETS, options)
    with Pool(lambda: partial(answering, tmp_path / "actor"), 1, "early", {"num_cpus": 1}, again=NOTHING) as pool:
        there = replace(scores_in(tmp_path / "there"), elsewhere=pool).search(BUDGETS, options)
    assert told(here) == told(there) and any(part.hopeless for part in there.passes)


def test_a_driver_that_is_killed_goes_on(cluster: Cluster, demo_run: Path, tmp_path: Path) -> None:
    file, folder = demo_run.parent / "demo.yaml", tmp_path / "run"
    command = [sys.executable, "-c", "from workbench.cli import main; main()", "run", str(file), "--output", str(folder), "--ray", "auto"]
    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        wait_for((folder / "teacher" / "demo" / "fine-tune" / "stage.json").exists)
    finally:
        os.killpg(driver.pid, signal.SIGKILL)
    assert driver.wait() == -signal.SIGKILL
    shutil.copytree(folder, tmp_path / "left")
    before = predictions(tmp_path / "left")
    workbench.run(file, output=folder, ray="auto")
    assert_same(folder, demo_run)
    assert before.keys() <= predictions(folder).keys()


@pytest.mark.parametrize("address", ["locally", "ray:/x", "10.0.0.1:6379"])
def test_an_address_that_is_none_is_refused(address: str, demo_run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"write local, auto or ray://HOST:PORT"):
        workbench.run(demo_run.parent / "demo.yaml", output=tmp_path / "run", ray=address)
    assert not (tmp_path / "run").exists()


WITHOUT = """
import sys
sys.modules["ray"] = None
import methods, search, analysis, workbench
from methods.errors import UserError
from methods.budget import Budget
from search.strategies.registry import make
from tests.search.toy import LayerSpace, costs_of
start = lambda name: make(name, LayerSpace(6), 0, Budget(), costs_of(LayerSpace(6)))
for mistake in (lambda: workbench.run(sys.argv[1], ray="local"), lambda: start("ray_tune")):
    try:
        mistake()
    except UserError as error:
        print(error)
print(len(start("tpe").ask(3)))
"""


def test_without_ray_all_else_works_and_the_rest_says_what_to_install(demo_run: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, str(demo_run.parent / "demo.yaml")], capture_output=True, text=True, check=True
    ).stdout
    assert done.count("pip install 'elastibench[ray]'") == 2 and done.endswith("\n3\n")


def test_resources_change_no_number_and_are_checked(cluster: Cluster, demo_run: Path, tmp_path: Path) -> None:
    data = yaml.safe_load((demo_run.parent / "demo.yaml").read_text())
    data["methods"][0]["resources"] = {"cpus": 2, "memory": "1G"}
    path = tmp_path / "demo.yaml"
    path.write_text(yaml.safe_dump(data))
    run = Path(shutil.copytree(demo_run, tmp_path / "run"))
    assert workbench.run(path, output=run, set=["resources.cpus=1"]).folder == run
    with pytest.raises(UserError, match=r"methods\[0\].resources.cpus"):
        workbench.run(path, output=run, set=["methods[0].resources.cpus=-1"])
