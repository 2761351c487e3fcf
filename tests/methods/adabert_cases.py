"""What the tests of AdaBERT share: small spaces, random supernets, ragged batches."""

from __future__ import annotations

import torch
from torch import Tensor

from methods.adabert.options import SpaceOptions
from methods.adabert.space import AdaBertSpace
from methods.adabert.supernet import AdaBertSupernet
from methods.tasks.head import Head
from tests.conformance.cases import TINY, randomise, text

PAIR = Head("classification", 3, pair=True)
SINGLE = Head("classification", 3)
SMALL = SpaceOptions(cells=3, nodes=2, width=12)
FEW = SpaceOptions(cells=2, nodes=2, width=6, operations=("conv_3", "max_pool_3"))


def supernet_of(options: SpaceOptions = SMALL, head: Head = PAIR, seed: int = 0) -> AdaBertSupernet:
    torch.manual_seed(seed)
    supernet = AdaBertSupernet(AdaBertSpace(options), TINY, head)
    randomise(supernet, seed)
    return supernet.eval()


def batch_of(head: Head = PAIR, length: int = 9, seed: int = 0) -> dict[str, Tensor]:
    """Four ragged texts; the second texts are in reverse order, so that each row's two masks differ."""
    generator = torch.Generator().manual_seed(seed)
    first, second = text(generator, length, TINY), text(generator, length, TINY)
    made = {name: first[name] for name in ("input_ids", "attention_mask")}
    return made | ({f"{name}_b": second[name].flip(0) for name in made} if head.pair else {})
