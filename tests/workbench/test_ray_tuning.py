"""Ray Tune: trials on a cluster, what they find in the comparison, and a driver that is killed among them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import workbench
from methods.errors import UserError
from search.archive import Archive
from tests.workbench.test_tuning import tuning_of, written
from workbench.jobs import quiet
from workbench.loading import load_experiment
from workbench.session import Session
from workbench.tuned import Trial, Tuned, result_file

pytest.importorskip("ray")

from ray.cluster_utils import Cluster

from search.ray_.tuning import JournaledAsha, reports
from tests.workbench.test_ray_run import wait_for
from workbench.folder import RunFolder
from workbench.ray_running import RayWorkers
from workbench.tuning import tune_all

HALVING = {"grace": 0.2, "reduction": 2}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory, tiny_backbone_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("tuning")
    return written(folder, tuning_of(folder, tiny_backbone_folder, scheduler=HALVING))


@pytest.fixture(scope="module")
def run(cluster: Cluster, file: Path) -> Path:
    """A run that tuned first."""
    outcome = workbench.run(file, output=file.parent / "run", ray="auto")
    assert not outcome.failed
    return outcome.folder


def tuned(run: Path) -> Tuned:
    found = Tuned.load(result_file(run, load_experiment(run / "experiment.yaml").tune[0]))
    assert found is not None
    return found


def without_seconds(trials: list[Trial]) -> list[Trial]:
    return [replace(trial, seconds=0.0) for trial in trials]


def test_bad_trials_stop_and_the_best_is_a_row_that_costs_more(run: Path) -> None:
    found = tuned(run)
    assert len(found.trials) == 4 and found.best["width.learning_rate"] == 0.003
    stopped = [trial for trial in found.trials if trial.ended == "stopped"]
    assert stopped and {trial.parameters["width.learning_rate"] for trial in stopped} == {50.0}
    assert all(trial.progress < 1 and trial.flops < max(other.flops for other in found.trials) for trial in stopped)
    with Archive(run / "archive.db", create=False) as archive:
        stages = {(row.method, row.stage): row.flops for row in archive.stages("single") if row.method.startswith("dynabert")}
        assert stages["dynabert-tuned", "tune"] == sum(trial.flops for trial in found.trials)
        assert {m.control for m in archive.measurements("single", "dynabert-tuned", "finished", "validation")} == {""}
    rows = next(block.rows for block in workbench.compare(run).blocks if block.budget.label() == "all")
    spent = {row.row: row.training_flops or 0.0 for row in rows}
    assert spent["dynabert-tuned"] > 2 * spent["dynabert"] > 0


def test_nothing_is_tuned_twice(run: Path, file: Path) -> None:
    before = (run / "tune" / "dynabert" / "reports.jsonl").read_bytes()
    assert not list((run / "tune").rglob("checkpoint_*"))
    again = workbench.run(file, output=run)
    assert not again.failed and (run / "tune" / "dynabert" / "reports.jsonl").read_bytes() == before


def test_a_driver_that_is_killed_goes_on_with_its_trials(run: Path, file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    journal = folder / "tune" / "dynabert" / "reports.jsonl"
    command = [sys.executable, "-c", "from workbench.cli import main; main()", "run", str(file), "--output", str(folder), "--ray", "auto"]
    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        wait_for(lambda: len({row["trial"] for row in reports(journal)}) == 2)
    finally:
        os.killpg(driver.pid, signal.SIGKILL)
    assert driver.wait() == -signal.SIGKILL and not result_file(folder, load_experiment(file).tune[0]).exists()
    left = reports(journal)
    session = Session(load_experiment(folder / "experiment.yaml"), RunFolder(folder), str(file))
    assert tune_all(session, quiet(), RayWorkers(session, quiet())) == ()
    session.archive.close()
    told = reports(journal)
    assert told[: len(left)] == left and len({(row["trial"], row["progress"]) for row in told}) == len(told)
    assert len({row["trial"] for row in told}) == 4
    assert without_seconds(tuned(folder).trials) == without_seconds(tuned(run).trials) and tuned(folder).best == tuned(run).best
    assert [entry.label for entry in load_experiment(folder / "experiment.yaml").methods] == ["dynabert", "dynabert-tuned"]


def test_a_storage_that_can_not_be_used_is_named(run: Path, file: Path, tmp_path: Path) -> None:
    (tmp_path / "storage").write_text("no folder")
    tune = {**load_experiment(file).resolved()["tune"][0], "storage": str(tmp_path / "storage")}
    with pytest.raises(UserError, match=r"storage/dynabert-\w+ can't be used .*; write another storage under `tune`"):
        workbench.run(file, output=tmp_path / "run", set=[f"tune={json.dumps([tune])}"], ray="auto")


class Of:
    """What ASHA reads of a trial."""

    def __init__(self, name: int, lost: bool) -> None:
        self.trial_id, self.config = f"{'again ' if lost else ''}{name}", {"number": name}


def told(path: Path, reports: list[tuple[int, float, float]], begin: int = 0, lost: bool = False) -> Iterator[str]:
    """What a scheduler that begins with report `begin` decides of it and those after it; `lost`: Tune has no trial of before."""
    scheduler = JournaledAsha(str(path), 0.25, 2.0)
    scheduler.set_search_properties("quality", "max")
    for name in sorted({name for name, *_ in reports}):
        scheduler.on_trial_add(None, cast(Any, Of(name, lost)))
    for name, progress, quality in reports[begin:]:
        said = json.dumps({"progress": progress, "quality": quality})
        yield scheduler.on_trial_result(None, cast(Any, Of(name, lost)), {"progress": progress, "quality": quality, "said": said})


@settings(max_examples=10, deadline=None)
@given(st.permutations([(name, share) for name in range(4) for share in (0.25, 0.5, 1.0)]), st.data())
def test_asha_decides_alike_where_its_driver_was_killed(
    tmp_path_factory: pytest.TempPathFactory, order: list[tuple[int, float]], data: st.DataObject
) -> None:
    names = iter([name for name, _ in order])
    shares = {name: iter((0.25, 0.5, 1.0)) for name in range(4)}
    reports = [(name, next(shares[name]), data.draw(st.floats(0, 1))) for name in names]
    killed = data.draw(st.integers(0, len(reports)))
    folder = tmp_path_factory.mktemp("asha")
    whole = list(told(folder / "whole", reports))
    first = [decision for decision, _ in zip(told(folder / "parts", reports), range(killed), strict=False)]
    assert [*first, *told(folder / "parts", reports, killed, lost=data.draw(st.booleans()))] == whole
    journal = (folder / "parts").read_text().replace("again ", "")  # of those that had not reported when the driver was killed
    assert journal == (folder / "whole").read_text()
    assert list(told(folder / "parts", reports)) == whole, "what was said twice is decided as before"
