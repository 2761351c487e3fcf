"""Hand-made networks of the space: BERTs of several sizes, beside which a found network must show its worth."""

from __future__ import annotations

from collections.abc import Sequence

from methods.nasbert.encoding import METHOD_NAME, architecture_of
from methods.space import Architecture

LAYER = ("M", "F")


def hand_made(
    blocks: int, per_block: int, hidden_sizes: Sequence[int], operations: Sequence[str], embedding: int, method: str = METHOD_NAME
) -> tuple[Architecture, ...]:
    """Attention and feed-forward in turn, whole layers of them, one hidden size; spread evenly over the blocks, the first ones fuller.

    Every hidden size and depth; no block is empty. None where the space lacks one of the two operations.
    """
    if not set(LAYER) <= set(operations):
        return ()
    depths = range(blocks + blocks % 2, blocks * per_block + 1, 2)
    return tuple(architecture_of(embedding, spread(depth, blocks, hidden), method) for hidden in hidden_sizes for depth in depths)


def spread(depth: int, blocks: int, hidden: int) -> list[tuple[int, list[str]]]:
    """Hidden size and operations of each block, `depth` operations in all."""
    found, place = [], 0
    for block in range(blocks):
        size = depth // blocks + (block < depth % blocks)
        found.append((hidden, [LAYER[i % 2] for i in range(place, place + size)]))
        place += size
    return found
