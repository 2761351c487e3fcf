"""AdaBERT's stages (paper): probe the teacher, search, derive, fine-tune. This version plans them."""

from __future__ import annotations

from typing import cast

from methods.adabert.options import AdaBertOptions
from methods.adabert.plan import Plan
from methods.adabert.space import AdaBertSpace, check_head
from methods.backbone import BackboneConfig
from methods.errors import UserError
from methods.network import Network
from methods.recipe import Context, Recipe, StagePlan
from methods.space import Architecture, SearchSpace
from methods.supernet import Supernet
from methods.tasks.head import Head


class AdaBertRecipe(Recipe):
    """Per task. The stages are planned from the cost model; training them is refused."""

    scope = "task"
    trainable = False
    initial_name = "untrained"

    def __init__(self, options: AdaBertOptions) -> None:
        self.options = options

    def plan(self, space: SearchSpace, backbone: BackboneConfig, head: Head, rows: int, length: int) -> list[StagePlan]:
        """Teacher features, logits and probe logits are computed once per (augmented) row and kept; FLOPs of the search are those
        of all operations that run; the last stage is planned for the largest architecture, so it is an upper bound."""
        check_head(head)
        if length > backbone.positions:
            raise UserError(f"adabert: texts of {length} tokens are planned, the backbone has {backbone.positions} positions")
        plan = Plan(self.options, cast(AdaBertSpace, space), backbone, head, rows, length)
        return [plan.probes(), plan.search(), plan.derive(), plan.finish()]

    def train(self, context: Context) -> Supernet:  # noqa: ARG002
        raise _untrained()

    def initial(self, context: Context) -> Supernet:  # noqa: ARG002
        raise _untrained()

    def finish(self, context: Context, supernet: Supernet, architecture: Architecture) -> Network:  # noqa: ARG002
        raise _untrained()


def _untrained() -> UserError:
    return UserError(
        "methods: adabert is planned and hosted by this version (its space, costs and a randomly initialised supernet), "
        "but not trained yet; dynabert is trained: name it instead"
    )
