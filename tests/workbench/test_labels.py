"""One method several times in an experiment, under labels; entries limited to tasks and seeds, and without control rows."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import yaml

import workbench
from methods.budget import Budget
from methods.errors import UserError
from methods.registry import get
from search.archive import Archive
from search.query import Answer, best
from tests.methods.adabert_cases import TINY
from tests.workbench.test_adabert_run import experiment_of
from workbench.folder import differences
from workbench.loading import check

NASBERT = {"sublayers": 4, "blocks": 2, "hidden_sizes": [8, 16], "embedding_sizes": [8], "head_size": 8}
SIZES: dict[str, dict[str, Any]] = {"dynabert": {}, "adabert": {"cells": 2, "nodes": 2, "width": 8}, "nasbert": NASBERT}


def experiment(*methods: dict[str, Any], **changes: Any) -> dict[str, Any]:
    task = {"name": "sst2", "data": "hub"}
    return {"backbone": "demo", "task": task, "methods": list(methods), "budgets": [{"max_flops": "1G"}], "seeds": [0, 1], **changes}


@pytest.mark.parametrize("name", SIZES)
def test_every_architecture_of_a_labelled_space_carries_the_label(name: str) -> None:
    method, rng = get(name), random.Random(0)
    plain, labelled = (method.space(method.options.model_validate({**SIZES[name], "label": label}), TINY) for label in ("", "again"))
    drawn = [labelled.sample(rng) for _ in range(5)]
    found = [*drawn, *(labelled.mutate(a, rng) for a in drawn), labelled.smallest(), labelled.largest(), *labelled.anchors()]
    found += [*labelled.hand_made(drawn[0]), *(labelled.decode(labelled.encode(a)) for a in drawn)]
    assert {a.method for a in found} == {"again"} and plain.smallest().method == name
    assert all(labelled.contains(a) and not plain.contains(a) for a in found)
    assert labelled.smallest().choices == plain.smallest().choices and labelled.smallest().id != plain.smallest().id


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([{"name": "dynabert"}, {"name": "dynabert"}], ["methods must be distinct", "dynabert is there twice"]),
        ([{"name": "dynabert", "label": "a b"}], ["methods[0].label", "'a b'"]),
        ([{"name": "dynabert", "tasks": ["cola"]}], ["methods[0].tasks: cola is none of the experiment's: sst2"]),
        ([{"name": "dynabert", "seeds": [7]}], ["methods[0].seeds: 7 is none of the experiment's: 0, 1"]),
        ([{"name": "dynabert", "tasks": []}], ["methods[0].tasks"]),
    ],
)
def test_mistakes(entries: list[dict[str, Any]], said: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        check(experiment(*entries), "my.yaml")
    assert all(part in str(caught.value) for part in said), caught.value


def test_a_run_grows_by_a_label_and_by_seeds_and_refuses_other_options() -> None:
    first = {"name": "dynabert", "label": "narrow", "widths": [0.5], "seeds": [0]}
    before = check(experiment(first), "my.yaml").resolved()
    assert before["methods"][0]["label"] == "narrow" and before["methods"][0]["seeds"] == [0]
    grown = check(experiment({"name": "dynabert"}, {**first, "seeds": [0, 1], "controls": False}), "my.yaml").resolved()
    assert differences(before, grown) == []
    assert check(grown, "again.yaml").resolved() == grown
    other = check(experiment({**first, "widths": [0.25]}), "my.yaml").resolved()
    assert any("widths" in key for key in differences(before, other))
    assert any("narrow is missing" in key for key in differences(before, check(experiment({"name": "dynabert"}), "my.yaml").resolved()))


def test_two_entries_of_one_method(tmp_path: Path, tiny_backbone_folder: Path) -> None:
    data = experiment_of(tmp_path, tiny_backbone_folder)
    whole = {**data["methods"][0], "tasks": ["single"], "seeds": [0]}
    loss = {"distillation": "final", "efficiency": "off"}
    ablated = {**whole, "label": "final-kd", "seeds": [1], "controls": False, "search": {**whole["search"], "loss": loss}}
    data |= {"methods": [whole, ablated], "seeds": [0, 1], "tasks": data["tasks"][:1], "budgets": data["budgets"][1:]}
    data["controls"] = {**data["controls"], "random": 1, "variants": []}
    path = tmp_path / "two.yaml"
    path.write_text(yaml.safe_dump(data))
    folder = workbench.run(path, output=tmp_path / "run").folder
    with Archive(folder / "archive.db", create=False) as archive:
        measured, stages = archive.measurements("single"), archive.stages("single")
    finished = {(m.architecture.method, m.seed) for m in measured if m.kind == "finished"}
    assert finished == {("adabert", 0), ("final-kd", 1)}
    assert {m.architecture.method for m in measured if m.control == "random"} == {"adabert"}
    assert {row.seed for row in stages if row.method == "final-kd"} == {1}
    rows = {row.row for block in workbench.compare(folder).blocks for row in block.rows if row.quality is not None}
    assert {"adabert", "final-kd", "final-kd (alpha)", "random (adabert)"} <= rows and "random (final-kd)" not in rows
    answer = best([m for m in measured if m.architecture.method == "final-kd"], Budget(max_flops=1e6))
    assert isinstance(answer, Answer)
    exported = workbench.export(folder, answer.architecture.id, tmp_path / "out")
    assert exported.architecture.method == "final-kd" and '"method": "adabert"' in (tmp_path / "out" / "config.json").read_text()
