"""Words like a word, by the cosine of their embeddings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

BLOCK = 256
"""Words whose similarities to the whole vocabulary are in memory at a time."""
Pieces = tuple[int, ...]


@torch.inference_mode()
def nearest_words(
    table: Tensor, words: Mapping[int, str], wanted: Sequence[Pieces], count: int, done: Callable[[int], object] = lambda _: None
) -> dict[Pieces, tuple[str, ...]]:
    """For each word of `wanted` (its pieces) the `count` nearest of `words`, nearest first; its own pieces are never among them.

    `table` (V, H): the embeddings. A word of several pieces stands where the mean of its pieces' embeddings does.
    `done` hears how many words were looked up since it was last called.
    """
    ids = torch.tensor(sorted(words), device=table.device)
    column = {number: place for place, number in enumerate(ids.tolist())}
    names = [words[number] for number in column]
    directions = F.normalize(table[ids].float(), dim=-1).T
    count = min(count, len(ids))
    found: dict[Pieces, tuple[str, ...]] = {}
    for start in range(0, len(wanted), BLOCK):
        block = wanted[start : start + BLOCK]
        means = torch.stack([table[torch.tensor(pieces, device=table.device)].float().mean(0) for pieces in block])
        likeness = F.normalize(means, dim=-1) @ directions
        for row, pieces in enumerate(block):
            likeness[row, [column[piece] for piece in pieces if piece in column]] = -torch.inf
        values, places = (part.cpu() for part in likeness.topk(count))
        for pieces, value, place in zip(block, values, places, strict=True):
            found[pieces] = tuple(names[p] for p in place[value > -torch.inf].tolist())
        done(len(block))
    return found
