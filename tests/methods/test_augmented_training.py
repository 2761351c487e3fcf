"""Stages that read copies of their rows: the copies follow their originals, the fingerprint knows them, none change nothing."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from methods.backbone import Backbone
from methods.baselines.truncated import TruncatedOptions, train_truncated, truncated_architectures
from methods.dynabert.options import DynaBertOptions, SampledStage
from methods.dynabert.recipe import DynaBertRecipe
from methods.errors import UserError
from methods.evaluation import weights_digest
from methods.nasbert.encoding import from_short
from methods.nasbert.finetune import TaughtStep, finetune
from methods.nasbert.options import Finetuning
from methods.nasbert.space import NasBertSpace
from methods.network import Network
from methods.recipe import Context, StageRecord
from methods.supernet import inputs
from methods.tasks.batches import joint
from methods.tasks.head import Head
from methods.tasks.task import AUGMENTED, Task
from methods.training.augmentation import soft_labels
from methods.training.augmentation.building import augment
from methods.training.augmentation.options import AugmentationOptions
from methods.training.augmentation.soft_labels import FILE, SoftLabels
from methods.training.options import Schedule
from methods.training.stage import training_rows
from tests.methods.augmentation_cases import context, make_backbone, make_task, make_teacher

OPTIONS = AugmentationOptions(copies=2, source="embeddings", candidates=3)
FAST: dict[str, Any] = {"epochs": 1, "batch_size": 8, "learning_rate": 1e-3}


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return make_backbone(tmp_path_factory.mktemp("masked"))


@pytest.fixture(scope="module")
def task(backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Task:
    """With copies."""
    plain = make_task(48)
    return plain.with_copies(augment(context(tmp_path_factory.mktemp("rows"), backbone, plain), OPTIONS))


def opened(folder: Path, backbone: Backbone, task: Task, *more: str) -> Context:
    return replace(context(folder, backbone, task), task=task.restricted("train", "search", *more))


def test_copies_follow_their_originals(task: Task) -> None:
    train, both = task.split("train"), task.split(AUGMENTED)
    assert both.text[: len(train)] == train.text and len(both) > 2 * len(train)
    some = task.limited(10, seed=0)
    assert len(some.split("train")) == 10
    assert set(some.split(AUGMENTED).ids) == set(some.split("train").ids)
    assert len(some.split(AUGMENTED)) == sum(number in set(some.split("train").ids) for number in both.ids)
    assert some.split("search") is task.split("search")


def test_a_stage_reads_them_where_it_is_asked_to(task: Task, backbone: Backbone, tmp_path: Path) -> None:
    schedule = Schedule(rows=10)
    view, closed = opened(tmp_path, backbone, task, AUGMENTED), opened(tmp_path, backbone, task)
    assert training_rows(view, schedule).digest == training_rows(closed, schedule, augmented=True).digest
    assert training_rows(view, schedule, augmented=True).digest == task.limited(10, 0).split(AUGMENTED).digest
    assert schedule.steps(100, 2) == schedule.model_copy(update={"rows": None}).steps(30)


def trained(where: Context, **changes: Any) -> tuple[str, dict[str, Any], list[StageRecord]]:
    """DynaBERT's weights, the marks of its stages, its records."""
    records = list[StageRecord]()
    options = DynaBertOptions(widths=(0.5, 1.0), depths=(0.5, 1.0), rewiring=False, final=SampledStage(**FAST), **changes)
    supernet = DynaBertRecipe(options).train(replace(where, record=records.append))
    marks = {name: json.loads((where.folder / name / "stage.json").read_text()) for name in ("width", "width-and-depth", "final")}
    return weights_digest(supernet), marks, records


def test_dynabert_distils_on_copies_and_ends_without(task: Task, backbone: Backbone, tmp_path: Path) -> None:
    stages = {"width": {**FAST, "rows": 16}, "depth": FAST}
    weights, marks, records = trained(opened(tmp_path / "copies", backbone, task, AUGMENTED), **stages)
    plain, marks_before, records_before = trained(opened(tmp_path / "none", backbone, task), **stages)
    assert weights != plain
    changed = {name: marks[name]["fingerprint"]["data"] != marks_before[name]["fingerprint"]["data"] for name in marks}
    assert changed == {"width": True, "width-and-depth": True, "final": False}
    limited = len(task.limited(16, 0).split(AUGMENTED))
    assert [record.examples for record in records] == [limited, len(task.split(AUGMENTED)), 48]
    assert [record.examples for record in records_before] == [16, 48, 48]


def test_without_copies_nothing_changes(task: Task, backbone: Backbone, tmp_path: Path) -> None:
    """Neither weights nor fingerprints, whatever the stages say; and a stage that says no leaves copies alone."""
    on, off = ({"width": {**FAST, "augmented": says}, "depth": {**FAST, "augmented": says}} for says in (True, False))
    plain = trained(opened(tmp_path / "a", backbone, task), **on)
    unasked = trained(opened(tmp_path / "b", backbone, task, AUGMENTED), **off)
    assert plain[0] == unasked[0]
    for name, mark in plain[1].items():
        assert mark["fingerprint"] == unasked[1][name]["fingerprint"] and "augmented" not in json.dumps(mark)


