"""The canonical form of a NAS-BERT architecture and its short and reference spellings.

Choices are `{"embedding": E, "blocks": [{"hidden": h, "ops": ["S3", "M", ...]}, ...]}`. Operations: M (self-attention), F
(feed-forward), S3, S5, S7, ... (separable convolution of that kernel size). An identity is a shorter list.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from methods.space import Architecture

METHOD_NAME = "nasbert"
IDENTITY = "I"
REFERENCE_OPERATIONS = (IDENTITY, "M", "F", "S3", "S5", "S7")
PAPER_HIDDEN_SIZES = (128, 192, 256, 384, 512)
PAPER_OPERATIONS = ("M", "F", "S3", "S5", "S7")
PAPER_EMBEDDING_SIZES = (64, 128, 256, 384, 512)


def kernel_size(operation: str) -> int:
    """The kernel size of a separable convolution, 0 for M and F. Raises ValueError for any other name."""
    if operation in ("M", "F"):
        return 0
    match = re.fullmatch(r"S([1-9][0-9]*)", operation)
    if not match:
        raise ValueError(f"operation {operation!r} is unknown; there are M (attention), F (feed-forward) and S3, S5, S7, ... (convolution)")
    if int(match[1]) % 2 == 0:
        raise ValueError(f"operation {operation!r}: the kernel of a convolution that keeps the length is odd, such as S3")
    return int(match[1])


def compact(operations: Sequence[str]) -> list[str]:
    """Operations without the identities between them. Raises ValueError where nothing else is there."""
    kept = [name for name in operations if name != IDENTITY]
    if not kept:
        raise ValueError(f"a block of identities alone ({list(operations)}) is no block; it needs at least one operation")
    for name in kept:
        kernel_size(name)
    return kept


def architecture_of(embedding: int, blocks: Iterable[tuple[int, Sequence[str]]], method: str = METHOD_NAME) -> Architecture:
    """The canonical architecture of (hidden size, operations) per block; identities may stand anywhere."""
    genes = [{"hidden": int(hidden), "ops": compact(operations)} for hidden, operations in blocks]
    return Architecture.of(method, {"embedding": int(embedding), "blocks": genes})


def to_short(architecture: Architecture) -> str:
    """`E64|192:S3.S7.M|...`: the embedding size, then hidden size and operations of each block."""
    genes: dict[str, Any] = architecture.choices
    return "|".join([f"E{genes['embedding']}", *(f"{block['hidden']}:{'.'.join(block['ops'])}" for block in genes["blocks"])])


def from_short(text: str) -> Architecture:
    """The inverse of `to_short`. Raises ValueError where the text is not of that form."""
    embedding, *blocks = text.split("|")
    if not re.fullmatch(r"E[1-9][0-9]*", embedding) or not all(re.fullmatch(r"[1-9][0-9]*:[A-Z0-9.]+", block) for block in blocks):
        raise ValueError(f"{text!r} is no NAS-BERT architecture; one reads E64|192:S3.S7.M|192:F.M")
    pairs = (block.split(":") for block in blocks)
    return architecture_of(int(embedding[1:]), [(int(hidden), operations.split(".")) for hidden, operations in pairs])


def from_reference(
    integers: Sequence[int], embedding: int, blocks: int = 4, hidden_sizes: Sequence[int] = PAPER_HIDDEN_SIZES
) -> Architecture:
    """Decodes the integer string of the model's port in ML.NET: per sub-layer 6 x size index + {I, M, F, S3, S5, S7}.

    Raises ValueError where the sub-layers of a block differ in size, a number is out of range, or blocks do not divide them.
    """
    kinds = len(REFERENCE_OPERATIONS)
    if blocks < 1 or len(integers) % blocks or not integers:
        raise ValueError(f"{len(integers)} sub-layers do not divide into {blocks} blocks")
    if not all(0 <= i < kinds * len(hidden_sizes) for i in integers):
        raise ValueError(f"numbers run from 0 to {kinds * len(hidden_sizes) - 1}, got {list(integers)}")
    per_block = len(integers) // blocks
    pairs: list[tuple[int, list[str]]] = []
    for start in range(0, len(integers), per_block):
        group = [divmod(i, kinds) for i in integers[start : start + per_block]]
        sizes = {hidden_sizes[size] for size, kind in group if kind}
        if len(sizes) > 1:
            raise ValueError(f"block {len(pairs) + 1}: all sub-layers have one hidden size, got {sorted(sizes)}")
        pairs.append((sizes.pop() if sizes else 0, [REFERENCE_OPERATIONS[kind] for _, kind in group]))
    return architecture_of(embedding, pairs)


def check_sizes(
    sublayers: int,
    blocks: int,
    hidden_sizes: Sequence[int],
    operations: Sequence[str],
    embedding_sizes: Sequence[int],
    head_size: int,
) -> None:
    """Raises ValueError that names the key, its value and what would be right."""
    if blocks < 1 or sublayers < 1 or sublayers % blocks:
        raise ValueError(f"sublayers: {sublayers} do not divide into {blocks} blocks of equal length; choose a multiple of blocks")
    for key, values in (("hidden_sizes", hidden_sizes), ("embedding_sizes", embedding_sizes), ("operations", operations)):
        if not values or len(set(values)) != len(values):
            raise ValueError(f"{key}: at least one value and none twice, got {list(values)}")
    for key, sizes in (("hidden_sizes", hidden_sizes), ("embedding_sizes", embedding_sizes), ("head_size", (head_size,))):
        if min(sizes) < 1:
            raise ValueError(f"{key}: {min(sizes)} is no size; sizes are at least 1")
    for name in operations:
        kernel_size(name)
    odd = [h for h in hidden_sizes if h % head_size]
    if "M" in operations and odd:
        fitting = f"a head_size that divides all of {list(hidden_sizes)}"
        raise ValueError(f"hidden_sizes: {odd[0]} is no multiple of head_size {head_size}; choose {fitting}")
