"""The plan: of the papers' experiments without weights or data, and of what is at hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml

from methods.backbone import BERT_BASE
from methods.errors import UserError
from methods.registry import get
from methods.tasks.demo_backbone import make_demo_backbone
from tests.workbench.test_experiment import experiment
from workbench.loading import load_experiment
from workbench.planning import make_plan
from workbench.session import member_of
from workbench.sizes import backbone_config
from workbench.speed import duration
from workbench.verbs.plan import plan

EXAMPLES = Path(__file__).parents[2] / "examples"
PAPERS = ("dynabert", "nasbert", "adabert")


def missing(written: object, resolved: object, place: str = "") -> list[str]:
    """Keys of the resolved data that the file does not spell out."""
    if isinstance(resolved, dict) and isinstance(written, dict):
        return [line for key, value in resolved.items() for line in _below(written, key, value, f"{place}.{key}")]
    if isinstance(resolved, list) and isinstance(written, list) and len(written) == len(resolved):
        return [line for i, (a, b) in enumerate(zip(written, resolved, strict=True)) for line in missing(a, b, f"{place}[{i}]")]
    return []


def _below(written: dict[str, object], key: str, value: object, place: str) -> list[str]:
    return missing(written[key], value, place) if key in written else [place]


@pytest.mark.parametrize("name", PAPERS)
def test_a_paper_file_writes_every_knob_of_its_method_out(name: str) -> None:
    path = EXAMPLES / f"paper-{name}.yaml"
    written, loaded = yaml.safe_load(path.read_text()), load_experiment(path)
    assert loaded.backbone == "bert-base-uncased" and [entry.name for entry in loaded.methods] == [name]
    for key in ("methods", "teacher", "augmentation", "search", "cost", "hardware"):
        assert missing(written[key], loaded.resolved()[key], key) == []


def test_the_plan_says_what_auto_became() -> None:
    loaded = load_experiment(EXAMPLES / "paper-dynabert.yaml", ["search.strategy=auto", "search.report_all=false"])
    made = make_plan(loaded, "paper-dynabert.yaml")
    assert {row.stage for row in made.stages if row.stage.startswith("search")} == {"search (exhaustive)"}
    assert any("auto is exhaustive for dynabert (12 architectures)" in note for note in made.notes)
    few = load_experiment(EXAMPLES / "paper-dynabert.yaml", ["search.strategy=auto", "search.report_all=false", "search.evaluations=11"])
    front = few.model_copy(update={"search": few.search.model_copy(update={"objectives": ("max_flops",)})})
    counts = [[row.subnetworks for row in make_plan(e, "-").stages if row.stage == "search (predictor)"] for e in (few, front)]
    assert set(counts[0]) == {11 * len(few.budgets)} and set(counts[1]) == {11}


@pytest.mark.parametrize("name", PAPERS)
def test_a_paper_supernet_is_built_without_memory(name: str) -> None:
    loaded = load_experiment(EXAMPLES / f"paper-{name}.yaml")
    member = member_of(loaded.methods[0], 0, BERT_BASE, name)
    with torch.device("meta"):
        supernet = get(name).supernet(member.space, BERT_BASE, loaded.all_tasks[0].spec.head)
    assert all(p.is_meta for p in supernet.parameters())
    assert supernet.parameters_of(member.space.largest())


@pytest.mark.parametrize("name", PAPERS)
def test_a_paper_is_planned(name: str) -> None:
    planned = plan(EXAMPLES / f"paper-{name}.yaml")
    own = [row for row in planned.plan.stages if row.who == name]
    assert own and all(row.flops >= 0 and row.memory > 0 for row in own) and sum(row.flops for row in own) > 1e15
    assert all(row.possible and row.fitting > 0 for row in planned.plan.budgets)
    text = planned.render()
    assert "built in" in text and "estimate" in text and all(row.stage in text for row in own)
    assert json.loads(planned.render("json"))["stages"][0]["estimated_seconds"] > 0


def test_dynabert_figures_by_hand() -> None:
    """12 sub-networks: FLOPs of BERT-base at length 128 times the products of widths and depths, 3 x forward, once the teacher."""
    changes = ["methods[0].teacher_width=full", "augmentation.copies=0"]
    planned = make_plan(load_experiment(EXAMPLES / "paper-dynabert.yaml", changes), "paper")
    stage = next(row for row in planned.stages if row.stage == "width-and-depth")
    assert stage.subnetworks == 12
    assert stage.steps == 3 * 2043 and stage.examples == stage.steps * 32
    per_example = stage.flops / stage.examples
    encoder = 22.35e9
    assert per_example == pytest.approx(encoder * (3 * 2.5 * 2.25 + 1), rel=0.01)
    assert {row.budget: row.fitting for row in planned.budgets} == {"a quarter of BERT": 4, "half of BERT": 8, "three quarters of BERT": 11}


def test_a_plan_of_data_at_hand(tmp_path: Path, tiny_backbone_folder: Path) -> None:
    path = tmp_path / "e.yaml"
    budgets = [{"name": "small", "max_params": 10}, {"max_flops": "1G"}]
    data = experiment(backbone=str(tiny_backbone_folder), task={"name": "demo", "rows": 64}, budgets=budgets)
    path.write_text(yaml.safe_dump(data))
    planned = make_plan(load_experiment(path), "e.yaml")
    assert [row.possible for row in planned.budgets] == [False, True]
    assert planned.budgets[1].counted and planned.budgets[1].fitting == planned.budgets[1].size == 4
    fine_tuning = planned.stages[0]
    assert (fine_tuning.who, fine_tuning.steps, fine_tuning.examples) == ("teacher", 6, 192)
    text = plan(path).render()
    assert "none: below the smallest" in text and "no architecture of dynabert meets small (task demo)" in text
    summary = next(line for line in text.splitlines() if line.startswith("in all"))
    assert all(who in summary for who in ("(teacher ", "dynabert ", "truncated-kd "))


def test_truncated_kd_by_its_epochs_is_planned(tmp_path: Path, tiny_backbone_folder: Path) -> None:
    """Two depths: 3 x forward of the cut and 1 x of the teacher for every example of two epochs."""
    path = tmp_path / "e.yaml"
    budgets = [{"max_flops": "1G"}, {"name": "tight", "max_params_non_embedding": 3000}]
    controls = {"equal_flops": False, "truncated_kd": {"epochs": 2, "batch_size": 8}}
    data = experiment(backbone=str(tiny_backbone_folder), task={"name": "demo", "rows": 64}, budgets=budgets, controls=controls)
    path.write_text(yaml.safe_dump(data))
    planned = make_plan(load_experiment(path), "e.yaml")
    (row,) = [stage for stage in planned.stages if stage.who == "truncated-kd"]
    teacher = planned.stages[0]
    forward = teacher.flops / teacher.examples / 3
    assert (row.stage, row.subnetworks, row.steps, row.examples) == ("distil", 2, 2 * 16, 2 * 128)
    assert 128 * forward * (3 + 1 + 1 + 3 * 0.4) < row.flops < 128 * forward * (3 + 1 + 1 + 3 * 0.6)


def test_a_space_that_cannot_be_is_named_by_its_place(tmp_path: Path, tiny_backbone_folder: Path) -> None:
    path = tmp_path / "e.yaml"
    methods = [{"name": "dynabert", "widths": [0.05]}]
    path.write_text(yaml.safe_dump(experiment(backbone=str(tiny_backbone_folder), task={"name": "demo"}, methods=methods)))
    with pytest.raises(UserError, match=r"methods\[0\]\.widths: 0\.05 leaves no head of 2"):
        make_plan(load_experiment(path), "e.yaml")


def test_the_demo_is_planned_with_the_shape_that_it_will_have(tmp_path: Path) -> None:
    make_demo_backbone(tmp_path / "made", seed=0, steps=2)
    planned, _ = backbone_config("demo")
    assert planned == backbone_config("demo", tmp_path / "made")[0] == backbone_config(str(tmp_path / "made"))[0]


@pytest.mark.parametrize(("seconds", "text"), [(3, "3 s"), (600, "10 min"), (7200, "2.0 h"), (864000, "10 days")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