def test_a_stage_finished_without_copies_is_not_taken_for_one_with(task: Task, backbone: Backbone, tmp_path: Path) -> None:
    trained(opened(tmp_path, backbone, task), width=FAST, depth=FAST)
    with pytest.raises(UserError, match="was trained with other data"):
        trained(opened(tmp_path, backbone, task, AUGMENTED), width=FAST, depth=FAST)


def test_the_truncated_control_has_the_same_rows(task: Task, backbone: Backbone, tmp_path: Path) -> None:
    records = list[StageRecord]()
    where = replace(opened(tmp_path, backbone, task, AUGMENTED), record=records.append)
    architecture, options = truncated_architectures(backbone.config)[1], TruncatedOptions(**FAST)
    train_truncated(where, architecture, options)
    train_truncated(replace(where, folder=tmp_path / "plain"), architecture, options.model_copy(update={"augmented": False}))
    assert [record.examples for record in records] == [len(task.split(AUGMENTED)), 48]


def labels_of(where: Context, task: Task) -> SoftLabels:
    assert where.teacher is not None
    return SoftLabels(where, where.teacher, task.split(AUGMENTED))


def test_soft_labels_are_the_teachers(task: Task, backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Computed once, in parts; in batches of any choice of the rows."""
    monkeypatch.setattr(soft_labels, "PART", 50)
    where = opened(tmp_path, backbone, task, AUGMENTED)
    labels = labels_of(where, task)
    assert labels.logits.shape == (len(task.split(AUGMENTED)), 2)
    collate = labels.attached(joint(backbone.tokenizer, 32))
    encoded = collate.encode(task.limited(9, 0).split(AUGMENTED))
    batch = collate(encoded, [4, 0, 11])
    assert where.teacher is not None
    with torch.no_grad():
        expected = where.teacher(**inputs(batch))["logits"]
    torch.testing.assert_close(batch["teacher_logits"], expected, rtol=1e-4, atol=1e-4)
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".lock"] == [FILE]
    monkeypatch.setattr(SoftLabels, "_part", lambda *_: pytest.fail("computed again"))
    assert torch.equal(labels_of(where, task).logits, labels.logits)


def test_workers_that_need_soft_labels_at_once_compute_them_once(
    task: Task, backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed, once = list[int](), SoftLabels._compute
    monkeypatch.setattr(soft_labels, "PART", 20)
    monkeypatch.setattr(SoftLabels, "_compute", lambda labels, path: (computed.append(1), once(labels, path)))
    where = opened(tmp_path, backbone, task, AUGMENTED)
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: labels_of(where, task).logits, range(3)))
    assert len(computed) == 1 and all(torch.equal(logits, found[0]) for logits in found)


def test_soft_labels_of_another_teacher_are_replaced(task: Task, backbone: Backbone, tmp_path: Path) -> None:
    where = opened(tmp_path, backbone, task, AUGMENTED)
    first = labels_of(where, task).logits
    other = replace(where, teacher=make_teacher(backbone, task, seed=5))
    assert not torch.allclose(labels_of(other, task).logits, first)
    (tmp_path / FILE).write_bytes(b"12345")
    with pytest.raises(UserError, match=r"logits\.safetensors: damaged"):
        labels_of(where, task).logits  # noqa: B018 (asked for its error)


def test_a_taught_step_takes_the_batch_s_logits(task: Task, backbone: Backbone, tmp_path: Path) -> None:
    where = opened(tmp_path, backbone, task, AUGMENTED)
    student, teacher = make_teacher(backbone, task, seed=1), where.teacher
    plain = joint(backbone.tokenizer, 32)
    attached = labels_of(where, task).attached(plain)
    step = TaughtStep(student, teacher, task.head, 0.5, 1.0)
    figures = []
    for collate in (plain, attached):
        batch = collate(collate.encode(task.split("train")), [1, 2, 3])
        losses = []
        figures.append(step(batch, losses.append))
        assert len(losses) == 1
    assert figures[0] == pytest.approx(figures[1], rel=1e-4) and figures[0]["distilled"] > 0


def test_nasbert_fine_tunes_on_copies_with_logits_computed_once(task: Task, backbone: Backbone, tmp_path: Path) -> None:
    """The same network as with the teacher at hand in every step, at the teacher's price less."""
    architecture = from_short("E8|8:M.F|16:S3.M")
    space = NasBertSpace(4, 2, (8, 16), ("M", "F", "S3"), (8, 16), head_size=8, backbone=backbone.config)
    torch.manual_seed(0)
    pretrained = Network(space.spec(architecture, backbone.config, Head("mlm"))).eval()
    options = Finetuning(learning_rates=(0.01,), batch_sizes=(16,), epochs=(1,), rows=20)
    spec, found, records = space.spec(architecture, backbone.config, task.head), [], list[StageRecord]()
    for name, attached in (("every-step", False), ("once", True)):
        where = replace(opened(tmp_path / name, backbone, task, AUGMENTED), record=records.append)
        labels = labels_of(replace(where, folder=tmp_path / "logits", record=lambda _: None), task) if attached else None
        found.append(finetune(replace(where, soft_labels=labels), pretrained, architecture, options, spec).state_dict())
    for key, value in found[0].items():
        torch.testing.assert_close(found[1][key], value, rtol=1e-2, atol=1e-3)
    assert [record.examples for record in records] == [len(task.limited(20, 0).split(AUGMENTED))] * 2
    assert records[1].flops < records[0].flops
