"""Published DynaBERT folders, written here as transformers writes them: read as a trained supernet, or refused by file and key."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification

from methods.backbone import Backbone, BackboneConfig
from methods.dynabert.options import DynaBertOptions
from methods.dynabert.published import LOADED, Published
from methods.dynabert.recipe import DynaBertRecipe
from methods.dynabert.space import full_spec
from methods.dynabert.step import whole_network
from methods.dynabert.supernet import DynaBertSupernet
from methods.errors import UserError
from methods.network import Network
from methods.recipe import Context, StageRecord
from methods.tasks.head import Head
from methods.tasks.spec import KNOWN, TaskSpec
from methods.tasks.task import Task
from methods.training.checkpoint import file_digest
from methods.training.stage import DONE, WEIGHTS
from tests.conformance.cases import TINY, Case, randomise
from tests.methods.roberta_cases import edit_json, make_roberta

SHAPE: dict[str, Any] = {
    "vocab_size": 50,
    "max_position_embeddings": 40,
    "hidden_size": 24,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "intermediate_size": 40,
}
TWO = TaskSpec("tiny", ("text",), "label", ("no", "yes"), "accuracy", ("accuracy",))
MULTIPLIERS = (0.25, 0.5, 0.75, 1.0), (0.5, 0.75, 1.0)
BIN, SAFE = "pytorch_model.bin", "model.safetensors"


def publish(folder: Path, form: str = SAFE, labels: int = 2, **said: Any) -> BertForSequenceClassification:
    """A random model in `folder`; with pytorch_model.bin the way that the released code left it: no model_type, old names of norms and a
    table of position numbers among the tensors, written in the form before zip files."""
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(**SHAPE, num_labels=labels)).eval()
    randomise(model, 3)
    model.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    if form == BIN:
        tensors = load_file(folder / SAFE)
        (folder / SAFE).unlink()
        old = {name.replace("LayerNorm.weight", "LayerNorm.gamma"): tensor for name, tensor in tensors.items()}
        old["bert.embeddings.position_ids"] = torch.arange(40)[None]
        torch.save(old, folder / BIN, _use_new_zipfile_serialization=False)
        del config["model_type"], config["architectures"]
    (folder / "config.json").write_text(json.dumps({**config, **said}))
    return model


def state_of(folder: Path, task: TaskSpec = TWO, backbone: BackboneConfig = TINY) -> dict[str, Tensor]:
    return Published.open(str(folder)).state(backbone, task, *MULTIPLIERS)


@pytest.fixture
def recipe_of(
    tmp_path: Path, tiny_task: Task, tiny_backbone: Backbone
) -> Callable[[Path], tuple[DynaBertRecipe, Context, list[StageRecord]]]:
    """The recipe with a checkpoint, a context whose teacher is another network, and the list in which its stages are recorded."""

    def make(checkpoint: Path) -> tuple[DynaBertRecipe, Context, list[StageRecord]]:
        teacher = Network(full_spec(TINY, TWO.head)).eval()
        randomise(teacher, 9)
        records: list[StageRecord] = []
        backbone = Backbone("tiny", TINY, tiny_backbone.tokenizer)
        task = Task(TWO, {name: tiny_task.split(name) for name in ("train", "search")})
        context = Context(tmp_path / "run", backbone, task, 0, teacher, record=records.append)
        return DynaBertRecipe(DynaBertOptions(checkpoint=str(checkpoint))), context, records

    return make


Making = Callable[[Path], tuple[DynaBertRecipe, Context, list[StageRecord]]]


def slices_by_hand(model: BertForSequenceClassification, heads: int, neurons: int, layers: tuple[int, ...]) -> None:
    """Cuts the transformers model itself (section 2 of the paper): prefixes of heads and neurons, some layers."""
    width = heads * 6
    for layer in model.bert.encoder.layer:
        for linear in (layer.attention.self.query, layer.attention.self.key, layer.attention.self.value):
            linear.weight, linear.bias = nn.Parameter(linear.weight[:width]), nn.Parameter(linear.bias[:width])
        layer.attention.self.num_attention_heads, layer.attention.self.all_head_size = heads, width
        dense = layer.attention.output.dense
        dense.weight = nn.Parameter(dense.weight[:, :width])
        inner, outer = layer.intermediate.dense, layer.output.dense
        inner.weight, inner.bias = nn.Parameter(inner.weight[:neurons]), nn.Parameter(inner.bias[:neurons])
        outer.weight = nn.Parameter(outer.weight[:, :neurons])
    model.bert.encoder.layer = nn.ModuleList(model.bert.encoder.layer[i] for i in layers)


@pytest.mark.parametrize("form", [SAFE, BIN])
def test_a_published_folder_is_a_trained_supernet(tmp_path: Path, recipe_of: Making, form: str) -> None:
    model = publish(tmp_path, form, width_mult_list=[0.25, 0.5, 0.75, 1.0], depth_mult_list="0.5,0.75,1.0")
    recipe, context, records = recipe_of(tmp_path)
    supernet = recipe.train(context)
    assert not supernet.training
    x = Case("", "dynabert").batch()
    with torch.no_grad():
        found = supernet(x, whole_network(TINY)).logits
        torch.testing.assert_close(found, model(**x).logits, rtol=1e-5, atol=1e-5)
        narrow = supernet.space.decode({"width": 0.5, "depth": 0.5})  # type: ignore[attr-defined]
        slices_by_hand(model, 2, 20, (0, 2, 4))
        expected = model(**x).logits
        torch.testing.assert_close(supernet(x, narrow).logits, expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(supernet.extract(narrow)(**x).logits, expected, rtol=1e-5, atol=1e-5)
    assert [(r.stage, r.steps, r.examples, r.flops) for r in records] == [(LOADED, 0, 0, 0.0)]
    assert sorted(path.name for path in context.folder.iterdir()) == [LOADED]
    mark = json.loads((context.folder / LOADED / DONE).read_text())
    assert mark["fingerprint"]["checkpoint"] == {name: file_digest(tmp_path / name) for name in ("config.json", form)}


def test_a_published_roberta(tmp_path: Path) -> None:
    """Its inherited pooler is there in old files, and read by nothing."""
    model = make_roberta(tmp_path, num_labels=2)
    tensors = load_file(tmp_path / SAFE)
    pooler = {"roberta.pooler.dense.weight": torch.ones(16, 16), "roberta.pooler.dense.bias": torch.ones(16)}
    save_file({**tensors, **pooler}, tmp_path / SAFE)
    config = BackboneConfig.from_transformers(model.config)
    supernet = DynaBertSupernet(DynaBertRecipe(DynaBertOptions(widths=(0.5, 1.0))).space(config), config, TWO.head).eval()
    supernet.load_state_dict(state_of(tmp_path, backbone=config))
    ids = torch.randint(3, config.vocabulary, (3, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[1] * 9, [1] * 5 + [0] * 4, [1] * 2 + [0] * 7])
    x = {"input_ids": ids.masked_fill(mask == 0, 1), "attention_mask": mask}
    with torch.no_grad():
        torch.testing.assert_close(supernet(x, whole_network(config)).logits, model(**x).logits, rtol=1e-5, atol=1e-5)


def test_read_back_from_the_run_folder(tmp_path: Path, recipe_of: Making) -> None:
    folder = tmp_path / "published"
    publish(folder)
    recipe, context, records = recipe_of(folder)
    first = recipe.train(context).state_dict()
    shutil.move(folder, tmp_path / "elsewhere")
    again = recipe.train(context).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first) and records[0] == records[1]


@pytest.mark.parametrize("file", ["config.json", SAFE])
def test_a_changed_checkpoint_is_noticed(tmp_path: Path, recipe_of: Making, file: str) -> None:
    publish(tmp_path)
    recipe, context, _ = recipe_of(tmp_path)
    recipe.train(context)
    if file == SAFE:
        tensors = load_file(tmp_path / SAFE)
        tensors["classifier.bias"] += 1.0
        save_file(tensors, tmp_path / SAFE)
    else:
        edit_json(tmp_path / file, note="another")
    with pytest.raises(UserError, match=rf"{file}: has changed since this run loaded it"):
        recipe.train(context)


def test_a_damaged_copy_in_the_run_folder_is_noticed(tmp_path: Path, recipe_of: Making) -> None:
    publish(tmp_path)
    recipe, context, _ = recipe_of(tmp_path)
    recipe.train(context)
    (context.folder / LOADED / WEIGHTS).write_bytes(b"x")
    with pytest.raises(UserError, match=rf"{WEIGHTS}: damaged"):
        recipe.train(context)


def test_the_initial_supernet_is_the_teacher_in_its_own_order(tmp_path: Path, recipe_of: Making) -> None:
    publish(tmp_path)
    recipe, context, records = recipe_of(tmp_path)
    assert context.teacher is not None and recipe.initial_name == "teacher-cut"
    assert all(torch.equal(tensor, context.teacher.state_dict()[name]) for name, tensor in recipe.initial(context).state_dict().items())
    assert not records


def test_the_plan_is_one_stage_without_work(tmp_path: Path) -> None:
    recipe = DynaBertRecipe(DynaBertOptions(checkpoint=str(tmp_path)))
    (stage,) = recipe.plan(recipe.space(TINY), TINY, TWO.head, 1000, 32)
    assert (stage.name, stage.steps, stage.flops, stage.note) == (LOADED, 0, 0.0, f"from {tmp_path}")


def rename(folder: Path, old: str, new: str | None) -> None:
    tensors = load_file(folder / SAFE)
    tensor = tensors.pop(old)
    save_file(tensors if new is None else {**tensors, new: tensor}, folder / SAFE)


def cut(folder: Path, name: str) -> None:
    tensors = load_file(folder / SAFE)
    save_file({**tensors, name: tensors[name][:-1].clone()}, folder / SAFE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: edit_json(f / "config.json", hidden_size=32), r"config\.json: hidden_size: 32, but the backbone has 24"),
        (lambda f: edit_json(f / "config.json", num_hidden_layers=12), r"config\.json: num_hidden_layers: 12, but the backbone has 6"),
        (lambda f: edit_json(f / "config.json", num_attention_heads="4"), r"num_attention_heads: '4', but the backbone has 4"),
        (lambda f: edit_json(f / "config.json", vocab_size=51), r"config\.json: vocab_size: 51, but the backbone has 50"),
        (lambda f: edit_json(f / "config.json", max_position_embeddings=41), r"max_position_embeddings: 41, but the backbone has 40"),
        (lambda f: edit_json(f / "config.json", model_type="roberta"), r"model_type: 'roberta', but the backbone has 'bert'"),
        (lambda f: edit_json(f / "config.json", width_mult_list=[0.5, 1.0]), r"widths: 0\.25 was not trained in .*width_mult_list: \[0\.5"),
        (lambda f: edit_json(f / "config.json", depth_mult_list="1."), r"depths: 0\.5 was not trained in .*depth_mult_list: \[1\.0\]"),
        (lambda f: edit_json(f / "config.json", depth_mult_list="all"), r"config\.json: depth_mult_list: 'all' is no list of multipliers"),
        (
            lambda f: edit_json(f / "config.json", id2label={"0": "up", "1": "down"}),
            r"id2label: up, down; task tiny has the labels no, yes",
        ),
        (lambda f: edit_json(f / "config.json", id2label=["no", "yes"]), r"config\.json: id2label: \['no', 'yes'\]; the labels' names"),
        (lambda f: (f / "config.json").write_text("{"), r"config\.json: can't be read as JSON"),
        (lambda f: (f / "config.json").write_text("[]"), r"config\.json: holds no mapping"),
        (lambda f: (f / "config.json").write_text("{}"), r"config\.json: hidden_size: missing; the backbone has 24"),
        (lambda f: (f / "config.json").unlink(), r"neither a directory with config\.json and model\.safetensors or pytorch_model\.bin nor"),
        (lambda f: (f / SAFE).unlink(), r"neither a directory with config\.json and model\.safetensors or pytorch_model\.bin nor"),
        (lambda f: rename(f, "bert.pooler.dense.bias", None), r"model\.safetensors: bert\.pooler\.dense\.bias: missing \(1 of 105"),
        (lambda f: rename(f, "classifier.bias", "classifier.bia"), r"model\.safetensors: classifier\.bias: missing"),
        (
            lambda f: save_file({**load_file(f / SAFE), "x": torch.ones(1)}, f / SAFE),
            r"safetensors: x: a bert classifier of 6 layers has no",
        ),
        (lambda f: cut(f, "bert.encoder.layer.3.output.dense.bias"), r"layer\.3\.output\.dense\.bias: shape \(23,\); \(24,\) is needed"),
        (lambda f: cut(f, "classifier.weight"), r"classifier\.weight: shape \(1, 24\); \(2, 24\) is needed \(task tiny has 2 outputs\)"),
        (lambda f: (f / SAFE).write_bytes((f / SAFE).read_bytes()[:1000]), r"model\.safetensors: damaged, or holds more than tensors"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, change: Callable[[Path], object], message: str) -> None:
    publish(tmp_path)
    change(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        state_of(tmp_path)
    assert "\n" not in str(caught.value)


def test_another_number_of_labels_is_named(tmp_path: Path) -> None:
    publish(tmp_path, labels=3)
    with pytest.raises(UserError, match=r"classifier\.weight: shape \(3, 24\); \(2, 24\) is needed \(task tiny has 2 outputs\)"):
        state_of(tmp_path)


class Spy:
    """Makes a folder where it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("zipped", [True, False])
