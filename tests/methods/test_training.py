"""The loop, its checkpoints and its stages: what is stopped goes on bit-equal, what is damaged is named, nothing is done twice."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from methods.backbone import Backbone
from methods.dynabert.options import DynaBertOptions
from methods.dynabert.recipe import DynaBertRecipe
from methods.dynabert.space import full_spec
from methods.errors import StageError, UserError
from methods.evaluation import evaluate, weights_digest
from methods.network import Network, task_loss
from methods.recipe import Context, Hardware, StageRecord
from methods.tasks.batches import joint
from methods.tasks.task import ClosedSplit, Task
from methods.training.checkpoint import load_checkpoint, save_checkpoint, write_atomically, written_aside
from methods.training.initialisation import initialise, load_backbone
from methods.training.loop import Loop
from methods.training.options import Schedule, linear_rate
from methods.training.teacher import TeacherOptions, fine_tune_teacher

FAST = Schedule(epochs=2, batch_size=16, learning_rate=3e-3)


class StoppedError(Exception):
    pass


def make_loop(backbone: Backbone, task: Task, folder: Path, stop_at: int | None = None, **changes: Any) -> Loop:
    torch.manual_seed(0)
    network = Network(full_spec(backbone.config, task.head))
    initialise(network)
    load_backbone(network, backbone.weights())
    collate = joint(backbone.tokenizer, 32)
    done = [0]

    def step(batch: dict[str, Tensor], backward: Any) -> dict[str, float]:
        if done[0] == stop_at:
            raise StoppedError
        done[0] += 1
        loss = task_loss(task.head, network(batch["input_ids"], batch["attention_mask"])["logits"], batch["labels"])
        backward(loss)
        return {"loss": float(loss.detach())}

    settings: dict[str, Any] = {
        "hardware": Hardware(checkpoint_seconds=0.0),
        "schedule": FAST,
        "fingerprint": {"stage": "x"},
        **changes,
    }
    encoded = collate.encode(task.split("train"))
    return Loop("x", network, step, encoded, collate, folder=folder / "x", seed=1, flops=lambda b, n: b * n, **settings)


def context_of(backbone: Backbone, task: Task, folder: Path, **more: Any) -> Context:
    return Context(folder, backbone, task.restricted("train", "search"), seed=0, max_length=32, **more)


def state(model: nn.Module) -> str:
    return weights_digest(model)


@pytest.mark.parametrize("stop_at", [1, 5, 7, 11])
def test_a_stopped_stage_goes_on_bit_equal(tiny_backbone: Backbone, tiny_task: Task, tmp_path: Path, stop_at: int) -> None:
    whole = make_loop(tiny_backbone, tiny_task, tmp_path / "whole")
    figures = whole.run()
    assert figures["steps"] == 12 and figures["examples"] == 192
    with pytest.raises(StoppedError):
        make_loop(tiny_backbone, tiny_task, tmp_path / "parts", stop_at=stop_at).run()
    torch.manual_seed(99)
    resumed = make_loop(tiny_backbone, tiny_task, tmp_path / "parts")
    again = resumed.run()
    assert state(resumed.model) == state(whole.model)
    assert (again["steps"], again["examples"], again["flops"]) == (figures["steps"], figures["examples"], figures["flops"])


def test_a_damaged_checkpoint_is_recognised_and_the_one_before_is_used(tiny_backbone: Backbone, tiny_task: Task, tmp_path: Path) -> None:
    whole = make_loop(tiny_backbone, tiny_task, tmp_path / "whole")
    whole.run()
    with pytest.raises(StoppedError):
        make_loop(tiny_backbone, tiny_task, tmp_path, stop_at=6).run()
    newest = tmp_path / "x" / json.loads((tmp_path / "x" / "checkpoint.json").read_text())["file"]
    newest.write_bytes(newest.read_bytes()[:-100])
    resumed = make_loop(tiny_backbone, tiny_task, tmp_path)
    resumed.run()
    assert state(resumed.model) == state(whole.model)


def test_the_good_checkpoint_stays_until_the_damaged_one_is_replaced(tmp_path: Path) -> None:
    """Else a kill between a checkpoint and its mark leaves none."""
    for number in (1, 2):
        save_checkpoint(tmp_path, {"number": number}, "x")
    good, damaged = tmp_path / "a.pt", tmp_path / "b.pt"
    before = good.read_bytes()
    damaged.write_bytes(b"nothing")
    found = load_checkpoint(tmp_path, "x")
    assert found is not None and found["number"] == 1
    save_checkpoint(tmp_path, {"number": 3}, "x")
    assert good.read_bytes() == before and damaged.stat().st_size > 100
    damaged.write_bytes(b"nothing")
    again = load_checkpoint(tmp_path, "x")
    assert again is not None and again["number"] == 1


def test_damaged_checkpoints_are_named(tiny_backbone: Backbone, tiny_task: Task, tmp_path: Path) -> None:
    with pytest.raises(StoppedError):
        make_loop(tiny_backbone, tiny_task, tmp_path, stop_at=6).run()
    for name in ("a.pt", "b.pt"):
        (tmp_path / "x" / name).write_bytes(b"nothing")
    with pytest.raises(UserError, match="damaged"):
        make_loop(tiny_backbone, tiny_task, tmp_path).run()
    assert (tmp_path / "x" / "a.pt").read_bytes() == b"nothing", "nothing is overwritten"


def test_what_another_process_writes_is_left_alone(tmp_path: Path) -> None:
    theirs = tmp_path / "mark.json.part"
    theirs.write_text("half of")
    write_atomically(tmp_path / "mark.json", "mine")
    assert (tmp_path / "mark.json").read_text() == "mine" and theirs.read_text() == "half of"
    assert len(list(tmp_path.iterdir())) == 2


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    write_atomically(tmp_path / "mark.json", "before")
    with pytest.raises(StoppedError), written_aside(tmp_path / "mark.json") as aside:
        aside.write_text("half of")
        raise StoppedError
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("mark.json", "before")]


def test_a_checkpoint_of_other_settings_is_refused(tiny_backbone: Backbone, tiny_task: Task, tmp_path: Path) -> None:
    with pytest.raises(StoppedError):
        make_loop(tiny_backbone, tiny_task, tmp_path, stop_at=3).run()
    with pytest.raises(UserError, match="other settings"):
        make_loop(tiny_backbone, tiny_task, tmp_path, fingerprint={"stage": "y"}).run()


def test_a_loss_that_is_no_number_stops_the_stage(tiny_backbone: Backbone, tiny_task: Task, tmp_path: Path) -> None:
    loop = make_loop(tiny_backbone, tiny_task, tmp_path)
    loop.step = lambda batch, backward: {"loss": float("nan")}
    with pytest.raises(StageError, match=r"not finite at step 0.*learning_rate"):
        loop.run()


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError("no"), RuntimeError("DefaultCPUAllocator: no")]
)
def test_no_memory_left_stops_the_stage(tiny_backbone: Backbone, tiny_task: Task, tmp_path: Path, error: Exception) -> None:
    def full(batch: object, backward: object) -> dict[str, float]:
        raise error

    loop = make_loop(tiny_backbone, tiny_task, tmp_path)
    loop.step = full
    with pytest.raises(StageError, match=r"out of memory; lower its batch_size \(\d+\)"):
        loop.run()


def test_another_error_is_no_lack_of_memory(tiny_backbone: Backbone, tiny_task: Task, tmp_path: Path) -> None:
    def wrong(batch: object, backward: object) -> dict[str, float]:
        raise RuntimeError("sizes differ")

    loop = make_loop(tiny_backbone, tiny_task, tmp_path)
    loop.step = wrong
    with pytest.raises(RuntimeError, match="sizes differ"):
        loop.run()


def test_select_every_keeps_the_best_state(tiny_backbone: Backbone, tiny_task: Task, tmp_path: Path) -> None:
    seen: list[str] = []
    loop = make_loop(tiny_backbone, tiny_task, tmp_path, schedule=FAST.model_copy(update={"select_every": 4}))

    def score() -> float:
        seen.append(state(loop.model))
        return [0.1, 0.9, 0.5][len(seen) - 1]

    loop.score = score
    loop.run()
    assert state(loop.model) == seen[1] and len(set(seen)) == 3


def test_schedule() -> None:
    assert Schedule(epochs=3, batch_size=32).steps(100) == 12
    assert Schedule(epochs=3, batch_size=32, accumulation=2).steps(100) == 6
    assert Schedule(epochs=3, batch_size=32, rows=64).steps(100) == Schedule(epochs=3, batch_size=32).steps(64) == 6
    assert [linear_rate(s, 10, 0) for s in (0, 5, 9)] == [1.0, 0.5, 0.1]
    rates = [linear_rate(s, 100, 10) for s in range(100)]
    assert max(rates) == rates[10] == 1.0 and rates[0] < rates[5] < 1.0


def test_accumulation_averages_over_the_group(tiny_backbone: Backbone, tiny_task: Task, tmp_path: Path) -> None:
    """Three groups of two batches of eight: as many steps, each with the mean gradient of its sixteen rows."""
    schedule = Schedule(epochs=1, batch_size=8, accumulation=2, learning_rate=1e-3)
    loop = make_loop(tiny_backbone, tiny_task, tmp_path, schedule=schedule)
    assert loop.run()["steps"] == 6
    groups = list(make_loop(tiny_backbone, tiny_task, tmp_path / "other", schedule=schedule)._batches(0, 6))
    assert sorted(row for group in groups for rows in group for row in rows) == list(range(96))


@pytest.fixture(scope="module")
def trained(
    tiny_backbone: Backbone, tiny_task: Task, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Context, DynaBertRecipe, list[StageRecord]]:
    folder, records = tmp_path_factory.mktemp("dynabert"), []
    teacher_options = TeacherOptions(schedule=Schedule(epochs=20, batch_size=16, learning_rate=3e-3))
    context = context_of(tiny_backbone, tiny_task, folder / "teacher", record=records.append)
    context = replace(context, teacher=fine_tune_teacher(context, teacher_options), folder=folder / "dynabert")
    stage = {"epochs": 3, "batch_size": 16, "learning_rate": 1e-3}
    options = DynaBertOptions.model_validate({"widths": [0.5, 1], "depths": [0.5, 1], "width": stage, "depth": stage, "final": stage})
    recipe = DynaBertRecipe(options)
    recipe.train(context)
    return context, recipe, list(records)


def test_dynabert_learns_on_train_alone(trained: tuple[Context, DynaBertRecipe, list[StageRecord]], tiny_task: Task) -> None:
    context, recipe, records = trained
    assert [r.stage for r in records] == ["fine-tune", "rewire", "width", "width-and-depth", "final"]
    with pytest.raises(ClosedSplit):
        context.task.split("validation")
    supernet, initial = recipe.train(context), recipe.initial(context)
    collate, validation = joint(context.backbone.tokenizer, 32), tiny_task.split("validation")
    small = supernet.space.smallest()

    def accuracy(model: Any) -> float:
        return evaluate(lambda b: model(b, small), collate, validation, tiny_task.spec).metrics["accuracy"]

    assert accuracy(supernet) >= 0.85
    assert accuracy(supernet) >= accuracy(initial)


def test_a_finished_recipe_is_read_not_repeated(trained: tuple[Context, DynaBertRecipe, list[StageRecord]]) -> None:
    context, recipe, records = trained
    files = {path: path.stat().st_mtime_ns for path in context.folder.rglob("*.safetensors")}
    assert len(files) == 4
    fresh: list[StageRecord] = []
    again = recipe.train(replace(context, record=fresh.append))
    assert fresh == records[1:]
    assert {path: path.stat().st_mtime_ns for path in context.folder.rglob("*.safetensors")} == files
    assert state(again) == state(recipe.train(context))


def test_a_damaged_stage_is_named(trained: tuple[Context, DynaBertRecipe, list[StageRecord]]) -> None:
    context, recipe, _ = trained
    path = context.folder / "width" / "weights.safetensors"
    good = path.read_bytes()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(UserError, match=r"weights\.safetensors: damaged"):
        recipe.train(context)
    path.write_bytes(good)


def test_another_teacher_needs_another_folder(trained: tuple[Context, DynaBertRecipe, list[StageRecord]]) -> None:
    context, recipe, _ = trained
    assert context.teacher is not None
    other = copy.deepcopy(context.teacher)
    with torch.no_grad():
        other.head.classifier.bias += 1.0
    with pytest.raises(UserError, match="trained with other teacher"):
        recipe.train(replace(context, teacher=other))


@pytest.mark.parametrize("content", ["[]", '{"file": "a.pt"}', '{"file": 3, "sha256": "x", "fingerprint": "y", "previous": {}}', "{"])
def test_a_damaged_checkpoint_mark_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "checkpoint.json").write_text(content)
    with pytest.raises(UserError, match=r"checkpoint\.json: damaged"):
        load_checkpoint(tmp_path, "y")


@pytest.mark.parametrize("lost", ["sha256", "fingerprint", "record"])
def test_a_damaged_mark_of_a_stage_is_named(trained: tuple[Context, DynaBertRecipe, list[StageRecord]], lost: str) -> None:
    context, recipe, _ = trained
    path = context.folder / "width" / "stage.json"
    good = path.read_text()
    path.write_text(json.dumps({key: value for key, value in json.loads(good).items() if key != lost}))
    with pytest.raises(UserError, match="damaged"):
        recipe.train(context)
    path.write_text(good)


def test_numbers_that_are_none_are_refused() -> None:
    for options in ({"epochs": float("inf")}, {"learning_rate": float("nan")}, {"rows": 0}, {"warmup": 1.0}):
        with pytest.raises(ValidationError):
            Schedule.model_validate(options)
    with pytest.raises(ValidationError, match="keeps its last state"):
        TeacherOptions.model_validate({"schedule": {"select_every": 5}})


def test_other_options_need_another_folder(trained: tuple[Context, DynaBertRecipe, list[StageRecord]]) -> None:
    context, recipe, _ = trained
    other = DynaBertRecipe(recipe.options.model_copy(update={"teacher_width": "matched"}))
    with pytest.raises(UserError, match="trained with other settings"):
        other.train(context)


def test_stage_flops_are_those_of_the_sub_networks(trained: tuple[Context, DynaBertRecipe, list[StageRecord]], tiny_task: Task) -> None:
    """The record's FLOPs lie between those of all rows at the shortest and at the longest padded length."""
    context, recipe, records = trained
    by_name = {r.stage: r for r in records}
    plans = {p.name: p for p in recipe.plan(recipe.space(context.backbone.config), context.backbone.config, tiny_task.head, 96, 10)}
    assert plans["width-and-depth"].steps == by_name["width-and-depth"].steps == 18
    assert plans["width-and-depth"].examples == by_name["width-and-depth"].examples == 288
    assert 0.4 < by_name["width-and-depth"].flops / plans["width-and-depth"].flops < 1.2
    assert plans["width-and-depth"].subnetworks == 4


def test_bf16_computes_in_bf16_and_keeps_float32_weights(tiny_backbone: Backbone, tiny_task: Task, tmp_path: Path) -> None:
    full, half = (make_loop(tiny_backbone, tiny_task, tmp_path / p, hardware=Hardware("cpu", p)) for p in ("fp32", "bf16"))  # type: ignore[arg-type]
    full.run(), half.run()
    assert all(p.dtype == torch.float32 for p in half.model.parameters())
    assert state(full.model) != state(half.model)
    collate, split = joint(tiny_backbone.tokenizer, 32), tiny_task.split("validation")

    def run(batch: Any) -> Any:
        return half.model(batch["input_ids"], batch["attention_mask"])

    exact, rounded = (evaluate(run, collate, split, tiny_task.spec, Hardware("cpu", p)).logits for p in ("fp32", "bf16"))  # type: ignore[arg-type]
    assert 0 < abs(exact - rounded).max() < 0.1
