"""AdaBERT's probes of the teacher and what they leave for every row; the one mapping between student and teacher layers."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from methods.adabert.mapping import teacher_layer
from methods.adabert.probes import Probes, features_of, train_probes
from methods.adabert.taught import taught_signals
from methods.adabert.teacher_signals import Signals, teacher_signals, training_split
from methods.backbone import Backbone
from methods.errors import UserError
from methods.evaluation import weights_digest
from methods.tasks.batches import joint, separate
from tests.conformance.cases import randomise
from tests.methods.adabert_search_cases import context_of, options_of, signals_of, task_of

OPTIONS = options_of()


def test_layers_are_paired_by_hand() -> None:
    assert [teacher_layer(i, 3, 12) for i in range(4)] == [0, 4, 8, 12]
    assert [teacher_layer(i, 8, 12) for i in range(9)] == [0, 2, 3, 5, 6, 8, 9, 11, 12]
    assert [teacher_layer(i, 4, 6) for i in range(5)] == [0, 2, 3, 5, 6]
    for i, cells in ((-1, 3), (4, 3), (0, 0)):
        with pytest.raises(ValueError, match="layers go from 0"):
            teacher_layer(i, cells, 12)


@given(cells=st.integers(1, 64), layers=st.integers(1, 48))
def test_the_ends_meet_and_pairs_are_the_nearest(cells: int, layers: int) -> None:
    taught = [teacher_layer(i, cells, layers) for i in range(cells + 1)]
    assert taught[0] == 0 and taught[-1] == layers and taught == sorted(taught)
    assert all(abs(j - i * layers / cells) <= 0.5 for i, j in enumerate(taught))


@pytest.mark.parametrize("kind", ["classes", "pairs"])
def test_features_are_means_and_first_tokens_and_do_not_see_padding(tiny_backbone: Backbone, tmp_path: Path, kind: str) -> None:
    context = context_of(tiny_backbone, tmp_path, kind)
    collate = joint(tiny_backbone.tokenizer, 16)
    encoded = collate.encode(context.task.split("train"))
    batch = collate(encoded, [0, 1, 2])
    assert context.teacher is not None
    with torch.no_grad():
        features, logits = features_of(context.teacher, batch, "first_token")
        pooled, _ = features_of(context.teacher, batch, "pooled")
        longer = {name: F.pad(tensor, (0, 5)) if tensor.ndim == 2 else tensor for name, tensor in batch.items()}
        padded, _ = features_of(context.teacher, longer, "first_token")
        alone = context.teacher(
            **{name: batch[name][:1, : int(batch["attention_mask"][0].sum())] for name in ("input_ids", "token_type_ids")}
        )
    assert features.shape == (3, 3, 16) and logits.shape == (3, 3)
    torch.testing.assert_close(padded, features)
    torch.testing.assert_close(features[0, 0], alone["hidden_states"][0][0].mean(0))
    torch.testing.assert_close(features[0, 1:], torch.stack([state[0, 0] for state in alone["hidden_states"][1:]]))
    torch.testing.assert_close(pooled[:, 0], features[:, 0])
    torch.testing.assert_close(pooled[:, 1:], torch.tanh(context.teacher.head.pooler(features[:, 1:])))


def test_each_probe_reads_its_own_layer() -> None:
    probes = Probes(8, 3, 2)
    features = torch.randn(5, 4, 8)
    probes(features)[:, 2].sum().backward()
    assert [probe.weight.grad is not None and bool(probe.weight.grad.any()) for probe in probes.maps] == [False, False, True, False]
    assert probes.maps[2].bias.grad is not None and probes.maps[2].bias.grad.any()


def test_probes_learn_what_the_embedding_knows_and_are_read_back(tiny_backbone: Backbone, tmp_path: Path) -> None:
    options, context = OPTIONS.probes.model_copy(update={"epochs": 150}), context_of(tiny_backbone, tmp_path)
    steps: list[int] = []
    context = replace(context, record=lambda record: steps.append(record.steps))
    before = weights_digest(context.teacher) if context.teacher else ""
    probes = train_probes(context, options)
    assert context.teacher is not None and weights_digest(context.teacher) == before
    rows = list(csv.DictReader((tmp_path / "probes" / "accuracy.csv").open()))
    assert [row["layer"] for row in rows] == ["0", "1", "2"]
    # the label counts a word, and the mean of the embedding tells how often it occurs
    assert float(rows[0]["accuracy"]) > 0.85
    assert weights_digest(train_probes(context, options)) == weights_digest(probes) and steps == [150, 150]
    with pytest.raises(UserError, match="other settings"):
        train_probes(context, options.model_copy(update={"feature": "pooled"}))


def test_a_teacher_without_pooler_has_no_pooled_features(tiny_backbone: Backbone, tmp_path: Path) -> None:
    context = context_of(tiny_backbone, tmp_path)
    assert context.teacher is not None
    context.teacher.head.pooler = None
    with pytest.raises(UserError, match="write first_token"):
        train_probes(context, OPTIONS.probes.model_copy(update={"feature": "pooled"}))
    with pytest.raises(UserError, match="needs a fine-tuned teacher"):
        train_probes(replace(context, teacher=None), OPTIONS.probes)


@pytest.mark.parametrize("kind", ["classes", "pairs", "regression"])
def test_signals_are_those_of_each_row(tiny_backbone: Backbone, tmp_path: Path, kind: str) -> None:
    context = context_of(tiny_backbone, tmp_path, kind)
    probes = train_probes(context, OPTIONS.probes)
    signals = teacher_signals(context, OPTIONS.probes, probes)
    split, collate = context.task.split("train"), joint(tiny_backbone.tokenizer, 16)
    assert context.teacher is not None and len(signals) == len(split)
    batch = collate(collate.encode(split), [7])
    with torch.no_grad():
        features, logits = features_of(context.teacher, batch, "first_token")
        expected = probes(features)[0]
    torch.testing.assert_close(signals.probe_logits[7], expected)
    torch.testing.assert_close(signals.final_logits[7], logits[0])
    label = split.labels[7]
    losses = (expected[:, 0] - float(label)) ** 2 if kind == "regression" else -expected.log_softmax(-1)[:, int(label)]
    torch.testing.assert_close(signals.probe_losses[7], losses)
    wrapped = Signals(separate(tiny_backbone.tokenizer, 16), signals)
    joined = wrapped(wrapped.encode(split), [3, 7])
    assert torch.equal(joined["probe_logits"], signals.probe_logits[[3, 7]]) and torch.equal(
        joined["teacher_logits"][1], signals.final_logits[7]
    )
    assert torch.equal(joined["probe_losses"], signals.probe_losses[[3, 7]]) and ("input_ids_b" in joined) == (kind == "pairs")
    with pytest.raises(UserError, match="signals are of other rows"):
        wrapped.encode(context.task.split("search"))


def test_copies_of_rows_come_behind_them(tiny_backbone: Backbone, tmp_path: Path) -> None:
    task = task_of()
    copies = task.split("train").take([5, 6, 7])
    context = context_of(tiny_backbone, tmp_path, task=task.with_copies(copies))
    signals = signals_of(context, OPTIONS)
    every = training_split(context, augmented=True)
    assert len(signals) == len(every) and torch.allclose(signals.final_logits[-3:], signals.final_logits[5:8], atol=1e-6)
    wrapped = Signals(separate(tiny_backbone.tokenizer, 16), signals)
    assert len(wrapped.encode(every)) == len(signals) and len(wrapped.encode(context.task.split("train"))) == 48


def _other_teacher(path: Path, backbone: Backbone) -> None:
    context = context_of(backbone, path)
    probes = train_probes(context, OPTIONS.probes)
    assert context.teacher is not None
    randomise(context.teacher, 8)
    teacher_signals(context, OPTIONS.probes, probes)


def _other_probes(path: Path, backbone: Backbone) -> None:
    context = context_of(backbone, path)
    probes = train_probes(context, OPTIONS.probes)
    nn.init.ones_(probes.maps[0].weight)
    teacher_signals(context, OPTIONS.probes, probes)


def _other_rows(path: Path, backbone: Backbone) -> None:
    context = context_of(backbone, path)
    probes = train_probes(context, OPTIONS.probes)
    teacher_signals(replace(context, task=task_of(seed=1)), OPTIONS.probes, probes)


def _damaged(path: Path, backbone: Backbone) -> None:
    file = path / "signals.safetensors"
    file.write_bytes(file.read_bytes()[:50])
    context = context_of(backbone, path)
    teacher_signals(context, OPTIONS.probes, train_probes(context, OPTIONS.probes))


@pytest.mark.parametrize(
    ("change", "message"),
    [(_other_teacher, "other teacher"), (_other_probes, "other probes"), (_other_rows, "other data"), (_damaged, "damaged")],
)
def test_a_cache_of_something_else_is_refused(
    tiny_backbone: Backbone, tmp_path: Path, change: Callable[[Path, Backbone], None], message: str
) -> None:
    context = context_of(tiny_backbone, tmp_path)
    first = signals_of(context, OPTIONS)
    written = (tmp_path / "signals.safetensors").stat().st_mtime_ns
    assert torch.equal(signals_of(context, OPTIONS).probe_logits, first.probe_logits)
    assert (tmp_path / "signals.safetensors").stat().st_mtime_ns == written, "computed once"
    with pytest.raises(UserError, match=message):
        change(tmp_path, tiny_backbone)


def test_one_changed_byte_of_the_signals_is_noticed(tiny_backbone: Backbone, tmp_path: Path) -> None:
    context = context_of(tiny_backbone, tmp_path)
    found = taught_signals(context, OPTIONS.probes)
    assert torch.equal(taught_signals(context, OPTIONS.probes).probe_logits, found.probe_logits)
    file = tmp_path / "signals.safetensors"
    good = file.read_bytes()
    file.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(UserError, match=r"signals\.safetensors: damaged, its SHA-256"):
        taught_signals(context, OPTIONS.probes)
