"""The supernets that the conformance battery is run on: a new method joins by one line in `CASES`."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from methods import registry
from methods.adabert.relaxation import one_hot
from methods.backbone import BackboneConfig
from methods.space import Architecture, SearchSpace
from methods.supernet import Supernet
from methods.tasks.head import Head

TINY = BackboneConfig(
    vocabulary=50, positions=40, types=2, hidden=24, layers=6, heads=4, intermediate=40, dropout=0.0, attention_dropout=0.0
)
ROBERTA = replace(TINY, types=1, layer_norm_eps=1e-5, padding_id=1, family="roberta")
CLASSES = Head("classification", 3)
NASBERT = {"sublayers": 6, "blocks": 3, "hidden_sizes": [8, 16], "head_size": 8, "embedding_sizes": [8, 16]}
ADABERT = {"cells": 3, "nodes": 2, "width": 12}


@dataclass(frozen=True)
class Case:
    """A method with options, on a tiny backbone, under a head. `apart`: its collate hands over two texts of a pair apart."""

    name: str
    method: str
    options: Mapping[str, Any] = field(default_factory=dict)
    head: Head = CLASSES
    backbone: BackboneConfig = TINY
    apart: bool = False
    certain: Callable[[Any, Architecture], Any] | None = None
    """For methods with architecture parameters: the probabilities that leave no doubt about an architecture (law 8)."""

    def space(self) -> SearchSpace:
        method = registry.get(self.method)
        return method.space(method.options(**self.options), self.backbone)

    def supernet(self, seed: int = 0) -> Supernet:
        """A supernet with every parameter and buffer random, in eval mode."""
        torch.manual_seed(seed)
        supernet = registry.get(self.method).supernet(self.space(), self.backbone, self.head)
        randomise(supernet, seed)
        return supernet.eval()

    def batch(self, seed: int = 0, length: int = 11) -> dict[str, Tensor]:
        """Four ragged texts (pairs where the case reads two apart), the longest of the full length."""
        generator = torch.Generator().manual_seed(seed)
        made = text(generator, length, self.backbone)
        if self.apart:
            second = text(generator, length, self.backbone)
            return {
                "input_ids": made["input_ids"],
                "attention_mask": made["attention_mask"],
                "input_ids_b": second["input_ids"],
                "attention_mask_b": second["attention_mask"],
            }
        return made


def text(generator: torch.Generator, length: int, backbone: BackboneConfig) -> dict[str, Tensor]:
    """A ragged batch of four: ids, mask, types."""
    lengths = [length, length - 1, max(2, length // 2), 2]
    mask = torch.tensor([[1] * n + [0] * (length - n) for n in lengths])
    ids = torch.randint(1, backbone.vocabulary, (4, length), generator=generator) * mask
    types = torch.randint(0, backbone.types, (4, length), generator=generator) * mask
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}


@torch.no_grad()
def randomise(module: nn.Module, seed: int) -> None:
    """Random biases and norm gains too: default initialisation hides mistakes of slicing."""
    generator = torch.Generator().manual_seed(seed + 1)
    for name, tensor in module.state_dict().items():
        if not tensor.is_floating_point():
            continue
        noise = torch.randn(tensor.shape, generator=generator)
        scale = 0.3 if tensor.ndim < 2 else 1.5 / tensor[0].numel() ** 0.5
        if "running_var" in name:
            tensor.copy_(1.0 + 0.5 * noise.abs())
        elif "norm" in name and name.endswith("weight"):
            tensor.copy_(1.0 + scale * noise)
        else:
            tensor.copy_(scale * noise)


def architectures(space: SearchSpace, count: int, seed: int = 0) -> list[Architecture]:
    """Smallest, largest and random ones."""
    rng = random.Random(seed)
    return list(dict.fromkeys([space.smallest(), space.largest(), *(space.sample(rng) for _ in range(count))]))


CASES = [
    Case("dynabert", "dynabert"),
    Case("dynabert-keep-top", "dynabert", {"depth_rule": "keep_top", "widths": [0.25, 0.5, 1.0], "depths": [0.34, 0.67, 1.0]}),
    Case("dynabert-elastic", "dynabert", {"space": "elastic"}),
    Case("dynabert-regression", "dynabert", head=Head("regression", 1, pair=True)),
    Case("dynabert-span", "dynabert", head=Head("span")),
    Case("dynabert-mlm", "dynabert", head=Head("mlm")),
    Case("dynabert-roberta", "dynabert", backbone=ROBERTA),
    Case("nasbert", "nasbert", NASBERT),
    Case("nasbert-span", "nasbert", NASBERT, head=Head("span", pair=True)),
    Case("nasbert-regression", "nasbert", NASBERT, head=Head("regression", 1)),
    Case("adabert", "adabert", ADABERT, certain=one_hot),
    Case("adabert-pair", "adabert", ADABERT, head=Head("classification", 2, pair=True), apart=True, certain=one_hot),
]
