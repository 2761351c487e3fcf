"""AdaBERT from an experiment file to a table: two tasks, one of them of pairs; that it goes on where it stopped; what is counted."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import workbench
from analysis.head_to_head import HeadToHead
from methods.costs import costs
from methods.recipe import serves
from search.archive import Archive
from search.query import Answer
from search.selections import Selection, selections
from tests.conftest import WORDS
from workbench import running
from workbench.folder import RunFolder
from workbench.session import Session
from workbench.task_controls import TaskControls

FLOORS = {"bag-of-embeddings", "fixed-cnn"}
SMALL, LARGE = {"max_flops": 13_000.0}, {"max_flops": 50_000.0}


def write_data(folder: Path, pair: bool) -> dict[str, Any]:
    """Words of the tiny backbone; the label says whether `good` or `fine` is among the first text's (and not among the second's)."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for split, rows in (("train", 160), ("validation", 48)):
        lines = ["first\tsecond\tlabel"]
        for _ in range(rows):
            first, second = (" ".join(rng.choice(WORDS[:8], size=rng.integers(2, 7))) for _ in range(2))
            said = [bool({"good", "fine"} & set(text.split())) for text in (first, second)]
            lines.append(f"{first}\t{second}\t{int(said[0] and not (pair and said[1]))}")
        (folder / f"{split}.tsv").write_text("\n".join(lines) + "\n")
    text = ["first", "second"] if pair else ["first"]
    labels = {"label": "label", "labels": ["0", "1"], "metric": "accuracy", "max_length": 16}
    return {"name": folder.name, "data": str(folder), "text": text, **labels}


def experiment_of(folder: Path, backbone: Path) -> dict[str, Any]:
    schedule = {"epochs": 4, "learning_rate": 0.01, "batch_size": 16}
    rates = {"weights": {"learning_rate": 0.05}, "batch_size": 16}
    adabert = {
        "name": "adabert", "cells": 2, "nodes": 2, "width": 8, "operations": ["conv_3", "max_pool_3", "identity"], "dropout": 0.1,
        "probes": {"epochs": 2},
        "search": {"steps": 12, **rates, "architecture": {"learning_rate": 0.05}},
        "derivation": {"rule": "budget", "batch_norm_batches": 2, "diagnosed_draws": 2, "diagnosed_rows": 8},
        "finish": {"epochs": 2, **rates},
    }  # fmt: skip
    return {
        "backbone": str(backbone),
        "tasks": [write_data(folder / "single", False), write_data(folder / "pairs", True)],
        "teacher": {"schedule": schedule},
        "methods": [adabert],
        "search": {"strategy": "random", "evaluations": 3},
        "controls": {"random": 2, "truncated_kd": False, "variants": ["large"]},
        "budgets": [{"name": "small", **SMALL}, {"name": "large", **LARGE}],
        "cost": {"length": 16, "batch": 1},
        "hardware": {"device": "cpu", "threads": 1},
    }


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_backbone_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("adabert")
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(experiment_of(folder, tiny_backbone_folder)))
    return workbench.run(path, output=folder / "run").folder


@pytest.fixture(scope="module")
def table(run: Path) -> HeadToHead:
    return workbench.compare(run)


