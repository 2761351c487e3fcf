"""DynaBERT's elastic space in the workbench: searched by TPE from end to end, planned with its size, too large to be listed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

import workbench
from methods.errors import UserError
from search.archive import Archive
from tests.conftest import make_tiny_backbone
from workbench.loading import check, load_experiment
from workbench.planning import make_plan

PAPER = Path(__file__).parents[2] / "examples" / "paper-dynabert.yaml"
ELASTIC = [
    "methods[0].space=elastic",
    "methods[0].teacher_width=full",
    *(f"methods[0].{stage}.sampler=null" for stage in ("width", "depth", "final")),
    "search.report_all=false",
]


def experiment(backbone: Path, **changes: Any) -> dict[str, Any]:
    schedule = {"epochs": 1, "learning_rate": 0.003, "batch_size": 16}
    method = {"name": "dynabert", "label": "wide", "space": "elastic", "widths": [0.5, 1.0], "depths": [0.5, 1.0]}
    return {
        "backbone": str(backbone),
        "task": {"name": "demo", "data": "generated", "rows": 100, "max_length": 32},
        "teacher": {"schedule": schedule},
        "methods": [{**method, "width": {**schedule, "sampler": "uniform", "samples": 1}, "depth": schedule, "rewiring": False}],
        "controls": {"random": 2, "truncated_kd": None},
        "budgets": [{"name": "small", "max_flops": "250K"}],
        "search": {"strategy": "tpe", "evaluations": 9},
        "cost": {"length": 32, "batch": 1},
        "hardware": {"device": "cpu", "threads": 1},
        **changes,
    }


def test_tpe_searches_the_elastic_space_from_end_to_end(tmp_path: Path, tiny_backbone_folder: Path) -> None:
    path = tmp_path / "elastic.yaml"
    path.write_text(yaml.safe_dump(experiment(tiny_backbone_folder)))
    run = workbench.run(path, output=tmp_path / "run").folder
    with Archive(run / "archive.db", create=False) as archive:
        measured, searched = archive.measurements("demo", "wide"), archive.searches()
    shared = [m for m in measured if m.kind == "shared" and m.split == "search"]
    assert [(s.method, s.strategy) for s in searched] == [("wide", "tpe")]
    assert len({m.architecture for m in shared}) >= 5 and all(m.costs.flops <= 250_000 for m in shared)
    genes = [m.architecture.choices for m in shared]
    assert any(len(set(g["heads"])) > 1 or g["layers"] == [1] or g["neurons"] != [16 * a for a in g["heads"]] for g in genes), (
        "off the grid"
    )
    assert {m.split for m in measured if m.kind == "finished"} == {"search", "validation"}
    assert workbench.query(run, max_flops="250K", method="wide", task="demo").architecture.method == "wide"


def test_a_plan_prints_the_size_and_exhaustive_search_refuses_it() -> None:
    changes = [*ELASTIC, "search.strategy=tpe"]
    planned = make_plan(load_experiment(PAPER, changes), "paper")
    assert {row.size for row in planned.budgets} == {145**12 - 1} and not any(row.counted for row in planned.budgets)
    stage = next(row for row in planned.stages if row.stage == "width-and-depth")
    assert stage.subnetworks == 4
    assert f"of {145**12 - 1:.3g} (of 1,000 drawn)" in workbench.plan(PAPER, changes).render()
    with pytest.raises(UserError, match=f"exhaustive takes spaces of at most .* that of dynabert has {145**12 - 1:,}"):
        make_plan(load_experiment(PAPER, [*ELASTIC, "search.strategy=exhaustive"]), "paper")


def test_a_run_refuses_to_list_it_before_anything_is_trained(tmp_path: Path) -> None:
    backbone = make_tiny_backbone(tmp_path / "backbone", num_hidden_layers=5, num_attention_heads=4)
    path = tmp_path / "elastic.yaml"
    path.write_text(yaml.safe_dump(experiment(backbone, search={"strategy": "exhaustive"})))
    with pytest.raises(UserError, match=f"has {17**5 - 1:,}; take tpe"):
        workbench.run(path, output=tmp_path / "run")
    assert not list((tmp_path / "run").rglob("*.safetensors"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"space": "elastc"}, ["my.yaml: methods[0].space: ", "'elastc'", "grid", "elastic"]),
        ({"space": "elastic", "depth": {"sampler": "all"}}, ["my.yaml: methods[0]", "depth.sampler: all", "sandwich or uniform"]),
        ({"space": "elastic", "teacher_width": "matched"}, ["my.yaml: methods[0]", "teacher_width: matched", "write full"]),
        ({"width": {"sampler": "some"}}, ["my.yaml: methods[0].width.sampler: ", "'some'", "sandwich"]),
        ({"width": {"samples": 0}}, ["my.yaml: methods[0].width.samples: ", "0", "1"]),
    ],
)
def test_mistakes_are_named_by_their_place(options: dict[str, Any], said: list[str]) -> None:
    data = experiment(Path("bert-base-uncased"), methods=[{"name": "dynabert", **options}])
    with pytest.raises(UserError) as caught:
        check(data, "my.yaml")
    assert all(part in str(caught.value) for part in said), caught.value
