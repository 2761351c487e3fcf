"""RoBERTa as backbone: the function of transformers' model, positions, tokens, and what every method reads of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoTokenizer, RobertaForMaskedLM, RobertaModel

from methods import load_network
from methods.adabert.options import SpaceOptions
from methods.adabert.space import AdaBertSpace
from methods.adabert.supernet import AdaBertSupernet
from methods.backbone import ROBERTA_BASE, Backbone
from methods.costs import costs
from methods.dynabert.published import Published
from methods.dynabert.space import DynaBertSpace, full_spec
from methods.dynabert.supernet import DynaBertSupernet
from methods.errors import UserError
from methods.latency import key_of
from methods.layers.heads import FirstTokenHead
from methods.nasbert.networks import teacher_spec
from methods.nasbert.space import NasBertSpace
from methods.nasbert.supernet import NasBertSupernet
from methods.network import Network, make_stem, save_network
from methods.recipe import Context
from methods.tasks.batches import joint
from methods.tasks.head import Head
from methods.tasks.spec import TaskSpec
from methods.tasks.split import Split
from methods.tasks.task import Task
from methods.training.initialisation import load_backbone, load_masked_word_head
from methods.training.options import Schedule
from methods.training.teacher import TeacherOptions, fine_tune_teacher
from tests.conformance.cases import ROBERTA, randomise
from tests.methods.roberta_cases import edit_json, make_roberta

THREE = TaskSpec("three", ("text",), "label", ("a", "b", "c"), "accuracy", ("accuracy",))
TEXTS = ["good film", "the plot was not very good , the cast was", "bad"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("roberta")
    make_roberta(made, num_labels=3)
    return made


@pytest.fixture(scope="module")
def backbone(folder: Path) -> Backbone:
    return Backbone.load(str(folder))


def tokens(backbone: Backbone) -> dict[str, Tensor]:
    """A ragged batch, padded on the right."""
    found = backbone.tokenizer(TEXTS, padding=True, return_tensors="pt")
    assert not found["attention_mask"].bool().all()
    return {name: found[name] for name in ("input_ids", "attention_mask")}


def test_logits_are_those_of_transformers(folder: Path, backbone: Backbone) -> None:
    from transformers import RobertaForSequenceClassification

    theirs = RobertaForSequenceClassification.from_pretrained(folder).eval()
    ours = Network(full_spec(backbone.config, THREE.head)).eval()
    load_backbone(ours, backbone.weights())
    head = Published.open(str(folder)).state(backbone.config, THREE, (), ())
    ours.head.load_state_dict({name.removeprefix("head."): tensor for name, tensor in head.items() if name.startswith("head.")})
    x = tokens(backbone)
    with torch.no_grad():
        expected, found = theirs(**x, output_hidden_states=True), ours(**x)
        torch.testing.assert_close(found.logits, expected.logits, rtol=1e-5, atol=1e-5)
        alone = {"input_ids": x["input_ids"][:1, : x["attention_mask"][0].sum()]}
        torch.testing.assert_close(ours(**alone).logits, theirs(**alone).logits, rtol=1e-5, atol=1e-5)
    real = x["attention_mask"].bool()
    for a, b in zip(found.hidden_states, expected.hidden_states, strict=True):
        torch.testing.assert_close(a[real], b[real], rtol=1e-5, atol=1e-5)


def test_positions_are_2_to_length_plus_1_for_padding_too(backbone: Backbone) -> None:
    stem = Network(full_spec(backbone.config, THREE.head)).stem.eval()
    with torch.no_grad():
        for table in (stem.word, stem.token_type):
            table.weight.zero_()
        stem.position.weight.copy_(torch.randn(stem.position.weight.shape, generator=torch.Generator().manual_seed(0)))
        stem.norm_before = None
    x = tokens(backbone)
    assert stem.position.weight.shape[0] == 66 and backbone.config.positions == 64
    expected = stem.position.weight[2 : x["input_ids"].shape[1] + 2].expand(3, -1, -1)
    torch.testing.assert_close(stem(x["input_ids"], x["attention_mask"]), expected)


def test_the_longest_text_fits(backbone: Backbone) -> None:
    stem = Network(full_spec(backbone.config, THREE.head)).stem.eval()
    longest = torch.full((1, backbone.config.positions), 5)
    assert stem(longest, torch.ones_like(longest)).shape == (1, 64, 16)


def test_the_one_type_is_every_tokens(backbone: Backbone) -> None:
    network, x = Network(full_spec(backbone.config, THREE.head)).eval(), tokens(backbone)
    with torch.no_grad():
        assert torch.equal(network(**x, token_type_ids=x["attention_mask"]).logits, network(**x).logits)


def test_size_of_roberta_base() -> None:
    """124,647,170 parameters: roberta-base with a classifier of two labels and without the inherited pooler."""
    spec = full_spec(ROBERTA_BASE, Head("classification", 2))
    cost = costs(spec)
    assert spec.head == FirstTokenHead(768, 2, dropout=0.1, first_dropout=0.1), "transformers drops before the dense layer too"
    assert (cost.parameters, cost.embedding_parameters) == (124_647_170, (50_265 + 514 + 1) * 768)


def test_a_latency_table_tells_no_stem_by_its_offset() -> None:
    assert "position" not in key_of(make_stem(ROBERTA).pieces()[0])
    assert key_of(make_stem(ROBERTA).pieces()[0]) == key_of(make_stem(replace(ROBERTA, family="bert")).pieces()[0])


def test_pairs_have_the_tokenizers_separators_and_no_types(backbone: Backbone) -> None:
    split = Split("train", ("good film",), ("not bad",), np.array([1]), np.array([0]))
    collate = joint(backbone.tokenizer, 32)
    batch = collate(collate.encode(split), [0])
    pieces = backbone.tokenizer.convert_ids_to_tokens(batch["input_ids"][0].tolist())
    assert pieces == ["<s>", "good", "Ġfilm", "</s>", "</s>", "not", "Ġbad", "</s>"]
    assert "token_type_ids" not in batch


def test_padding_is_roberta_s(backbone: Backbone) -> None:
    split = Split("train", tuple(TEXTS), None, np.zeros(3, np.int64), np.arange(3))
    collate = joint(backbone.tokenizer, 32)
    batch = collate(collate.encode(split), [0, 1])
    assert set(batch["input_ids"][~batch["attention_mask"].bool()].tolist()) == {1}


def test_the_inherited_pooler_is_not_read(tmp_path: Path) -> None:
    """The classifier's dense layer is another one, and starts untrained."""
    assert "pooler.dense.weight" in make_roberta(tmp_path, RobertaModel).state_dict()
    assert not [name for name in Backbone.load(str(tmp_path)).weights() if name.startswith("pooler.")]


