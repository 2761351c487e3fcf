"""Budgets that no architecture can meet are refused before anything is trained or evaluated."""

from __future__ import annotations

from methods.backbone import BackboneConfig
from methods.budget import Budget
from methods.costs import Costs, costs
from methods.errors import UserError
from methods.space import Architecture, SearchSpace
from methods.tasks.head import Head
from search.strategies.strategy import CostOf


def cost_function(space: SearchSpace, backbone: BackboneConfig, head: Head, length: int = 128, batch: int = 1) -> CostOf:
    """Costs of the deployed form, each architecture's computed once."""
    known: dict[Architecture, Costs] = {}

    def cost_of(architecture: Architecture) -> Costs:
        if architecture not in known:
            known[architecture] = costs(space.spec(architecture, backbone, head), length, batch)
        return known[architecture]

    return cost_of


def check_budget(space: SearchSpace, budget: Budget, backbone: BackboneConfig, head: Head, length: int = 128, batch: int = 1) -> None:
    """Raises UserError, naming the limit and the smallest value that exists, where not even the smallest architecture fits."""
    refuse_impossible(space, budget, cost_function(space, backbone, head, length, batch))


def refuse_impossible(space: SearchSpace, budget: Budget, cost_of: CostOf) -> None:
    """`check_budget` with a cost function. A latency limit is left to the search: the smallest network need not be the fastest."""
    least = cost_of(space.smallest()).measured_against()
    for name, limit in budget.limits().items():
        if not name.startswith("max_latency") and least[name] > limit:
            raise UserError(
                f"budget {budget.label()}: {name} is {limit:,.0f}, and the smallest network of {space.method} needs {least[name]:,.0f}"
            )
