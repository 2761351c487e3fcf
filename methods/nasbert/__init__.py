"""NAS-BERT (Xu et al., KDD 2021, arXiv 2105.14444): networks are single paths through blocks of candidate operations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from methods.nasbert.encoding import METHOD_NAME
from methods.nasbert.options import NasBertOptions
from methods.registry import Method

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from methods.backbone import BackboneConfig
    from methods.recipe import Recipe
    from methods.space import SearchSpace
    from methods.supernet import Supernet
    from methods.tasks.batches import Collate
    from methods.tasks.head import Head


def _space(options: Any, backbone: BackboneConfig) -> SearchSpace:
    from methods.nasbert.space import space_of

    return space_of(options, backbone)


def _supernet(space: SearchSpace, backbone: BackboneConfig, head: Head) -> Supernet:
    from methods.nasbert.supernet import NasBertSupernet

    return NasBertSupernet(space, backbone, head)


def _recipe(options: Any) -> Recipe:
    from methods.nasbert.recipe import NasBertRecipe

    return NasBertRecipe(options)


def _collate(tokenizer: PreTrainedTokenizerBase, max_length: int) -> Collate:
    from methods.tasks.batches import joint

    return joint(tokenizer, max_length)


METHOD = Method(
    name=METHOD_NAME,
    summary="paths of attention, feed-forward and separable convolution in blocks of their own widths, trained block by block on a corpus",
    scope="corpus",
    options=NasBertOptions,
    space=_space,
    supernet=_supernet,
    recipe=_recipe,
    collate=_collate,
)
