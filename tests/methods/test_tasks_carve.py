"""The search split: no text on both sides, phrases with their sentences, its size and its classes; on real data where it is there."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from methods.errors import UserError
from methods.tasks.carve import carve, normalised, pair_groups, phrase_groups
from methods.tasks.split import Split
from methods.tasks.task import Task, load_task

words = st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=5).map(" ".join)


def split(text: list[str], text_b: list[str] | None = None, labels: list[int] | None = None) -> Split:
    found = np.array(labels if labels is not None else [place % 2 for place in range(len(text))])
    return Split("train", tuple(text), None if text_b is None else tuple(text_b), found, np.arange(len(text), dtype=np.int64))


def sides(train: Split, search: Split) -> tuple[set[str], set[str]]:
    first, second = ({normalised(text) for column in (part.text, part.text_b or ()) for text in column} for part in (train, search))
    return first, second


def test_phrases_go_with_the_longest_text_that_has_them_as_words() -> None:
    texts = ["a fine , warm film", "Fine , warm", "warm  film", "fine film", "arm", "a fine , warm film", "warm film indeed"]
    groups = phrase_groups(texts)
    assert groups[0] == groups[1] == groups[2] == groups[5]
    assert len({groups[0], groups[3], groups[4], groups[6]}) == 4, "neither a scattered word sequence nor a part of a word is a phrase"


def test_a_very_long_text_claims_its_duplicates_alone() -> None:
    long = " ".join(f"w{number}" for number in range(70))
    groups = phrase_groups([long, "w1 w2", long.upper()])
    assert groups[0] == groups[2] != groups[1]


def naive_groups(texts: list[str]) -> list[int]:
    """The definition, word by word."""
    group: dict[str, int] = {}
    for root in sorted(dict.fromkeys(texts), key=lambda text: -len(text.split())):
        if root not in group:
            mine = [text for text in texts if text not in group and f" {text} " in f" {root} "]
            group |= dict.fromkeys(mine, len(group) + 1)
    return [group[text] for text in texts]


def same_partition(first: list[int], second: list[int]) -> bool:
    return len(set(zip(first, second, strict=True))) == len(set(first)) == len(set(second))


@given(texts=st.lists(words, min_size=1, max_size=40))
@settings(max_examples=100, deadline=None)
def test_phrase_groups_are_the_definition(texts: list[str]) -> None:
    assert same_partition(phrase_groups(texts).tolist(), naive_groups(texts))


def test_pairs_that_share_a_text_in_either_column_are_together_with_all_their_kin() -> None:
    groups = pair_groups(["a", "c", "x", "Y ", "z"], ["b", "a", "y", "w", "q"])
    assert groups[0] == groups[1], "one text, in different columns"
    assert groups[2] == groups[3], "written differently"
    assert len(set(groups)) == 3


@given(data=st.data(), rows=st.integers(20, 120), pairs=st.booleans(), classes=st.integers(2, 4))
@settings(max_examples=60, deadline=None)
def test_no_text_is_on_both_sides_and_the_size_is_kept(data: st.DataObject, rows: int, pairs: bool, classes: int) -> None:
    texts = [data.draw(words) if place % 3 else f"own{place} text" for place in range(rows)]
    text_b = [f"other{place // 2}" for place in range(rows)] if pairs else None
    labels = data.draw(st.lists(st.integers(0, classes - 1), min_size=rows, max_size=rows))
    whole = split(texts, text_b, labels)
    try:
        train, search = carve(whole, "here")
    except UserError:
        return
    assert not set.intersection(*sides(train, search))
    assert rows // 20 <= len(search) <= rows // 10
    assert sorted([*train.ids, *search.ids]) == list(range(rows))
    again = carve(whole, "here")[1]
    assert again.digest == search.digest


def test_the_classes_keep_their_shares() -> None:
    labels = [0] * 700 + [1] * 200 + [2] * 100
    _, search = carve(split([f"text {row}" for row in range(1000)], labels=labels), "here")
    assert np.bincount(search.labels).tolist() == [70, 20, 10]
    assert len(carve(split([f"text {row}" for row in range(1000)], labels=labels), "here", rows=30)[1]) == 30


# --- real data ----------------------------------------------------------------------------------------------------------------------


@cache
def real(name: str) -> Task:
    place = Path(os.environ.get("ELASTIBENCH_DATA") or Path(__file__).parents[2].parent / "shared" / "data") / name
    if not (place / "train.tsv").is_file():
        pytest.skip(f"the benchmark data is not there ({place}); ELASTIBENCH_DATA names its folder")
    return load_task(name, str(place))


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "rows", "search", "validation"),
    [("sst2", 67349, 2000, 872), ("trec6", 5452, 545, 500), ("rte", 2490, 249, 277), ("cola", 8551, 855, 1043)],
)
def test_real_data_is_carved_without_a_text_on_both_sides(name: str, rows: int, search: int, validation: int) -> None:
    task = real(name)
    train, held = task.split("train"), task.split("search")
    assert len(train) + len(held) == rows
    assert 0.95 * search <= len(held) <= search
    assert len(task.split("validation")) == validation
    assert not set.intersection(*sides(train, held))
    shares = [np.bincount(part.labels, minlength=len(task.spec.labels)) / len(part) for part in (train, held)]
    assert abs(shares[0] - shares[1]).max() < 0.02


@pytest.mark.data
def test_sst2_has_phrases_with_their_sentences_and_no_quoting() -> None:
    task = real("sst2")
    search = task.split("search")
    longest = max(search.text, key=lambda text: len(text.split()))
    kin = [text for text in search.text if f" {text} " in f" {longest} "]
    assert len(kin) > 5, "a long sentence of the search split has its phrases beside it"
    lengths = [np.mean([len(text.split()) for text in task.split(name).text]) for name in ("train", "search")]
    assert abs(lengths[0] - lengths[1]) < 1.5, "whole families, long ones too"
    assert all(text == text.strip() for text in task.split("train").text)


@pytest.mark.data
def test_rte_keeps_texts_that_look_like_missing_values() -> None:
    assert all(text for column in (real("rte").split("train").text, real("rte").split("train").text_b or ()) for text in column)
