"""NAS-BERT's stages: planned here; training them is not part of this version."""

from __future__ import annotations

from typing import NoReturn

from methods.backbone import BackboneConfig
from methods.errors import UserError
from methods.nasbert.options import NasBertOptions
from methods.nasbert.plan import plan_stages
from methods.nasbert.space import NasBertSpace
from methods.network import Network
from methods.recipe import Context, Recipe, StagePlan
from methods.space import Architecture, SearchSpace
from methods.supernet import Supernet
from methods.tasks.head import Head


class NasBertRecipe(Recipe):
    """Corpus stages serve every task; fine-tuning is per task."""

    scope = "corpus"
    trainable = False

    def __init__(self, options: NasBertOptions) -> None:
        self.options = options

    def plan(self, space: SearchSpace, backbone: BackboneConfig, head: Head, rows: int, length: int) -> list[StagePlan]:
        if not isinstance(space, NasBertSpace):
            raise TypeError(f"NAS-BERT's recipe plans NAS-BERT's space, not {type(space).__name__}")
        return plan_stages(self.options, space, backbone, head, rows, length)

    def train(self, context: Context) -> Supernet:  # noqa: ARG002 (one signature)
        _untrained()

    def initial(self, context: Context) -> Supernet:  # noqa: ARG002 (one signature)
        _untrained()

    def finish(self, context: Context, supernet: Supernet, architecture: Architecture) -> Network:  # noqa: ARG002 (one signature)
        _untrained()


def _untrained() -> NoReturn:
    raise UserError(
        "nasbert: this version plans NAS-BERT and hosts it (space, costs, supernet with random weights), but does not train it yet;"
        " `dynabert` is the method that trains"
    )
