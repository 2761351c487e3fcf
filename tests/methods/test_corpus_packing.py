"""Packing: nothing is lost but the tail, whatever the documents, the length and the size of a batch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from methods.backbone import Backbone
from methods.corpus import documents as module
from methods.corpus.documents import Documents, tokenised, tokenizer_digest
from methods.corpus.packing import Packed
from methods.corpus.sources import BORDER, Text
from methods.errors import UserError
from tests.conftest import WORDS

SEP = 3
Paragraphs = st.lists(st.lists(st.sampled_from([*WORDS, "cast,", "\t"]), min_size=1, max_size=7).map(" ".join), max_size=4)


class Lines:
    """A source from memory: documents of paragraphs."""

    def __init__(self, documents: list[list[str]]) -> None:
        self.documents = documents

    def identity(self) -> dict[str, str]:
        return {"documents": repr(self.documents)}

    def splits(self, rows: int | None) -> dict[str, Text]:
        return {"train": Text(self._texts())}

    def _texts(self) -> Iterator[str]:
        for document in self.documents:
            yield from document
            yield BORDER


def read(documents: list[list[str]], backbone: Backbone) -> Documents:
    with TemporaryDirectory() as folder:
        return tokenised(Lines(documents), backbone.tokenizer, Path(folder), None, "lines")["train"]


@settings(deadline=None, max_examples=25)
@given(documents=st.lists(Paragraphs, min_size=1, max_size=6), batch=st.integers(8, 60))
def test_every_document_is_there_in_its_order(tiny_backbone: Backbone, documents: list[list[str]], batch: int) -> None:
    tokenizer = tiny_backbone.tokenizer
    ids = [[i for text in document for i in tokenizer(text, add_special_tokens=False)["input_ids"]] for document in documents]
    kept = [tokens for tokens in ids if tokens]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BATCH", batch)
        if not kept:
            with pytest.raises(UserError, match="train text of corpus 'lines' has no words"):
                read(documents, tiny_backbone)
            return
        found = read(documents, tiny_backbone)
    assert found.stream.tolist() == [token for tokens in kept for token in [*tokens, SEP]]
    assert found.starts.tolist() == np.cumsum([0, *(len(tokens) + 1 for tokens in kept)]).tolist()
    assert [found.joined(i, i + 1).tolist() for i in range(len(found))] == kept
    assert found.joined(0, len(found)).tolist() == found.stream[:-1].tolist()


@given(tokens=st.lists(st.integers(0, 65535), max_size=80), length=st.integers(3, 20), limit=st.none() | st.integers(1, 5))
def test_a_sequence_goes_on_where_the_one_before_ended(tokens: list[int], length: int, limit: int | None) -> None:
    packed = Packed(np.array(tokens, "<u2"), length, 2, SEP, limit)
    batch = packed.batch(range(len(packed)))
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (len(packed), length)
    assert bool((batch["input_ids"][:, 0] == 2).all() and (batch["input_ids"][:, -1] == SEP).all() and batch["attention_mask"].all())
    body = batch["input_ids"][:, 1:-1].flatten().tolist()
    assert body == tokens[: len(body)]
    assert len(tokens) - len(body) < length - 2 or len(packed) == limit
    assert packed.lengths.tolist() == [length] * len(packed)
    if len(packed) > 1:
        assert packed.batch([len(packed) - 1, 0])["input_ids"].tolist() == batch["input_ids"][[-1, 0]].tolist()
        with pytest.raises(IndexError):
            packed.batch([len(packed)])


def test_the_digest_is_that_of_tokens_and_length(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = np.arange(100, dtype="<u2")
    digest = Packed(tokens, 12, 2, 3).digest
    others = [Packed(tokens, 7, 2, 3), Packed(tokens, 12, 2, 4), Packed(tokens, 12, 2, 3, limit=9), Packed(tokens[::-1], 12, 2, 3)]
    assert len({digest, *(other.digest for other in others)}) == 5
    monkeypatch.setattr("methods.corpus.packing.HASHED", 7)
    assert Packed(tokens.astype("<u4"), 12, 2, 3, limit=10).digest == digest


@given(
    sizes=st.lists(st.integers(1, 400), min_size=3, max_size=60),
    share=st.floats(0.001, 0.49),
    left=st.integers(1, 2),
)
def test_as_few_documents_are_set_apart_as_hold_the_share(sizes: list[int], share: float, left: int) -> None:
    starts = np.cumsum([0, *sizes])
    documents = Documents(np.zeros(starts[-1], "<u2"), starts)
    place = documents.carve(len(sizes), share, left)
    wanted = max(share * starts[-1], min(510, starts[-1] / 10))
    assert left <= place < len(sizes)
    assert sum(sizes[place:]) >= wanted or place == left
    assert sum(sizes[place + 1 :]) < wanted


def test_special_tokens_in_a_text_are_text(tiny_backbone: Backbone) -> None:
    found = read([["good [MASK] film [SEP]"]], tiny_backbone)
    assert found.stream.tolist().count(SEP) == 1 and 4 not in found.stream


def test_the_tokenizer_stays_as_it_is_and_its_padding_is_no_part_of_its_digest(tiny_backbone: Backbone) -> None:
    tokenizer = tiny_backbone.tokenizer
    digest = tokenizer_digest(tokenizer)
    tokenizer(["good film", "bad"], padding="max_length", max_length=5, truncation=True)
    state = tokenizer.backend_tokenizer.to_str()
    found = read([["good " * 30], ["bad"]], tiny_backbone)
    assert len(found.stream) == 33 and tokenizer.backend_tokenizer.to_str() == state
    assert tokenizer_digest(tokenizer) == digest