def test_a_teacher_is_fine_tuned_and_exported(backbone: Backbone, tiny_task: Task, tmp_path: Path) -> None:
    context = Context(tmp_path, backbone, tiny_task.restricted("train", "search"), 0, max_length=48)
    options = TeacherOptions(schedule=Schedule(epochs=1, learning_rate=1e-3, batch_size=16, rows=32))
    network = fine_tune_teacher(context, options)
    x = tokens(backbone)
    save_network(network, tmp_path / "exported", backbone.tokenizer)
    loaded = load_network(tmp_path / "exported")
    again = AutoTokenizer.from_pretrained(tmp_path / "exported")(TEXTS, padding=True, return_tensors="pt")
    assert torch.equal(again["input_ids"], x["input_ids"]) and loaded.spec.stem.position_offset == 2
    with torch.no_grad():
        assert torch.equal(loaded(**x).logits, network.eval()(**x).logits)


def test_an_extracted_network_of_all_layers_keeps_its_positions(tmp_path: Path, backbone: Backbone) -> None:
    supernet = DynaBertSupernet(DynaBertSpace(backbone.config, widths=(0.5, 1.0)), backbone.config, THREE.head).eval()
    randomise(supernet, 0)
    x = tokens(backbone)
    for architecture in supernet.space.enumerate():
        save_network(supernet.extract(architecture), tmp_path / architecture.id)
        with torch.no_grad():
            found = load_network(tmp_path / architecture.id)(**x).logits
            torch.testing.assert_close(found, supernet(x, architecture).logits, rtol=1e-5, atol=1e-5)


def test_nasbert_and_adabert_read_the_teachers_tables() -> None:
    """Positions among them: the same rows stand for the same places."""
    head = Head("classification", 3)
    teacher = Network(full_spec(ROBERTA, head))
    randomise(teacher, 1)
    ids = torch.randint(2, ROBERTA.vocabulary, (2, 7), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    adabert = AdaBertSupernet(AdaBertSpace(SpaceOptions(cells=2, nodes=2, width=6)), ROBERTA, head).eval()
    adabert.load_teacher(teacher)
    sums = teacher.stem.word(ids) + teacher.stem.position.weight[2:9]
    own = adabert.stem
    with torch.no_grad():
        assert torch.equal(own.norm_after(own.projection(sums)), own(ids, mask))
    options = {"sublayers": 4, "blocks": 2, "hidden_sizes": (8, 16), "embedding_sizes": (8, 16), "head_size": 8, "backbone": ROBERTA}
    nasbert = NasBertSupernet(NasBertSpace(**options), ROBERTA, head).eval()
    nasbert.load_teacher(teacher)
    with torch.no_grad():
        assert torch.equal(nasbert.stem(ids, mask), teacher.eval().stem(ids, mask))


def test_the_output_layer_for_masked_words_is_transformers(tmp_path: Path) -> None:
    """What NAS-BERT's corpus teacher and augmentation predict with."""
    theirs = make_roberta(tmp_path, RobertaForMaskedLM)
    backbone = Backbone.load(str(tmp_path))
    ours = Network(teacher_spec(backbone.config, Head("mlm"))).eval()
    load_backbone(ours, backbone.weights())
    head = backbone.masked_word_head()
    assert head is not None
    load_masked_word_head(ours, head)
    x = tokens(backbone)
    with torch.no_grad():
        expected, real = theirs(**x).logits, x["attention_mask"].bool()
        torch.testing.assert_close(ours(**x).logits[real], expected[real], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "distilbert"}, "model type 'distilbert' is no BERT-like encoder that can be hosted; known: bert, roberta"),
        ({"model_type": "deberta"}, "model type 'deberta' is no BERT-like encoder that can be hosted; known: bert, roberta"),
        ({"pad_token_id": None}, "pad_token_id None; RoBERTa's positions count from behind it"),
        ({"max_position_embeddings": 2}, "positions is 0; a whole number of at least 1"),
    ],
)
def test_what_is_no_such_family_is_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    make_roberta(tmp_path)
    edit_json(tmp_path / "config.json", **change)
    with pytest.raises(UserError, match=message):
        Backbone.load(str(tmp_path))
