"""Hand-made networks: whole layers, one hidden size, evenly over the blocks."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from methods.nasbert.encoding import to_short
from methods.nasbert.space import NasBertSpace


def test_by_hand() -> None:
    space = NasBertSpace(6, 2, (64, 128), ("M", "F", "S3"), (64,))
    found = [to_short(a) for a in space.hand_made(space.smallest())]
    one = ["E64|64:M|64:F", "E64|64:M.F|64:M.F", "E64|64:M.F.M|64:F.M.F"]
    assert found == [*one, *(text.replace("|64:", "|128:") for text in one)]


@given(st.integers(1, 4), st.integers(1, 6), st.integers(0, 99))
def test_every_one_is_in_the_space_and_made_of_layers(blocks: int, per_block: int, seed: int) -> None:
    space = NasBertSpace(blocks * per_block, blocks, (64, 192), ("S3", "F", "M"), (64, 128))
    like = space.sample(random.Random(seed))
    for architecture in space.hand_made(like):
        genes = architecture.choices
        assert space.contains(architecture) and genes["embedding"] == like.choices["embedding"]
        operations = [name for block in genes["blocks"] for name in block["ops"]]
        assert operations == ["M", "F"] * (len(operations) // 2) and len({block["hidden"] for block in genes["blocks"]}) == 1
        lengths = [len(block["ops"]) for block in genes["blocks"]]
        assert lengths == sorted(lengths, reverse=True) and max(lengths) - min(lengths) <= 1


def test_none_without_attention() -> None:
    space = NasBertSpace(4, 2, (64,), ("S3", "F"), (64,))
    assert space.hand_made(space.smallest()) == ()
