"""Word replacement: which words, by what, how often; built once, never of held-out rows, going on where it stopped."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from methods.backbone import Backbone
from methods.errors import UserError
from methods.recipe import StageRecord
from methods.tasks.split import Split
from methods.tasks.task import Task
from methods.training.augmentation import building
from methods.training.augmentation.building import MARK, ROWS, augment, distinct
from methods.training.augmentation.neighbours import nearest_words
from methods.training.augmentation.options import AugmentationOptions
from methods.training.augmentation.source import WordSource, open_source
from methods.training.augmentation.variants import Copy, draw, make_copies
from methods.training.augmentation.words import whole_words, words_of
from tests.apart import printed_apart
from tests.methods.augmentation_cases import DOUBLE, SINGLE, VOCABULARY, context, make_backbone, make_task, make_teacher

EMBEDDINGS = AugmentationOptions(copies=2, source="embeddings", candidates=3)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return make_backbone(tmp_path_factory.mktemp("masked"))


def source_of(backbone: Backbone, tmp_path: Path, task: Task | None = None, **changes: Any) -> WordSource:
    task = task or make_task()
    options = EMBEDDINGS.model_copy(update=changes)
    found = open_source(context(tmp_path, backbone, task), options)
    train = task.split("train")
    found.prepare((*train.text, *(train.text_b or ())))
    return found


def texts(rows: Split) -> list[tuple[str, str | None]]:
    return list(zip(rows.text, rows.text_b or [None] * len(rows), strict=True))


def test_words_of_letters_that_are_no_stop_words(backbone: Backbone) -> None:
    text = "The Film is not badly, 7 b2b owl zebra."
    (words,) = words_of(backbone.tokenizer, [text])
    assert [text[word.start : word.end] for word in words] == ["Film", "badly", "owl"]
    tokens = backbone.tokenizer.convert_ids_to_tokens(backbone.tokenizer([text])["input_ids"][0])
    assert [tokens[word.token] for word in words] == ["film", "bad", "owl"]
    assert [len(word.pieces) for word in words] == [1, 2, 1]
    assert set(whole_words(backbone.tokenizer).values()) == {piece for piece in VOCABULARY if piece.isalpha()}


def test_neighbours_equal_brute_force() -> None:
    """More wanted words than a block holds; the cosine of a mean of pieces, own pieces left out."""
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(400, 8, generator=generator) * torch.rand(400, 1, generator=generator)
    words = {number: f"w{number}" for number in range(5, 400, 2)}
    wanted = [(number,) for number in range(5, 300)] + [(6, 7), (9, 10, 11)]
    found = nearest_words(table, words, wanted, 4)
    for pieces in wanted:
        mean = table[list(pieces)].mean(0)
        ranked = sorted((n for n in words if n not in pieces), key=lambda n: -float(F.cosine_similarity(mean, table[n], dim=0)))
        assert found[pieces] == tuple(words[n] for n in ranked[:4])


def test_fewer_words_than_candidates() -> None:
    assert sorted(nearest_words(torch.eye(4), {0: "a", 1: "b", 2: "c"}, [(0,)], 9)[(0,)]) == ["b", "c"]


def test_masked_words_equal_a_direct_top_k(backbone: Backbone, tmp_path: Path) -> None:
    from transformers import BertForMaskedLM

    task, model = make_task(), BertForMaskedLM.from_pretrained(backbone.name).eval()
    source = source_of(backbone, tmp_path, task, source="masked_words")
    rows, tokenizer, known = task.split("train").text[:12], backbone.tokenizer, whole_words(backbone.tokenizer)
    words = words_of(tokenizer, rows)
    needed = [(row, place) for row, found in enumerate(words) for place in range(len(found))]
    candidates = source.candidates(rows, words, needed)
    checked = 0
    for row, place in needed:
        word = words[row][place]
        if len(word.pieces) > 1:
            near = nearest_words(source.table, known, [word.pieces], 3)
            assert candidates[row, place] == near[word.pieces]
            continue
        both = tokenizer(rows[row], rows[row], return_tensors="pt")
        both["input_ids"][0, word.token] = tokenizer.mask_token_id
        with torch.no_grad():
            logits = model(**both).logits[0, word.token]
        ranked = [number for number in logits.argsort(descending=True).tolist() if number in known and number != word.pieces[0]]
        assert candidates[row, place] == tuple(known[number] for number in ranked[:3])
        checked += 1
    assert checked > 20 and len(needed) - checked > 5


def test_what_is_longer_than_the_backbone_is_cut(backbone: Backbone, tmp_path: Path) -> None:
    """40 words fit once but not twice, of 80 the last ones are out of sight and have no candidates."""
    source = source_of(backbone, tmp_path, source="masked_words")
    rows = [" ".join(SINGLE * 5)[: sum(len(w) + 1 for w in (SINGLE * 5)[:n]) - 1] for n in (20, 40, 80)]
    words = words_of(backbone.tokenizer, rows)
    assert [len(found) for found in words] == [20, 40, 80]
    found = source.candidates(rows, words, [(row, place) for row, n in enumerate((20, 40, 80)) for place in range(n)])
    assert [sum(bool(found[row, place]) for place in range(len(words[row]))) for row in range(3)] == [20, 40, 62]
    assert not any(found[2, place] for place in range(62, 80))


@pytest.mark.parametrize("rate", [0.1, 0.4, 1.0])
def test_words_are_replaced_at_the_rate(backbone: Backbone, tmp_path: Path, rate: float) -> None:
    task = make_task(60)
    train, options = task.split("train"), EMBEDDINGS.model_copy(update={"rate": rate, "copies": 20})
    copies = make_copies(train, source_of(backbone, tmp_path, task), options)
    assert len(copies) == 20 * len(train)
    original = dict(zip(train.ids.tolist(), train.text, strict=True))
    changed = words = 0
    for copy in copies:
        before, after = original[copy.source].split(), copy.text.split()
        targets = [place for place, word in enumerate(before) if word in (*SINGLE, *DOUBLE)]
        assert len(before) == len(after)
        assert all(a == b for place, (a, b) in enumerate(zip(before, after, strict=True)) if place not in targets)
        words += len(targets)
        changed += sum(before[place] != after[place] for place in targets)
    assert abs(changed / words - rate) <= 4 * (rate * (1 - rate) / words) ** 0.5


def test_candidates_are_drawn_evenly() -> None:
    options = AugmentationOptions(copies=1, rate=1.0)
    shares = [share for row in range(500) for share in draw(options, row, 0, 0, 4).values()]
    counts = np.bincount([int(5 * share) for share in shares], minlength=5)
    assert len(counts) == 5 and abs(counts - 400).max() < 4 * (2000 * 0.2 * 0.8) ** 0.5


def test_case_and_everything_else_stay(backbone: Backbone, tmp_path: Path) -> None:
    task = make_task()
    rows = Split("train", ("Film,  the CAT\tis good-7!",), None, np.array([1]), np.array([5]))
    source = open_source(context(tmp_path, backbone, task), EMBEDDINGS)
    source.prepare(rows.text)
    (copy, _) = make_copies(rows, source, EMBEDDINGS.model_copy(update={"rate": 1.0}))
    first, second = copy.text.partition(",")[0], copy.text
    assert first.istitle() and first != "Film" and first.lower() in VOCABULARY
    assert second.startswith(f"{first},  the ") and "\tis " in second and second.endswith("-7!")
    assert copy.source == 5


def test_a_pair_is_varied_text_by_text(backbone: Backbone, tmp_path: Path) -> None:
    task = make_task(20, pair=True)
    train = task.split("train")
    copies = make_copies(train, source_of(backbone, tmp_path, task), EMBEDDINGS.model_copy(update={"copies": 3}))
    assert len(copies) == 2 * 3 * len(train) == len(train) * EMBEDDINGS.model_copy(update={"copies": 3}).copies_of_a_row(pair=True)
    for number, a, b in zip(train.ids, train.text, train.text_b or (), strict=True):
        first = [copy for copy in copies if (copy.source, copy.side) == (number, 0)]
        second = [copy for copy in copies if (copy.source, copy.side) == (number, 1)]
        assert {copy.text_b for copy in first} == {b}
        assert {copy.text for copy in second} == {list(dict.fromkeys([a, *(copy.text for copy in first)]))[-1]}
    assert len({copy.text_b for copy in copies if copy.side}) > 40


def test_a_row_is_drawn_by_itself(backbone: Backbone, tmp_path: Path) -> None:
    """The same copies whatever other rows there are, and another number of copies begins with them."""
    task = make_task()
    train, source = task.split("train"), source_of(backbone, tmp_path)
    whole = make_copies(train, source, EMBEDDINGS)
    some = make_copies(train.take([7, 3]), source, EMBEDDINGS.model_copy(update={"copies": 4}))
    wanted = {(copy.source, copy.number): copy for copy in whole}
    assert [copy for copy in some if copy.number < 2] == [wanted[int(train.ids[row]), k] for row in (7, 3) for k in (0, 1)]
    other = make_copies(train, source, EMBEDDINGS.model_copy(update={"seed": 1}))
    assert [copy.text for copy in other] != [copy.text for copy in whole]


SCRIPT = """
import sys
from pathlib import Path
from methods.backbone import Backbone
from methods.training.augmentation.building import augment
from methods.training.augmentation.options import AugmentationOptions
from tests.methods.augmentation_cases import context, make_task
options = AugmentationOptions(copies=2, candidates=3)
print(augment(context(Path(sys.argv[2]), Backbone.load(sys.argv[1]), make_task()), options).digest)
"""


def test_another_process_makes_the_same_rows(backbone: Backbone, tmp_path: Path) -> None:
    other = printed_apart(SCRIPT, backbone.name, str(tmp_path / "other"))
    own = augment(context(tmp_path / "own", backbone, make_task()), AugmentationOptions(copies=2, candidates=3))
    assert other.split()[-1] == own.digest
    assert (tmp_path / "other" / ROWS).read_bytes() == (tmp_path / "own" / ROWS).read_bytes()


@pytest.mark.parametrize("pair", [False, True])
def test_rows_have_their_sources_labels_and_are_distinct(backbone: Backbone, tmp_path: Path, pair: bool) -> None:
    task = make_task(30, pair)
    train, records = task.split("train"), list[StageRecord]()
    copies = augment(replace(context(tmp_path, backbone, task), record=records.append), EMBEDDINGS)
    labels = dict(zip(train.ids.tolist(), train.labels.tolist(), strict=True))
    assert [labels[int(number)] for number in copies.ids] == copies.labels.tolist()
    keys = texts(copies)
    assert len(set(keys)) == len(keys) and not set(keys) & set(texts(train))
    assert 20 * (1 + pair) < len(copies) <= 60 * (1 + pair)
    assert (records[0].stage, records[0].examples) == ("augment", len(copies))


def test_equal_texts_are_left_out() -> None:
    train = Split("train", ("a cat", "a  Dog"), None, np.array([0, 1]), np.array([0, 1]))
    copies = [Copy(0, 0, 0, text, None) for text in ("a cat", "A dog", "an owl", "AN  owl", "a fox")]
    assert [copy.text for copy in distinct(copies, train)] == ["an owl", "a fox"]
    pairs = replace(train, text_b=("x", "y"))
    assert len(distinct([Copy(0, 0, 0, "a cat", "y"), Copy(0, 0, 1, "a cat", "x")], pairs)) == 1


def test_held_out_rows_are_neither_sources_nor_copied(backbone: Backbone, tmp_path: Path) -> None:
    """Other search rows change nothing, but a copy that is one of them is left out; validation is closed to the builder."""
    task = make_task()
    copies = augment(context(tmp_path / "a", backbone, task), EMBEDDINGS)
    assert set(copies.ids) <= set(task.split("train").ids)
    search = replace(task.split("search"), text=(copies.text[4].upper(), *task.split("validation").text[1:]))
    other = Task(task.spec, {"train": task.split("train"), "search": search, "validation": task.split("validation")})
    without = augment(context(tmp_path / "b", backbone, other), EMBEDDINGS)
    assert texts(without) == [key for place, key in enumerate(texts(copies)) if place != 4]


def test_built_once_and_read_back(backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = make_task()
    records = list[StageRecord]()
    where = replace(context(tmp_path, backbone, task), record=records.append)
    built = augment(where, EMBEDDINGS)
    assert sorted(path.name for path in tmp_path.iterdir()) == [MARK, ROWS]
    monkeypatch.setattr(building, "make_copies", lambda *_: pytest.fail("made again"))
    assert augment(where, EMBEDDINGS).digest == built.digest
    assert records[0] == records[1] and records[0].seconds > 0


@pytest.mark.parametrize("change", [{"copies": 3}, {"rate": 0.5}, {"candidates": 2}, {"seed": 1}, {"source": "masked_words"}])
def test_an_edited_option_builds_another(backbone: Backbone, tmp_path: Path, change: dict[str, Any]) -> None:
    where = context(tmp_path, backbone, make_task())
    first, edited = augment(where, EMBEDDINGS), EMBEDDINGS.model_copy(update=change)
    second = augment(where, edited)
    assert second.digest != first.digest
    assert second.digest == augment(replace(where, folder=tmp_path / "fresh"), edited).digest


def test_another_teacher_or_other_rows_build_another(backbone: Backbone, tmp_path: Path) -> None:
    where = context(tmp_path, backbone, make_task())
    first = augment(where, EMBEDDINGS).digest
    assert augment(replace(where, teacher=make_teacher(backbone, where.task, seed=9)), EMBEDDINGS).digest != first
    assert augment(context(tmp_path, backbone, make_task(39)), EMBEDDINGS).digest != first
    assert augment(where, EMBEDDINGS).digest == first


def test_damage_is_named(backbone: Backbone, tmp_path: Path) -> None:
    where = context(tmp_path, backbone, make_task())
    augment(where, EMBEDDINGS)
    path = tmp_path / ROWS
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(UserError, match=r"rows\.tsv: missing or damaged"):
        augment(where, EMBEDDINGS)
    (tmp_path / MARK).write_text("{")
    with pytest.raises(UserError, match=r"rows\.json: damaged"):
        augment(where, EMBEDDINGS)


@pytest.mark.parametrize("source", ["embeddings", "masked_words"])
def test_an_interrupted_build_goes_on(backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    options, task = EMBEDDINGS.model_copy(update={"source": source}), make_task(40)
    monkeypatch.setattr(building, "PART", 8)
    whole = augment(context(tmp_path / "whole", backbone, task), options)
    calls, original = list[int](), building.make_copies

    def stopping(rows: Split, *more: Any) -> list[Copy]:
        calls.append(len(rows))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return original(rows, *more)

    monkeypatch.setattr(building, "make_copies", stopping)
    where = context(tmp_path / "stopped", backbone, task)
    with pytest.raises(KeyboardInterrupt):
        augment(where, options)
    assert not (tmp_path / "stopped" / MARK).exists()
    assert augment(where, options).digest == whole.digest
    assert calls == [8] * 6  # three parts, the one that was stopped, and the two that were left
    assert (tmp_path / "stopped" / ROWS).read_bytes() == (tmp_path / "whole" / ROWS).read_bytes()


def test_parts_of_other_options_are_not_gone_on_with(backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "PART", 8)
    where, original = context(tmp_path / "a", backbone, make_task()), building.make_copies
    calls = [0]

    def stopping(*arguments: Any) -> list[Copy]:
        calls[0] += 1
        if calls[0] == 3:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(building, "make_copies", stopping)
    with pytest.raises(KeyboardInterrupt):
        augment(where, EMBEDDINGS)
    other = EMBEDDINGS.model_copy(update={"seed": 7})
    assert augment(where, other).digest == augment(replace(where, folder=tmp_path / "b"), other).digest


def test_auto_takes_what_the_backbone_has(backbone: Backbone, tmp_path: Path) -> None:
    task, plain = make_task(), make_backbone(tmp_path / "plain", masked_words=False)
    auto = AugmentationOptions(copies=1)
    assert open_source(context(tmp_path, backbone, task), auto).kind == "masked_words"
    assert open_source(context(tmp_path, plain, task), auto).kind == "embeddings"
    other = open_source(context(tmp_path, plain, task), auto.model_copy(update={"backbone": backbone.name}))
    assert other.kind == "masked_words"
    assert torch.equal(other.table, backbone.weights()["embeddings.word_embeddings.weight"])
    with pytest.raises(UserError, match=r"augmentation\.source: masked_words, but backbone .* has no output layer"):
        open_source(context(tmp_path, plain, task), auto.model_copy(update={"source": "masked_words"}))
    with pytest.raises(UserError, match=r"augmentation\.backbone: 'nowhere/at-all'"):
        open_source(context(tmp_path, plain, task), auto.model_copy(update={"backbone": "nowhere/at-all"}))


def test_what_was_predicted_is_in_the_record(backbone: Backbone, tmp_path: Path) -> None:
    records = list[StageRecord]()
    where = replace(context(tmp_path, backbone, make_task()), record=records.append)
    augment(where, EMBEDDINGS)
    augment(where, EMBEDDINGS.model_copy(update={"source": "masked_words"}))
    assert records[0].flops == 0 < records[1].flops
    assert json.loads((tmp_path / MARK).read_text())["fingerprint"]["source"] == "masked_words"
