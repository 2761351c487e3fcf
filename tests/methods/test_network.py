"""Stand-alone networks on disk, evaluation in the split's order, and the truncated control."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers.utils.generic import ModelOutput

from methods import load_network
from methods.backbone import Backbone, BackboneConfig
from methods.baselines.truncated import TruncatedOptions, cut_teacher, deepest_that_fits, train_truncated, truncated_architectures
from methods.costs import costs
from methods.dynabert.space import full_spec
from methods.errors import UserError
from methods.evaluation import TOKENS, evaluate, weights_digest
from methods.network import Network, save_network
from methods.recipe import Context, StageRecord
from methods.tasks.batches import joint
from methods.tasks.head import Head
from methods.tasks.task import Task
from tests.apart import printed_apart
from tests.conformance.cases import TINY, Case, randomise
from tests.conftest import make_tiny_backbone

TWO = Head("classification", 2)


def network(seed: int = 0, backbone: BackboneConfig = TINY) -> Network:
    made = Network(full_spec(backbone, TWO)).eval()
    randomise(made, seed)
    return made


def test_a_saved_network_is_bit_equal_in_another_process(tmp_path: Path) -> None:
    saved, x = network(), Case("", "dynabert").batch()
    save_network(saved, tmp_path, note="kept")
    assert json.loads((tmp_path / "config.json").read_text())["note"] == "kept"
    assert (tmp_path / "model.safetensors").stat().st_mode == (tmp_path / "config.json").stat().st_mode
    torch.save(x, tmp_path / "batch.pt")
    code = (
        "import sys, torch, methods\n"
        "network = methods.load_network(sys.argv[1])\n"
        "batch = torch.load(sys.argv[1] + '/batch.pt', weights_only=True)\n"
        "torch.save(network(**batch).logits.detach(), sys.argv[1] + '/logits.pt')\n"
    )
    printed_apart(code, str(tmp_path))
    with torch.no_grad():
        assert torch.equal(torch.load(tmp_path / "logits.pt", weights_only=True), saved(**x).logits)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), "no exported network there"),
        (lambda folder: (folder / "config.json").write_text("{"), "is damaged"),
        (lambda folder: (folder / "config.json").write_text('{"format": 99}'), "format 99"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"x"), "is damaged"),
    ],
)
def test_what_can_not_be_loaded_is_named(tmp_path: Path, damage: object, message: str) -> None:
    save_network(network(), tmp_path)
    damage(tmp_path)  # type: ignore[operator]
    with pytest.raises(UserError, match=message):
        load_network(tmp_path)


def test_evaluation_is_in_the_splits_order(tiny_backbone: Backbone, tiny_task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    """In batches of few rows."""
    monkeypatch.setitem(TOKENS, "cpu", 50)
    model = network(1, tiny_backbone.config)
    split, collate = tiny_task.split("validation"), joint(tiny_backbone.tokenizer, 31)
    sizes = []

    def run(b: Mapping[str, Tensor]) -> ModelOutput:
        sizes.append(b["input_ids"].shape)
        return model(b["input_ids"], b["attention_mask"], b["token_type_ids"])

    found = evaluate(run, collate, split, tiny_task.spec)
    assert len(sizes) > 5 and all(rows * length <= 50 for rows, length in sizes)
    with torch.no_grad():
        for i in (0, 17, 47):
            alone = model(**tiny_backbone.tokenizer(split.text[i], return_tensors="pt")).logits[0]
            np.testing.assert_allclose(found.logits[i], alone.numpy(), rtol=1e-4, atol=1e-5)
    assert found.metrics["accuracy"] == np.mean(found.logits.argmax(1) == split.labels)
    assert (found.ids == split.ids).all()


def test_the_weights_digest_sees_every_change() -> None:
    first, second = network(1), network(1)
    assert weights_digest(first) == weights_digest(second)
    with torch.no_grad():
        second.head.classifier.bias[0] += 1e-6
    assert weights_digest(first) != weights_digest(second)


def test_truncated_networks_are_the_teachers_layers(tiny_backbone: Backbone, tiny_task: Task, tmp_path: Path) -> None:
    teacher = network(2, tiny_backbone.config)
    whole, half = truncated_architectures(tiny_backbone.config)
    x = {name: tensor % tiny_backbone.config.vocabulary for name, tensor in Case("", "dynabert").batch().items()}
    x["token_type_ids"] %= 2
    with torch.no_grad():
        assert torch.equal(cut_teacher(teacher, whole, tiny_backbone.config, TWO)(**x).logits, teacher(**x).logits)
    cut = cut_teacher(teacher, half, tiny_backbone.config, TWO)
    limit = costs(cut.spec).flops
    assert deepest_that_fits(tiny_backbone.config, TWO, lambda spec: costs(spec).flops <= limit) == half
    assert deepest_that_fits(tiny_backbone.config, TWO, lambda spec: costs(spec).flops < limit) is None
    context = Context(tmp_path, tiny_backbone, tiny_task.restricted("train", "search"), 0, teacher, max_length=32)
    options = TruncatedOptions(epochs=4, learning_rate=3e-3, batch_size=16)
    trained = train_truncated(context, half, options)
    split, collate = tiny_task.split("train"), joint(tiny_backbone.tokenizer, 32)

    def distance(student: Network) -> float:
        answers = [
            evaluate(lambda b, m=m: m(b["input_ids"], b["attention_mask"], b["token_type_ids"]), collate, split, tiny_task.spec).logits
            for m in (student, teacher)
        ]
        return float(np.square(answers[0] - answers[1]).mean())

    assert distance(trained) < 0.5 * distance(cut)
    assert weights_digest(train_truncated(replace(context, teacher=teacher), half, options)) == weights_digest(trained)


def test_equal_flops_are_equal(tiny_backbone: Backbone, tiny_task: Task, tmp_path: Path) -> None:
    """The control spends what it was given, to half a step."""
    records: list[StageRecord] = []
    teacher = network(2, tiny_backbone.config)
    context = Context(tmp_path, tiny_backbone, tiny_task.restricted("train", "search"), 0, teacher, record=records.append, max_length=32)
    options = TruncatedOptions(batch_size=16, learning_rate=1e-3)
    for half, flops in ((truncated_architectures(tiny_backbone.config)[1], 3e8),):
        train_truncated(context, half, options, flops)
        assert records[-1].flops == pytest.approx(flops, rel=0.03)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: [(f / name).unlink() for name in ("tokenizer.json", "tokenizer_config.json")], "no tokenizer there"),
        (lambda f: (f / "tokenizer.json").write_text("{}"), "neither a directory"),
        (lambda f: (f / "config.json").write_text('{"model_type": "gpt2"}'), "no BERT-like encoder"),
        (lambda f: edit(f, num_attention_heads=0), "heads is 0"),
        (lambda f: edit(f, num_hidden_layers=0), "layers is 0"),
        (lambda f: edit(f, hidden_act="no such"), "hidden_act 'no such' is unknown"),
        (lambda f: (f / "model.safetensors").write_bytes(b"x"), "weights can't be read"),
    ],
)
def test_a_backbone_that_is_none_is_refused(tmp_path: Path, change: object, message: str) -> None:
    folder = make_tiny_backbone(tmp_path)
    change(folder)  # type: ignore[operator]
    with pytest.raises(UserError, match=message):
        Backbone.load(str(folder)).weights()


def edit(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
