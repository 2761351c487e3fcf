"""The teacher of the corpus stages: pre-trained, taken with the backbone's own output layer, or with one trained on frozen features."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from methods.backbone import Backbone
from methods.corpus.corpus import Corpus
from methods.corpus.masked_words import word_flops
from methods.corpus.masking import SHARE
from methods.costs import costs
from methods.errors import UserError
from methods.evaluation import weights_digest
from methods.nasbert.networks import teacher_spec
from methods.nasbert.options import CorpusTeacher
from methods.nasbert.teacher import STAGES, corpus_teacher, origin
from methods.network import Network
from methods.recipe import CorpusContext, StageRecord
from methods.tasks.head import Head
from methods.training.initialisation import load_backbone
from tests.conformance.cases import randomise
from tests.methods.nasbert_text import LENGTH, likelihood, make_corpus

FAST = {"batch_size": 8, "length": LENGTH, "optimiser": {"learning_rate": 0.03, "warmup_steps": 0}}


def make_context(
    folder: Path, backbone: Backbone, corpus: Corpus, records: list[StageRecord] | None = None, seed: int = 1
) -> CorpusContext:
    shared = records.append if records is not None else lambda _: None
    opened = corpus.restricted("train", "search")
    return CorpusContext(folder / f"seed-{seed}", folder / "shared", backbone, opened, seed, record=_unexpected, record_shared=shared)


def _unexpected(record: StageRecord) -> None:
    raise AssertionError(f"{record.stage} serves all seeds")


def frozen(**changes: Any) -> CorpusTeacher:
    return CorpusTeacher.model_validate({**FAST, "source": "backbone", "head_steps": 80, **changes})


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Backbone) -> Corpus:
    return make_corpus(tmp_path_factory.mktemp("corpus"), tiny_backbone)


@pytest.fixture(scope="module")
def with_head(tmp_path_factory: pytest.TempPathFactory, tiny_backbone_folder: Path) -> Path:
    """The tiny backbone as transformers' BertForMaskedLM, every parameter random."""
    from transformers import AutoTokenizer, BertConfig, BertForMaskedLM

    folder = tmp_path_factory.mktemp("masked")
    model = BertForMaskedLM(BertConfig.from_pretrained(tiny_backbone_folder))
    randomise(model, 3)
    model.tie_weights()
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_backbone_folder).save_pretrained(folder)
    return folder


def test_an_output_layer_of_the_backbone_is_taken(with_head: Path, corpus: Corpus, tmp_path: Path) -> None:
    from transformers import BertForMaskedLM

    records: list[StageRecord] = []
    teacher = corpus_teacher(make_context(tmp_path, Backbone.load(str(with_head)), corpus, records), frozen())
    theirs = BertForMaskedLM.from_pretrained(with_head).eval()
    ids = torch.tensor([[2, 5, 6, 7, 3], [2, 8, 3, 0, 0]])
    mask = (ids > 0).long()
    with torch.no_grad():
        found, expected = teacher(ids, mask)["logits"], theirs(input_ids=ids, attention_mask=mask).logits
    torch.testing.assert_close(found[mask.bool()], expected[mask.bool()], rtol=1e-5, atol=1e-5)
    assert origin(tmp_path / "shared") == "of the backbone"
    assert records == [StageRecord(STAGES[0], 0, 0, 0.0, 0.0)]


def test_an_output_layer_that_is_not_tied_is_not_taken(with_head: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer, BertConfig, BertForMaskedLM

    BertForMaskedLM(BertConfig.from_pretrained(with_head, tie_word_embeddings=False)).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(with_head).save_pretrained(tmp_path)
    assert Backbone.load(str(tmp_path)).masked_word_head() is None
    assert Backbone.load(str(with_head)).masked_word_head() is not None


def test_a_head_is_trained_on_frozen_features(tiny_backbone: Backbone, corpus: Corpus, tmp_path: Path) -> None:
    records: list[StageRecord] = []
    teacher = corpus_teacher(make_context(tmp_path, tiny_backbone, corpus, records), frozen())
    own = Network(teacher_spec(tiny_backbone.config, Head("mlm")))
    load_backbone(own, tiny_backbone.weights())
    for name, tensor in own.state_dict().items():
        assert torch.equal(tensor, teacher.state_dict()[name]) != name.startswith("head."), name
    assert not teacher.training and not any(p.requires_grad for p in teacher.parameters())
    untrained = corpus_teacher(
        make_context(tmp_path / "untrained", tiny_backbone, corpus),
        frozen(head_steps=1, optimiser={"learning_rate": 1e-9, "warmup_steps": 0}),
    )
    assert likelihood(teacher, corpus) > likelihood(untrained, corpus) + 0.05
    assert origin(tmp_path / "shared") == "trained on frozen features"
    output = SHARE * teacher.spec.head.flops(LENGTH)
    cost = costs(teacher.spec, LENGTH).flops - teacher.spec.head.flops(LENGTH) + 3 * output
    assert [(r.stage, r.steps) for r in records] == [("teacher", 80)] and records[0].flops == pytest.approx(records[0].examples * cost)


def test_the_decoder_is_the_word_table(tiny_backbone: Backbone, corpus: Corpus, tmp_path: Path) -> None:
    teacher = corpus_teacher(make_context(tmp_path, tiny_backbone, corpus), frozen(head_steps=1))
    ids, word = torch.tensor([[2, 5, 6, 3]]), 9
    with torch.no_grad():
        before = teacher(ids)["logits"]
        teacher.stem.word.weight[word] += 1.0
        changed = (teacher(ids)["logits"] - before).abs().amax((0, 1)) > 1e-6
    assert changed.nonzero().flatten().tolist() == [word]


def test_pretraining_from_random_weights(tiny_backbone: Backbone, corpus: Corpus, tmp_path: Path) -> None:
    records: list[StageRecord] = []
    context = make_context(tmp_path, tiny_backbone, corpus, records)
    options = CorpusTeacher.model_validate({**FAST, "steps": 30, "accumulation": 2})
    teacher = corpus_teacher(context, options)
    assert weights_digest(teacher.stem) != weights_digest(_backbone_network(tiny_backbone).stem)
    start = corpus_teacher(make_context(tmp_path / "start", tiny_backbone, corpus), _barely(options))
    assert likelihood(teacher, corpus) > likelihood(start, corpus) + 0.1
    assert origin(context.shared) == "pretrained"
    again = corpus_teacher(replace(context, folder=tmp_path / "seed-2", seed=2), options)
    assert weights_digest(again) == weights_digest(teacher) and records[0] == records[1]
    assert records[0].examples > 8 * 30 and records[0].flops == pytest.approx(3 * records[0].examples * word_flops(teacher.spec, LENGTH))


def _barely(options: CorpusTeacher) -> CorpusTeacher:
    return options.model_copy(update={"steps": 1, "optimiser": options.optimiser.model_copy(update={"learning_rate": 1e-9})})


def _backbone_network(backbone: Backbone) -> Network:
    network = Network(teacher_spec(backbone.config, Head("mlm")))
    load_backbone(network, backbone.weights())
    return network


def test_what_is_wrong_is_said(tiny_backbone: Backbone, corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"teacher\.length: 512"):
        corpus_teacher(make_context(tmp_path, tiny_backbone, corpus), frozen(length=512))
    with pytest.raises(UserError, match="no teacher is finished there"):
        origin(tmp_path)
