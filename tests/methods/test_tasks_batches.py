"""Batches: every row once, an order from (seed, epoch) alone, and padding that nothing but the mask sees."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BertTokenizer

from methods.tasks.batches import evaluation_batches, joint, separate, token_batches, training_batches
from methods.tasks.split import Split

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "c", "d", "e"]
CLS, SEP = 2, 3

sizes = st.lists(st.integers(1, 40), min_size=1, max_size=600)


@pytest.fixture(scope="module")
def tokenizer() -> BertTokenizer:
    return BertTokenizer(vocab={word: number for number, word in enumerate(WORDS)})


def split(*texts: tuple[str, ...], labels: np.ndarray | None = None) -> Split:
    rows = len(texts[0])
    found = np.arange(rows) % 2 if labels is None else labels
    return Split("train", texts[0], texts[1] if len(texts) > 1 else None, found, np.arange(rows, dtype=np.int64) + 100)


@given(lengths=sizes, size=st.integers(1, 9), seed=st.integers(0, 2**31), epoch=st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_training_batches_hold_every_row_once_and_the_same_each_time(lengths: list[int], size: int, seed: int, epoch: int) -> None:
    batches = training_batches(lengths, size, seed, epoch)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    assert len(batches) == -(-len(lengths) // size)
    assert all(0 < len(batch) <= size for batch in batches)
    assert batches == training_batches(np.array(lengths), size, seed, epoch)


def test_the_order_changes_with_seed_and_epoch_and_buckets_save_padding() -> None:
    lengths = np.random.default_rng(1).integers(3, 60, 2000)
    orders = [training_batches(lengths, 16, seed, epoch) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    assert orders[0] != orders[1] != orders[2] != orders[0]
    padded = sum(lengths[batch].max() * len(batch) for batch in orders[0])
    assert lengths.sum() <= padded < 1.1 * lengths.sum()
    firsts = [lengths[batch].mean() for batch in orders[0]]
    assert abs(np.corrcoef(firsts, range(len(firsts)))[0, 1]) < 0.5, "batches come in random order, not from short to long"


@given(lengths=sizes, size=st.integers(1, 9))
@settings(max_examples=30, deadline=None)
def test_evaluation_batches_go_from_short_to_long(lengths: list[int], size: int) -> None:
    order = [row for batch in evaluation_batches(lengths, size) for row in batch]
    assert sorted(order) == list(range(len(lengths)))
    assert [lengths[row] for row in order] == sorted(lengths)


@given(lengths=sizes, tokens=st.integers(1, 200))
@settings(max_examples=50, deadline=None)
def test_token_batches_are_filled_and_never_over(lengths: list[int], tokens: int) -> None:
    batches = token_batches(lengths, tokens)
    order = [row for batch in batches for row in batch]
    assert sorted(order) == list(range(len(lengths)))
    assert [lengths[row] for row in order] == sorted(lengths)
    for batch, following in zip(batches, [*batches[1:], None], strict=True):
        assert len(batch) == 1 or len(batch) * lengths[batch[-1]] <= tokens
        assert following is None or (len(batch) + 1) * lengths[following[0]] > tokens


def test_joint_pair_is_one_sequence_with_types(tokenizer: BertTokenizer) -> None:
    collate = joint(tokenizer, 16)
    encoded = collate.encode(split(("a b", "c"), ("d", "e e e")))
    assert encoded.lengths.tolist() == [6, 7]
    assert len(encoded) == 2
    batch = collate(encoded, [1, 0])
    assert batch["input_ids"].tolist() == [[CLS, 7, SEP, 9, 9, 9, SEP], [CLS, 5, 6, SEP, 8, SEP, 0]]
    assert batch["token_type_ids"].tolist() == [[0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 1, 1, 0]]
    assert batch["attention_mask"].tolist() == [[1] * 7, [1] * 6 + [0]]
    assert batch["example_id"].tolist() == [101, 100]
    assert batch["labels"].tolist() == [1, 0]
    assert {tensor.dtype for tensor in batch.values()} == {torch.int64}


def test_joint_single_text_is_cut_and_padded_to_the_longest_of_the_rows_alone(tokenizer: BertTokenizer) -> None:
    collate = joint(tokenizer, 5)
    encoded = collate.encode(split(("a", "a b c d e a b", "b c")))
    assert encoded.lengths.tolist() == [3, 5, 4]
    assert collate(encoded, [0, 2])["input_ids"].tolist() == [[CLS, 5, SEP, 0], [CLS, 6, 7, SEP]]
    assert collate(encoded, [1])["input_ids"].tolist() == [[CLS, 5, 6, 7, SEP]]


def test_separate_pair_is_two_sequences_of_one_length(tokenizer: BertTokenizer) -> None:
    collate = separate(tokenizer, 4)
    encoded = collate.encode(split(("a b", "c"), ("d", "e e e")))
    assert encoded.lengths.tolist() == [4, 4]
    batch = collate(encoded, [0, 1])
    assert batch["input_ids"].tolist() == [[CLS, 5, 6, SEP], [CLS, 7, SEP, 0]]
    assert batch["input_ids_b"].tolist() == [[CLS, 8, SEP, 0], [CLS, 9, 9, SEP]]
    assert batch["attention_mask_b"].tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert "token_type_ids" not in batch


def test_separate_single_text_has_no_second(tokenizer: BertTokenizer) -> None:
    collate = separate(tokenizer, 8)
    batch = collate(collate.encode(split(("a", "b c"))), [0, 1])
    assert set(batch) == {"input_ids", "attention_mask", "labels", "example_id"}


@pytest.mark.parametrize("make", [joint, separate])
def test_the_padded_form_has_one_length(tokenizer: BertTokenizer, make: type) -> None:
    collate = make(tokenizer, 6, pad_to=9)
    batch = collate(collate.encode(split(("a", "b c"))), [0])
    assert batch["input_ids"].tolist() == [[CLS, 5, SEP, 0, 0, 0, 0, 0, 0]]
    assert batch["attention_mask"].sum() == 3
    with pytest.raises(ValueError, match="pad_to 5 is less than max_length 6"):
        make(tokenizer, 6, pad_to=5)


def test_regression_labels_stay_floats(tokenizer: BertTokenizer) -> None:
    collate = joint(tokenizer, 8)
    batch = collate(collate.encode(split(("a", "b"), labels=np.array([0.5, 4.25], dtype=np.float32))), [1, 0])
    assert batch["labels"].dtype == torch.float32
    assert batch["labels"].tolist() == [4.25, 0.5]
