"""Small NAS-BERT spaces, random supernets and batches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from hypothesis import settings
from torch import Tensor

from methods.backbone import BackboneConfig
from methods.nasbert.block_training import BlockwiseStep
from methods.nasbert.encoding import architecture_of
from methods.nasbert.space import NasBertSpace
from methods.nasbert.supernet import NasBertSupernet
from methods.space import Architecture
from methods.tasks.head import Head

CLASSES = Head("classification", 2)
PAPER = NasBertSpace()
TINY = BackboneConfig(
    vocabulary=60, positions=32, types=2, hidden=24, layers=4, heads=4, intermediate=40, dropout=0.0, attention_dropout=0.0
)
REFERENCE = [9, 11, 7, 0, 0, 0, 11, 11, 7, 0, 0, 0, 9, 7, 11, 0, 0, 0, 10, 7, 9, 0, 0, 0]
few = settings(max_examples=50, deadline=None, derandomize=True)


def small_space(**changes: object) -> NasBertSpace:
    """2 blocks of at most 2 operations."""
    sizes: dict[str, object] = {"sublayers": 4, "blocks": 2, "hidden_sizes": (8, 16), "operations": ("M", "F", "S3", "S5")}
    sizes |= {"embedding_sizes": (8, 16), "head_size": 8, "dropout": 0.0, "attention_dropout": 0.0, "backbone": TINY}
    return NasBertSpace(**{**sizes, **changes})  # type: ignore[arg-type]


def in_four(embedding: int, hidden: int, operations: str) -> Architecture:
    """A chain of operations of one width, spread over four blocks."""
    names = operations.split()
    quarter = len(names) / 4
    return architecture_of(embedding, [(hidden, names[round(b * quarter) : round((b + 1) * quarter)]) for b in range(4)])


def random_supernet(space: NasBertSpace, head: Head = CLASSES, seed: int = 0) -> NasBertSupernet:
    """Every parameter random, biases and norm gains too; eval mode."""
    supernet = NasBertSupernet(space, TINY, head)
    scramble(supernet, seed)
    return supernet.eval()


@torch.no_grad()
def scramble(module: torch.nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.copy_(1 + 0.3 * noise if "norm" in name and name.endswith("weight") else 0.3 * noise)


def ragged_batch(length: int = 9, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.tensor([[1] * n + [0] * (length - n) for n in (length, 5, 2)])
    ids = torch.randint(1, TINY.vocabulary, mask.shape, generator=generator) * mask
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.randint(0, 2, mask.shape, generator=generator) * mask}


@contextmanager
def drawn_paths() -> Iterator[list[int]]:
    """The numbers of the paths that block-wise training draws meanwhile, in order."""
    drawn: list[int] = []
    original = BlockwiseStep.path_number

    def remembered(self: BlockwiseStep, block: int) -> int:
        drawn.append(original(self, block))
        return drawn[-1]

    BlockwiseStep.path_number = remembered  # type: ignore[method-assign]
    try:
        yield drawn
    finally:
        BlockwiseStep.path_number = original  # type: ignore[method-assign]
