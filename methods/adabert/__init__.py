"""AdaBERT (IJCAI 2020, arXiv 2001.04246): a task's own small network of convolution cells, found by differentiable search."""

from methods.adabert.options import AdaBertOptions
from methods.registry import Method, lazily

METHOD = Method(
    name="adabert",
    summary="a stack of convolution cells per task, found by differentiable search with probes and an efficiency term",
    scope="task",
    options=AdaBertOptions,
    space=lazily("methods.adabert.space:space_of"),
    supernet=lazily("methods.adabert.supernet:AdaBertSupernet"),
    recipe=lazily("methods.adabert.recipe:AdaBertRecipe"),
    collate=lazily("methods.tasks.batches:separate"),
)
