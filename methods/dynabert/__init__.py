"""DynaBERT (Hou et al., NeurIPS 2020, arXiv 2004.04037): sub-networks of adaptive width and depth that share weights by prefix."""

from __future__ import annotations

from methods.dynabert.options import DynaBertOptions
from methods.dynabert.recipe import DynaBertRecipe
from methods.dynabert.space import METHOD_NAME
from methods.dynabert.supernet import DynaBertSupernet
from methods.registry import Method
from methods.tasks.batches import joint

METHOD = Method(
    name=METHOD_NAME,
    summary="one fine-tuned BERT whose heads, neurons and layers can be cut to any listed width and depth (slices of shared weights)",
    scope="task",
    options=DynaBertOptions,
    space=lambda options, backbone: DynaBertRecipe(options).space(backbone),
    supernet=DynaBertSupernet,
    recipe=DynaBertRecipe,
    collate=joint,
)