def test_nothing_is_unpickled(tmp_path: Path, zipped: bool) -> None:
    publish(tmp_path, BIN)
    tensors = torch.load(tmp_path / BIN, weights_only=True)
    torch.save({**tensors, "spy": Spy(tmp_path / "unpickled")}, tmp_path / BIN, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match=r"pytorch_model\.bin: damaged, or holds more than tensors, which is not unpickled"):
        state_of(tmp_path)
    assert not (tmp_path / "unpickled").exists()


@pytest.mark.parametrize("content", [[torch.ones(2)], {"state_dict": {"a": torch.ones(2)}}, {1: torch.ones(2)}])
def test_what_is_no_state_dict_is_named(tmp_path: Path, content: object) -> None:
    publish(tmp_path, BIN)
    torch.save(content, tmp_path / BIN)
    with pytest.raises(UserError, match=r"pytorch_model\.bin: no state dict"):
        state_of(tmp_path)


def rows_of(folder: Path, task: TaskSpec, backbone: BackboneConfig) -> list[int]:
    """Which row of the checkpoint's output layer stands for each label of the task."""
    name = "classifier.out_proj.weight" if backbone.family == "roberta" else "classifier.weight"
    theirs, ours = load_file(folder / SAFE)[name], state_of(folder, task, backbone)["head.classifier.weight"]
    return [next(row for row in range(len(theirs)) if torch.equal(theirs[row], one)) for one in ours]


