"""The embedded demo: a bag of words can't solve it, a small transformer can; the backbone is a real one, the same each time."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch

from methods.backbone import Backbone
from methods.tasks.batches import evaluation_batches, joint, training_batches
from methods.tasks.demo import TRAIN_ROWS, VALIDATION_ROWS, generate_demo
from methods.tasks.demo_backbone import make_demo_backbone
from methods.tasks.demo_grammar import Clause, Opinion, draw_pair
from methods.tasks.split import Split
from methods.tasks.task import load_task
from tests.apart import printed_apart


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """So small a network is slower with more, and numbers stay the same on every machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The backbone of the demo itself: this takes most of the time of these tests."""
    place = tmp_path_factory.mktemp("demo") / "backbone"
    make_demo_backbone(place, seed=0)
    return place


def clause(frame: str, flips: int, adjective: str) -> Clause:
    return Clause(frame, flips, "plot", "music", adjective)


def test_verdicts_by_hand() -> None:
    dull, fine = clause("the {noun} is {adjective}", 0, "dull"), clause("the {noun} is {adjective}", 0, "superb")
    assert not Opinion("{0} but {1}", 1, (fine, dull)).positive
    assert Opinion("{0} but {1}", 1, (dull, fine)).positive
    not_dull = clause("the {noun} is not {adjective}", 1, "dull")
    assert Opinion("although {0} , {1}", 1, (dull, not_dull)).positive
    assert str(Opinion("although {0} , {1}", 1, (dull, not_dull))) == "although the plot is dull , the plot is not dull"
    assert Opinion("although {0} , {1}", 1, (dull, not_dull)).steps == 2


def test_pairs_have_opposite_verdicts_and_from_two_clauses_on_the_same_words() -> None:
    rng = Random(5)
    pairs = [draw_pair(rng) for _ in range(500)]
    assert all(first.positive != second.positive for first, second in pairs)
    several = [pair for pair in pairs if len(pair[0].clauses) > 1]
    assert len(several) > 250
    assert all(Counter(str(first).split()) == Counter(str(second).split()) for first, second in several)
    assert all(4 <= len(str(opinion).split()) <= 20 for pair in pairs for opinion in pair)
    steps = Counter(first.steps for first, _ in pairs)
    assert min(steps[0], steps[1], steps[2]) > 50, "difficulty is graded"
    assert steps[3] > 5


def test_rows_are_balanced_without_repeats_and_the_same_for_a_seed() -> None:
    train, validation = generate_demo(600, 200, seed=3)
    assert (len(train), len(validation)) == (600, 200)
    assert (train.labels.sum(), validation.labels.sum()) == (300, 100)
    assert len({*train.text, *validation.text}) == 800
    again = generate_demo(300, 200, seed=3)
    assert again[1].digest == validation.digest
    assert generate_demo(600, 200, seed=4)[0].digest != train.digest
    code = "from methods.tasks.demo import generate_demo; print(generate_demo(600, 200, seed=3)[0].digest)"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert other.stdout.strip() == train.digest


def test_the_demo_is_a_task_like_any_other() -> None:
    task = load_task("demo")
    assert task.split_names == ("train", "search", "validation")
    train, search = task.split("train"), task.split("search")
    assert len(train) + len(search) == TRAIN_ROWS
    assert len(search) == TRAIN_ROWS // 10
    assert len(task.split("validation")) == VALIDATION_ROWS
    assert not set(train.text) & set(search.text)
    assert load_task("demo", "generated").split("search").digest == search.digest
    assert task.spec.labels == ("negative", "positive")


def test_the_backbone_loads_like_any_other_and_knows_every_word(folder: Path) -> None:
    backbone = Backbone.load(str(folder))
    assert (backbone.config.layers, backbone.config.heads, backbone.config.hidden, backbone.config.intermediate) == (4, 4, 64, 256)
    assert backbone.config.vocabulary == len(backbone.tokenizer)
    weights = backbone.weights()
    assert weights["embeddings.word_embeddings.weight"].shape == (backbone.config.vocabulary, 64)
    assert "encoder.layer.3.output.dense.weight" in weights
    text = generate_demo(2, 500, seed=9)[1].text
    encoded = backbone.tokenizer(list(text))["input_ids"]
    assert backbone.tokenizer.unk_token_id not in {token for row in encoded for token in row}
    assert all(len(row) == len(sentence.split()) + 2 for row, sentence in zip(encoded, text, strict=True)), "every word is a piece"


def test_the_backbone_was_trained(folder: Path) -> None:
    """It guesses hidden words far better than the most frequent word would."""
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForMaskedLM.from_pretrained(folder).eval()
    batch = tokenizer(list(generate_demo(2, 300, seed=11)[1].text), padding=True, return_tensors="pt")
    hidden = (torch.rand(batch["input_ids"].shape, generator=torch.manual_seed(0)) < 0.15) & (batch["input_ids"] > 4)
    with torch.no_grad():
        logits = model(batch["input_ids"].masked_fill(hidden, tokenizer.mask_token_id), attention_mask=batch["attention_mask"]).logits
    truth = batch["input_ids"][hidden]
    frequent = truth.bincount().max() / len(truth)
    assert (logits[hidden].argmax(-1) == truth).float().mean() > 1.5 * frequent


def test_the_same_seed_makes_the_same_backbone_and_leaves_the_random_state(tmp_path: Path) -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    make_demo_backbone(tmp_path / "here", seed=1, steps=3)
    assert torch.equal(torch.rand(3), expected)
    code = f"""
