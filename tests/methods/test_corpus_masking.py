"""Masked words: rates, what is never touched, and the output layer at those places alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from methods.backbone import Backbone
from methods.corpus.corpus import Corpus
from methods.corpus.masked_words import evaluate_masked_words, masked_batches, masked_word_logits, masked_word_loss, masked_words_of
from methods.corpus.masking import Masker
from methods.corpus.packing import Packed
from methods.errors import UserError
from methods.nasbert.networks import teacher_spec
from methods.network import Network
from methods.recipe import Hardware
from methods.tasks.head import Head
from tests.conformance.cases import randomise

SPECIAL = (0, 1, 2, 3, 4)
MASKER = Masker(mask_id=4, vocabulary=1000, special_ids=SPECIAL)


def words(rows: int, length: int, seed: int = 0, low: int = 5) -> dict[str, torch.Tensor]:
    ids = torch.randint(low, 1000, (rows, length), generator=torch.Generator().manual_seed(seed))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def test_a_seventh_is_asked_for_and_of_it_80_10_10() -> None:
    batch = words(400, 100)
    masked = MASKER(batch, torch.Generator().manual_seed(1))
    asked, ids = masked["labels"] >= 0, masked["input_ids"]
    count = int(asked.sum())
    assert abs(count / asked.numel() - 0.15) < 4 * (0.15 * 0.85 / asked.numel()) ** 0.5
    shares = {"masked": ids == 4, "kept": ids == batch["input_ids"], "other": (ids != 4) & (ids != batch["input_ids"])}
    for name, expected in (("masked", 0.8), ("kept", 0.1), ("other", 0.1)):  # of the others one in 995 happens to be the word itself
        share = float((shares[name] & asked).sum()) / count
        assert abs(share - expected) < 4 * (expected * (1 - expected) / count) ** 0.5, name
    others = ids[shares["other"] & asked]
    assert int(others.min()) >= 5 and len(others.unique()) > 400
    chance = asked.float().mean(0)  # every place alike
    assert float((chance - 0.15).abs().max()) < 5 * (0.15 * 0.85 / 400) ** 0.5


@given(
    ids=st.lists(st.lists(st.integers(0, 30), min_size=6, max_size=6), min_size=1, max_size=4),
    valid=st.integers(1, 6),
    seed=st.integers(0, 10**6),
    share=st.sampled_from([0.0, 0.15, 1.0]),
)
def test_only_words_are_asked_for(ids: list[list[int]], valid: int, seed: int, share: float) -> None:
    batch = {"input_ids": torch.tensor(ids), "attention_mask": torch.zeros(len(ids), 6, dtype=torch.int64)}
    batch["attention_mask"][:, :valid] = 1
    maskable = (batch["input_ids"] > 4) & (batch["attention_mask"] == 1)
    before = {name: tensor.clone() for name, tensor in batch.items()}
    masker = Masker(4, 31, SPECIAL, share)
    if not maskable.any():
        with pytest.raises(UserError, match="no known word to mask"):
            masker(batch)
        return
    masked = masker(batch, torch.Generator().manual_seed(seed))
    asked = masked["labels"] != -100
    assert bool(asked.any()) and not bool((asked & ~maskable).any())
    assert int(asked.sum()) == {0.0: 1, 1.0: int(maskable.sum())}.get(share, int(asked.sum()))
    assert torch.equal(masked["input_ids"][~asked], batch["input_ids"][~asked])
    assert torch.equal(masked["labels"][asked], batch["input_ids"][asked])
    assert not bool(torch.isin(masked["input_ids"][asked], torch.tensor([0, 1, 2, 3])).any())
    assert masked["labels"].dtype == torch.int64 and masked["attention_mask"] is batch["attention_mask"]
    assert all(torch.equal(before[name], batch[name]) for name in batch)


def test_masks_come_from_the_generator_or_the_global_one() -> None:
    batch = words(4, 50)
    torch.manual_seed(7)
    one = MASKER(batch)["labels"]
    assert not torch.equal(MASKER(batch)["labels"], one)
    state = torch.get_rng_state()
    assert torch.equal(MASKER(batch, torch.Generator().manual_seed(7))["labels"], one)
    assert torch.equal(torch.get_rng_state(), state)


def test_rows_without_a_word_are_left_out() -> None:
    """Row 1 is unknown words and row 3 padding alone; the others are asked for the same words in batches of any size."""
    ids = words(5, 12)["input_ids"]
    ids[1], ids[3] = 1, 0
    known = [0, 2, 4]
    together = list(masked_batches(packed_rows(ids), MASKER, 5))
    assert len(together) == 1 and bool((together[0]["labels"] >= 0).any(dim=1).all())
    assert torch.equal(torch.where(together[0]["labels"] >= 0, together[0]["labels"], together[0]["input_ids"]), ids[known])
    for size in (1, 2, 3):
        apart = list(masked_batches(packed_rows(ids), MASKER, size))
        assert all(torch.equal(torch.cat([batch[name] for batch in apart]), together[0][name]) for name in together[0])
    assert [len(batch["labels"]) for batch in masked_batches(packed_rows(ids), MASKER, 2, batches=2)] == [1, 1]
    with pytest.raises(UserError, match="no known word to mask"):
        list(masked_batches(packed_rows(ids[[1, 3]]), MASKER, 2))


def packed_rows(ids: torch.Tensor) -> Packed:
    """Sequences whose insides are these rows."""
    packed = Packed(ids[:, 1:-1].flatten().numpy().astype(np.uint16), ids.shape[1], first=2, last=3)
    ids[:, 0], ids[:, -1] = 2, 3
    return packed


def make_network(backbone: Backbone, seed: int = 0) -> Network:
    network = Network(teacher_spec(backbone.config, Head("mlm"))).eval()
    randomise(network, seed)
    return network


def test_logits_at_masked_places_are_those_of_the_whole_head(tiny_backbone: Backbone, tiny_corpus: Corpus) -> None:
    network = make_network(tiny_backbone)
    batch = tiny_corpus.masker(tiny_corpus.packed("train", 12).batch([0, 3, 5]), torch.Generator().manual_seed(0))
    whole = network(**batch)
    asked = batch["labels"] != -100
    table = network.stem.word.weight
    alone = masked_word_logits(network.head, whole["hidden_states"][-1], batch["labels"], table)
    assert alone.shape == (int(asked.sum()), tiny_backbone.config.vocabulary)
    torch.testing.assert_close(alone, whole["logits"][asked], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(masked_words_of(network)(batch), alone, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(masked_word_loss(alone, batch["labels"]), whole["loss"], rtol=1e-5, atol=1e-5)
    masked_word_loss(alone, batch["labels"]).backward()
    assert all(bool(p.grad is not None and p.grad.any()) for p in network.head.parameters())


def test_every_network_is_asked_for_the_same_words(tiny_backbone: Backbone, tiny_corpus: Corpus) -> None:
    packed, masker = tiny_corpus.packed("search", 12), tiny_corpus.masker
    state = torch.get_rng_state()
    together = {name: torch.cat([batch[name] for batch in masked_batches(packed, masker, 5)]) for name in ("input_ids", "labels")}
    for size in (1, 2, len(packed)):
        apart = list(masked_batches(packed, masker, size))
        assert all(torch.equal(torch.cat([batch[name] for batch in apart]), together[name]) for name in together)
    first = torch.cat([batch["labels"] for batch in masked_batches(packed, masker, 2, batches=2)])
    assert torch.equal(first, together["labels"][:4])
    other = torch.cat([batch["labels"] for batch in masked_batches(packed, masker, 5, seed=1)])
    assert not torch.equal(other, together["labels"])
    assert torch.equal(torch.get_rng_state(), state)
    network = make_network(tiny_backbone)
    logits = network(input_ids=together["input_ids"])["logits"].detach()
    asked = together["labels"] != -100
    found = evaluate_masked_words(masked_words_of(network), packed, masker, Hardware(), batch_size=3)
    assert found["log_likelihood"] == pytest.approx(-float(F.cross_entropy(logits[asked], together["labels"][asked])), rel=1e-5)
    assert found["masked_accuracy"] == pytest.approx(float((logits[asked].argmax(-1) == together["labels"][asked]).float().mean()))
    again = evaluate_masked_words(masked_words_of(network), packed, masker, Hardware(), batch_size=7)
    assert again == pytest.approx(found, rel=1e-5)