@pytest.mark.parametrize(
    ("said", "rows"),
    [
        ({}, [1, 2, 0]),
        ({"id2label": {"0": "ENTAILMENT", "1": "NEUTRAL", "2": "CONTRADICTION"}}, [0, 1, 2]),
        ({"id2label": {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}}, [1, 2, 0]),
    ],
)
def test_labels_of_mnli(tmp_path: Path, said: dict[str, object], rows: list[int]) -> None:
    """The task's: entailment, neutral, contradiction; the released code's: contradiction, entailment, neutral."""
    publish(tmp_path, labels=3, **said)
    assert rows_of(tmp_path, KNOWN["mnli"].spec, TINY) == rows


def test_labels_of_mnli_are_swapped_for_roberta(tmp_path: Path) -> None:
    """The released code's: contradiction, neutral, entailment."""
    config = BackboneConfig.from_transformers(make_roberta(tmp_path, num_labels=3).config)
    assert rows_of(tmp_path, KNOWN["mnli"].spec, config) == [2, 1, 0]


def test_labels_that_a_task_has_in_another_order(tmp_path: Path) -> None:
    publish(tmp_path)
    sst2 = KNOWN["sst2"].spec
    assert rows_of(tmp_path, sst2, TINY) == [0, 1]
    assert rows_of(tmp_path, replace(sst2, labels=("positive", "negative")), TINY) == [1, 0]


