"""Budgets in milliseconds, for a method whose supernet is trained on the task: planned, searched, measured as shipped, queried, shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

import workbench
from methods.errors import UserError
from methods.latency import LatencyTable
from search.archive import Archive
from search.timings import timed_in
from tests.workbench.test_experiment import experiment
from workbench.loading import load_experiment
from workbench.planning import make_plan


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory, tiny_backbone_folder: Path) -> Path:
    """The experiment, and beside it the table of this machine for it, `here.json`."""
    folder = tmp_path_factory.mktemp("latency")
    schedule = {"epochs": 1, "learning_rate": 0.003, "batch_size": 32}
    method = {"name": "dynabert", "widths": [0.5, 1.0], "depths": [0.5, 1.0], "width": schedule, "depth": schedule, "rewiring": False}
    data = experiment(
        backbone=str(tiny_backbone_folder),
        task={"name": "demo", "data": "generated", "rows": 64, "max_length": 16},
        teacher={"schedule": schedule},
        methods=[method],
        controls={"random": 0, "truncated_kd": None, "untrained": False},
        budgets=[{"name": "all", "max_latency": {"here": "1s"}}],
        search={"strategy": "exhaustive"},
        cost={"length": 12, "batch": 1},
        devices={"here": str(folder / "here.json")},
        hardware={"device": "cpu", "threads": 1},
    )
    path = folder / "limits.yaml"
    path.write_text(yaml.safe_dump(data))
    workbench.latency("here", path, seconds=1, output=folder / "here.json")
    return path


NONE = "budgets=[{name: all, max_latency: {here: 1s}}, {name: none, max_latency: {here: 1us}}]"


def test_a_limit_that_no_network_meets_is_refused_before_anything_is_made(file: Path, tmp_path: Path) -> None:
    refused = (
        r"limits.yaml: budgets\[1\]: no method can meet it. budget none: max_latency.here is 0.001 ms, and the fastest network of dynabert "
    )
    with pytest.raises(UserError, match=refused + r"takes [\d.]+ ms"):
        workbench.run(file, output=tmp_path / "run", set=[NONE])
    assert not (tmp_path / "run").exists()


def timed(run: Path) -> list[Any]:
    with Archive(run / "archive.db", create=False) as archive:
        return list(timed_in(archive).values())


def test_a_winner_is_measured_as_it_ships(file: Path, tmp_path: Path) -> None:
    outcome = workbench.run(file, output=tmp_path / "run")
    [one] = timed(outcome.folder)
    assert one.finished and one.measured and one.measured > 0 and one.device == "here" and one.runs >= 5
    answer = workbench.query(outcome.folder, max_latency={"here": "1s"})
    assert answer.costs.latency["here"] == one.predicted and answer.costs.latency_measured["here"] == one.measured
    assert answer.slack["max_latency.here"] == pytest.approx(1 - one.measured)
    assert "here ms meas." in (outcome.folder / "report" / "table.txt").read_text()
    assert workbench.query(outcome.folder, max_latency={"here": "1us"}).binding == ("max_latency.here",)
    rows = [json.loads(row.to_json()) for _, row in outcome.table.frame.iterrows() if row["kind"] == "method"]
    assert [row["latency_measured.here"] for row in rows] == [pytest.approx(one.measured)]


def test_of_another_device_it_is_said_why_nothing_was_measured(file: Path, tmp_path: Path) -> None:
    table = LatencyTable.load(file.parent / "here.json")
    elsewhere = tmp_path / "phone.json"
    table.model_copy(update={"fingerprint": table.fingerprint.model_copy(update={"processor": "abacus"})}).save(elsewhere)
    outcome = workbench.run(file, output=tmp_path / "run", set=[f"devices.here={elsewhere}"])
    [one] = timed(outcome.folder)
    assert one.measured is None and one.predicted > 0
    assert "processor is abacus there" in " ".join(outcome.table.render().split())


def test_the_plan_counts_what_is_fast_enough_and_tells_of_a_missing_table(file: Path, tmp_path: Path) -> None:
    plan = make_plan(load_experiment(file, [NONE]), "limits")
    assert [(row.fitting, row.of, row.possible) for row in plan.budgets] == [(4, 4, True), (0, 4, False)]
    unknown = load_experiment(file, [f"devices.here={tmp_path / 'none.json'}"])
    missing = make_plan(unknown, "limits")
    assert any("none.json: there is no latency table" in note for note in missing.notes) and missing.budgets[0].limits == {}


def test_a_table_without_the_networks_parts_is_named_by_its_device(file: Path, tmp_path: Path) -> None:
    table = LatencyTable.load(file.parent / "here.json")
    stems = {key: timing for key, timing in table.parts.items() if "stem" in key}
    assert stems
    table.model_copy(update={"parts": stems}).save(tmp_path / "stems.json")
    with pytest.raises(UserError, match=r"limits.yaml: devices.here: it lacks a part of dynabert's networks; latency table here .*was not"):
        workbench.run(file, output=tmp_path / "run", set=[f"devices.here={tmp_path / 'stems.json'}"])
    assert not (tmp_path / "run" / "experiment.yaml").exists()