@pytest.fixture
def run_copy(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run folder of one's own; pictures are drawn once, by `run`."""

    def nothing(*_: object) -> None: ...

    monkeypatch.setattr("analysis.figures.pareto", nothing)
    monkeypatch.setattr("analysis.alpha_figure.alpha", nothing)
    return Path(shutil.copytree(run, tmp_path / "run"))


def again(run: Path, folder: Path, *overrides: str) -> None:
    workbench.run(run.parent / "tiny.yaml", output=folder, set=overrides)


def measured(run: Path) -> list[tuple[str, ...]]:
    with (run / "report" / "measurements.csv").open() as file:
        return sorted(tuple(row) for row in csv.reader(file))


def selected(run: Path) -> dict[tuple[str, str, float | None], Selection]:
    with Archive(run / "archive.db", create=False) as archive:
        return {(s.task, s.by, s.limits.get("max_flops")): s for s in selections(archive)}


def test_each_way_of_searching_selects_under_each_budget(run: Path) -> None:
    found = selected(run)
    limits = (SMALL["max_flops"], LARGE["max_flops"])
    ways = {(task, by, limit) for task in ("single", "pairs") for by in ("alpha", "random") for limit in limits}
    assert found.keys() == ways | {(task, "alpha", None) for task in ("single", "pairs")}
    with Archive(run / "archive.db", create=False) as archive:
        for (task, _, limit), selection in found.items():
            assert selection.architecture is not None
            mine = [m for m in archive.measurements(task) if m.architecture == selection.architecture]
            if limit is not None:
                assert {("shared", "search"), ("finished", "search"), ("finished", "validation")} <= {(m.kind, m.split) for m in mine}
                assert all(m.costs.flops <= limit for m in mine if m.kind == "finished")


def test_the_rows_of_a_block(table: HeadToHead) -> None:
    for block in table.blocks:
        ways = ["adabert", "adabert (alpha)", "adabert (random search)", "random (adabert)", "bag-of-embeddings"]
        cnn = ["fixed-cnn"] * (block.budget.name == "large")  # a cell of convolutions alone exceeds the small budget
        filled = [row.row for row in block.rows if row.quality is not None and row.method]
        if block.budget.name == "large":  # under the other one only where both have the same winner
            assert filled.count("scratch (adabert)") == 1
        assert [name for name in filled if name != "scratch (adabert)"] == [*ways, *cnn, "untrained (adabert)"]
        by_name = {row.row: row for row in block.rows}
        assert by_name["adabert (alpha)"].search_evaluations == 1 and by_name["adabert (random search)"].search_evaluations == 3
        assert by_name["adabert"].search_evaluations == 4
        assert by_name["untrained (adabert)"].flops == by_name["adabert"].flops, "both in the form that ships"
        assert by_name["adabert"].search_quality == max(by_name[name].search_quality or 0 for name in ways[:3])


def test_a_winner_pays_for_no_control(run: Path, table: HeadToHead) -> None:
    """Probes, signals, search, derivation, its own finishing; floors and other ways to finish are recorded under names of their own."""
    row = next(row for row in table.blocks[0].rows if row.row == "adabert")
    with Archive(run / "archive.db", create=False) as archive:
        stages = archive.stages("single")
        winner = next(m.architecture for m in archive.measurements("single") if m.architecture.id == row.architecture_id)
    own = {stage.stage: stage for stage in stages if stage.method == "adabert"}
    assert {"probes", "signals", "search", "derive", "derive (small)", "derive (large)"} <= own.keys() and not FLOORS & own.keys()
    assert {stage.method for stage in stages} == {"teacher", "adabert", "adabert floor", "adabert scratch"}
    assert row.training_flops == sum(stage.flops for name, stage in own.items() if serves(name, winner) is not False)
    bag = next(row for row in table.blocks[0].rows if row.row == "bag-of-embeddings")
    assert bag.training_flops == next(stage.flops for stage in stages if stage.stage == "bag-of-embeddings")


def test_a_search_costs_its_reestimation_too(run: Path) -> None:
    """Two batches of 16 training rows are read through every network before it is scored."""
    folder = RunFolder(run)
    session = Session(folder.experiment(), folder, "tiny")
    options = session.experiment.all_tasks[0]
    split, collate, member = session.task(options).split("search"), session.collate(options, session.members[0].method), session.members[0]
    length = round(float(collate.encode(split).lengths.mean()))
    chosen = selected(run)["single", "alpha", LARGE["max_flops"]].architecture
    assert chosen is not None
    one = costs(member.space.spec(chosen, session.shape, session.task(options).head, "hosted"), length).flops
    row = next(row for row in session.archive.searches("single") if (row.strategy, row.budget) == ("alpha", "large"))
    session.archive.close()
    assert row.flops == one * (len(split) + 32)


def test_run_again_does_nothing(run: Path, run_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from workbench.measuring import Measurer

    def refused(*_: object, **__: object) -> None:
        raise AssertionError("measured again")

    stages = {path: path.stat().st_mtime_ns for path in run_copy.rglob("*.json") if "report" not in path.parts}
    before, found = measured(run_copy), selected(run_copy)
    monkeypatch.setattr(Measurer, "measure", refused)
    again(run, run_copy)
    assert measured(run_copy) == before and selected(run_copy) == found
    after = {path: path.stat().st_mtime_ns for path in stages}
    assert {path.name for path in stages if after[path] != stages[path]} <= {"environment.json"}


def test_a_run_killed_between_stages_goes_on(run: Path, run_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed before the first task's controls, with a finished network lost."""
    with Archive(run_copy / "archive.db", create=False) as archive:
        figures = {(s.method, s.stage): (s.steps, s.flops) for s in archive.stages("single")}
        searches = {(s.strategy, s.budget): (s.evaluations, s.flops) for s in archive.searches("single")}
    expected, found = measured(run_copy), selected(run_copy)
    for path in [*run_copy.glob("archive.db*"), *run_copy.glob("report/*")]:
        path.unlink()
    own = run_copy / "single" / "adabert" / "seed-0"
    winner = next(path for path in own.glob("scratch/finish-*")).name
    for lost in ("derive", "floor", "scratch", winner):
        shutil.rmtree(own / lost)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(TaskControls, "run", killed)
        with pytest.raises(KeyboardInterrupt):
            again(run, run_copy)
    again(run, run_copy)
    assert measured(run_copy) == expected and selected(run_copy) == found
    with Archive(run_copy / "archive.db", create=False) as archive:
        assert {(s.method, s.stage): (s.steps, s.flops) for s in archive.stages("single")} == figures
        assert {(s.strategy, s.budget): (s.evaluations, s.flops) for s in archive.searches("single")} == searches


def test_diagnostics_of_the_search_are_shown(run: Path, table: HeadToHead) -> None:
    of_search = {d.name for d in table.diagnoses if d.task == "pairs" and d.seed == 0}
    assert of_search == {"D1", "D2", "D3", "D4", "D6", "D8", "D9", "D10", "D12"}
    rest = [(d.name, d.budget, d.row) for d in table.diagnoses if d.task == "pairs" and d.seed is None]
    of_budget = [("D11", "adabert (alpha)"), ("D11", "adabert (random search)"), ("D13", "")]
    assert rest == [("D7", "", ""), *((name, budget, row) for budget in ("small", "large") for name, row in of_budget)]
    text = table.render()
    assert "Alarms of pairs, adabert, seed 0: " in text and "1 seeds; at least 3 are needed" in text
    data = json.loads(table.render("json"))["diagnostics"]
    kept = json.loads((run / "pairs" / "adabert" / "seed-0" / "search" / "diagnostics.json").read_text())
    assert next(d for d in data if (d["task"], d["name"], d["seed"]) == ("pairs", "D8", 0))["value"] == kept["D8"]["value"]
    assert (run / "report" / "alpha.png").stat().st_size > 0 and (run / "report" / "alpha.svg").exists()
    assert not (run / "report" / "estimates.png").exists() and not (run / "report" / "shrinking.png").exists()


def test_enough_random_controls_are_scored_with_shared_weights(run: Path, run_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "RANKED", 2)
    again(run, run_copy)
    with Archive(run_copy / "archive.db", create=False) as archive:
        everything = archive.measurements("single")
    drawn = {m.architecture for m in everything if m.control == "random"}
    assert len(drawn) >= 2 and drawn <= {m.architecture for m in everything if m.kind == "shared"}
    d4 = next(d for d in workbench.compare(run_copy).diagnoses if (d.task, d.name) == ("single", "D4"))
    assert d4.alarm and ("alike" in d4.why or f"on {len(drawn)} architectures only" in d4.why)


def test_a_network_of_the_run_is_exported(run: Path, tmp_path: Path) -> None:
    chosen = selected(run)["pairs", "alpha", LARGE["max_flops"]].architecture
    assert chosen is not None and isinstance(workbench.query(run, task="pairs"), Answer)
    exported = workbench.export(run, chosen.id, tmp_path / "network", task="pairs")
    config = json.loads((exported.folder / "config.json").read_text())
    with Archive(run / "archive.db", create=False) as archive:
        shipped = next(m for m in archive.measurements("pairs", kind="finished", split="validation") if m.architecture == chosen)
    assert config["metrics"]["finished on validation"]["accuracy"] == pytest.approx(shipped.quality)
