"""AdaBERT (IJCAI 2020, arXiv 2001.04246): a task's own small network of convolution cells, found by differentiable search."""

from __future__ import annotations

from typing import TYPE_CHECKING

from methods.adabert.options import AdaBertOptions
from methods.registry import Method

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from methods.backbone import BackboneConfig
    from methods.recipe import Recipe
    from methods.space import SearchSpace
    from methods.supernet import Supernet
    from methods.tasks.batches import Collate
    from methods.tasks.head import Head


def _space(options: AdaBertOptions, backbone: BackboneConfig) -> SearchSpace:  # noqa: ARG001 (one signature for all methods)
    from methods.adabert.space import AdaBertSpace

    return AdaBertSpace(options)


def _supernet(space: SearchSpace, backbone: BackboneConfig, head: Head) -> Supernet:
    from methods.adabert.supernet import AdaBertSupernet

    return AdaBertSupernet(space, backbone, head)


def _recipe(options: AdaBertOptions) -> Recipe:
    from methods.adabert.recipe import AdaBertRecipe

    return AdaBertRecipe(options)


def _collate(tokenizer: PreTrainedTokenizerBase, max_length: int) -> Collate:
    from methods.tasks.batches import separate

    return separate(tokenizer, max_length)


METHOD = Method(
    name="adabert",
    summary="a stack of convolution cells per task, found by differentiable search with probes and an efficiency term",
    scope="task",
    options=AdaBertOptions,
    space=_space,
    supernet=_supernet,
    recipe=_recipe,
    collate=_collate,
)