from pathlib import Path
import torch
torch.set_num_threads({torch.get_num_threads()})
from methods.tasks.demo_backbone import make_demo_backbone
make_demo_backbone(Path({str(tmp_path / "there")!r}), seed=1, steps=3)
"""
    assert printed_apart(code) == ""
    make_demo_backbone(tmp_path / "other", seed=2, steps=3)
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("here", "there", "other")]
    assert files[0] == files[1] != files[2]
    assert (tmp_path / "here" / "tokenizer.json").read_text() == (tmp_path / "there" / "tokenizer.json").read_text()
    assert not list(tmp_path.glob("*.partial"))


def bag_of_words(train: Split, validation: Split) -> float:
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression

    counts = CountVectorizer(token_pattern=r"\S+")
    model = LogisticRegression(max_iter=1000).fit(counts.fit_transform(train.text), train.labels)
    return float(model.score(counts.transform(validation.text), validation.labels))


def fine_tuned(folder: Path, train: Split, validation: Split, seed: int, epochs: int = 2, rate: float = 1e-3) -> float:
    """Accuracy of the backbone fine-tuned for a few seconds."""
    from transformers import AutoTokenizer, BertForSequenceClassification
    from transformers.utils import logging

    logging.set_verbosity_error()
    torch.manual_seed(seed)
    model = BertForSequenceClassification.from_pretrained(folder, num_labels=2).train()
    collate = joint(AutoTokenizer.from_pretrained(folder), 32)
    rows, held = collate.encode(train), collate.encode(validation)
    batches = [batch for epoch in range(epochs) for batch in training_batches(rows.lengths, 32, seed, epoch)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    for step, batch in enumerate(batches):
        optimizer.param_groups[0]["lr"] = rate * min(1.0, (step + 1) / 30, 1.5 * (1 - step / len(batches)))
        inputs = collate(rows, batch)
        inputs.pop("example_id")
        model(**inputs).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
    right = 0
    for batch in evaluation_batches(held.lengths, 100):
        inputs = collate(held, batch)
        inputs.pop("example_id")
        with torch.no_grad():
            right += int((model(**inputs).logits.argmax(-1) == inputs["labels"]).sum())
    return right / len(validation)


def test_a_bag_of_words_is_ten_points_below_a_small_transformer(folder: Path) -> None:
    gaps = []
    for seed in range(3):
        train, validation = generate_demo(2000, 1000, seed)
        gaps.append(fine_tuned(folder, train, validation, seed) - bag_of_words(train, validation))
    assert np.mean(gaps) >= 0.1, gaps
