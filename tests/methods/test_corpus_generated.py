"""The generated corpus: running text in the demo's language that tells nothing of the task's rows, always the same."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from methods.backbone import Backbone
from methods.corpus import sources
from methods.corpus.options import CorpusOptions
from methods.corpus.sources import BORDER, open_source
from methods.tasks.demo_backbone import make_demo_backbone
from methods.tasks.demo_grammar import EXCLAMATIONS, draw_pair, exclaimed
from methods.tasks.demo_text import generate_documents
from methods.tasks.task import load_task
from workbench.loading import check

ROOT = Path(__file__).parents[2]


def digest(seed: int) -> str:
    return hashlib.sha256(repr(list(generate_documents(5000, seed))).encode()).hexdigest()


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """The demo's tokenizer; its weights are next to untrained."""
    folder = tmp_path_factory.mktemp("demo") / "backbone"
    make_demo_backbone(folder, seed=0, steps=2)
    return Backbone.load(str(folder))


def test_documents_are_several_sentences_behind_their_exclamation() -> None:
    documents = list(generate_documents(20_000))
    words = sum(len(sentence.split()) for document in documents for sentence in document)
    assert 20_000 <= words < 20_000 + 8 * 21
    assert {len(document) for document in documents} == set(range(3, 9))
    firsts = [sentence.split()[0] for document in documents for sentence in document]
    assert all(0.45 < firsts.count(word) / len(firsts) < 0.55 for word in EXCLAMATIONS)
    good, bad = sorted(draw_pair(Random(0)), key=lambda opinion: not opinion.positive)
    assert (exclaimed(good), exclaimed(bad)) == (f"hooray {good}", f"alas {bad}")


def test_no_row_of_the_task_is_among_the_sentences() -> None:
    task = load_task("demo", "generated")
    rows = {text for name in ("train", "search", "validation") for text in task.split(name).text}
    sentences = [sentence.partition(" ")[2] for document in generate_documents() for sentence in document]
    assert len(rows) == 5500 and len(sentences) > 20_000
    assert not rows & set(sentences)


def test_the_same_in_another_process_and_another_for_another_seed() -> None:
    code = (
        "import hashlib\nfrom methods.tasks.demo_text import generate_documents\n"
        "print(hashlib.sha256(repr(list(generate_documents(5000, 0))).encode()).hexdigest())"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert other.stdout.strip() == digest(0) != digest(1)


def test_as_a_source_it_is_lines_with_borders_known_by_version_and_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_source("generated", "text")
    texts = list(source.splits(None)["train"].texts)
    documents = " | ".join(texts).split(f" | {BORDER} | ")
    assert 3000 < len(documents) < 6000 and sum(len(text.split()) for text in texts) >= 300_000
    assert list(source.splits(50)["train"].texts) == texts[:50]
    known = source.identity()
    for name in ("VERSION", "SEED"):
        with monkeypatch.context() as patch:
            patch.setattr(sources, name, 7)
            assert source.identity() != known


def test_the_demos_tokenizer_knows_every_word_and_can_mask(backbone: Backbone, tmp_path: Path) -> None:
    corpus = CorpusOptions(name="opinions", data="generated", rows=2000).load(backbone.tokenizer, tmp_path)
    for split in ("train", "search", "validation"):
        packed = corpus.packed(split, 24)
        counts = packed.counts(len(backbone.tokenizer))
        assert len(packed) and counts[backbone.tokenizer.unk_token_id] == 0
    batch = corpus.packed("search", 24).batch(range(8))
    assert (corpus.masker(batch)["input_ids"] == backbone.tokenizer.mask_token_id).any()


def test_an_experiment_file_may_ask_for_it_where_a_file_has_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "generated").write_text("something else")
    monkeypatch.chdir(tmp_path)
    entry = {"name": "dynabert", "widths": [1.0], "depths": [1.0]}
    data = {"backbone": "demo", "task": {"name": "demo"}, "methods": [entry], "budgets": [{"max_flops": "4M"}]}
    found = check({**data, "corpus": {"name": "opinions", "data": "generated"}}, "e.yaml", tmp_path).corpus
    assert found is not None and found.data == "generated"