def test_a_classifier_answers_no_questions(tmp_path: Path) -> None:
    publish(tmp_path)
    with pytest.raises(UserError, match=r"config\.json: a classifier; the spans that task squad asks for"):
        state_of(tmp_path, KNOWN["squad"].spec)


def test_a_regression_has_one_output(tmp_path: Path) -> None:
    publish(tmp_path, labels=1)
    assert KNOWN["stsb"].spec.head == Head("regression", 1, pair=True)
    assert state_of(tmp_path, KNOWN["stsb"].spec)["head.classifier.weight"].shape == (1, 24)


def test_a_hub_id_is_looked_up_where_the_hub_keeps_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    kept = tmp_path / "models--someone--dynabert"
    publish(kept / "snapshots" / "abc", BIN)
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text("abc")
    found = Published.open("someone/dynabert")
    assert (found.config_file.name, found.weights_file.name) == ("config.json", BIN)
    with pytest.raises(UserError, match=r"checkpoint: 'someone/other' is neither a directory"):
        Published.open("someone/other")


@pytest.mark.parametrize("trained", [{"rewiring": False}, {"depth": {"epochs": 1}}, {"final": {}}])
def test_options_of_training_beside_a_checkpoint_are_refused(trained: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(trained))}: nothing is trained where a checkpoint is loaded"):
        DynaBertOptions(checkpoint="x", **trained)
    assert DynaBertOptions(checkpoint="x").checkpoint == "x"
