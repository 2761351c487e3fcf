"""What word replacement will cost, from the cost model alone."""

from __future__ import annotations

from methods.backbone import BackboneConfig
from methods.costs import costs
from methods.dynabert.space import full_spec
from methods.recipe import StagePlan
from methods.tasks.head import Head
from methods.training.augmentation.building import STAGE
from methods.training.augmentation.options import AugmentationOptions

REPLACEABLE = 0.5
"""Of an English text's tokens so many are words that may be replaced, roughly; for estimates alone."""


def plan_augmentation(options: AugmentationOptions, backbone: BackboneConfig, head: Head, rows: int, length: int) -> StagePlan:
    """The copies of `rows` training rows of `length` tokens, as if all were different. Embeddings cost no FLOPs to speak of; a masked
    language model reads twice the text for every word that some copy replaces."""
    made = rows * options.copies_of_a_row(head.pair)
    spec = full_spec(backbone, Head("mlm"))
    memory = 4 * costs(spec).parameters
    if options.source == "embeddings":
        return StagePlan(STAGE, 0, made, 0.0, memory, note="neighbours of word embeddings")
    words = rows * length * REPLACEABLE * (1 - (1 - options.rate) ** options.copies)
    one = costs(spec, 2 * length).flops - spec.head.flops(2 * length) + spec.head.flops(1)
    return StagePlan(STAGE, 0, made, words * one, memory, note="at most: where a masked language model is at hand")
