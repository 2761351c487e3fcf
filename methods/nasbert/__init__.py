"""NAS-BERT (Xu et al., KDD 2021, arXiv 2105.14444): networks are single paths through blocks of candidate operations."""

from methods.nasbert.encoding import METHOD_NAME
from methods.nasbert.options import NasBertOptions
from methods.registry import Method, lazily

METHOD = Method(
    name=METHOD_NAME,
    summary="paths of attention, feed-forward and separable convolution in blocks of their own widths, trained block by block on a corpus",
    scope="corpus",
    options=NasBertOptions,
    space=lazily("methods.nasbert.space:space_of"),
    supernet=lazily("methods.nasbert.supernet:NasBertSupernet"),
    recipe=lazily("methods.nasbert.recipe:NasBertRecipe"),
    collate=lazily("methods.tasks.batches:joint"),
)
