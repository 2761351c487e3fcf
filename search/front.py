"""What the search for a front of quality and costs asks for."""

from __future__ import annotations

from collections.abc import Sequence

from methods.budget import LIMITS, Budget
from methods.errors import UserError
from methods.space import SearchSpace
from search.strategies.strategy import CostOf


def refuse_unknown(objectives: Sequence[str], space: SearchSpace, cost_of: CostOf) -> None:
    """Raises UserError where an objective is no cost of the space's networks."""
    used = cost_of(space.smallest()).measured_against() if objectives else {}
    for name in objectives:
        if name not in used:
            raise UserError(f"search.objectives: no cost is known for {name!r}; for {space.method} there are {', '.join(used)}")


def widest(budgets: Sequence[Budget]) -> Budget:
    """The tightest limits within which everything lies that meets any of the budgets."""
    limits = [budget.limits() for budget in budgets]
    common = {name: max(each[name] for each in limits) for name in limits[0] if all(name in each for each in limits)}
    latency = {name.removeprefix("max_latency."): limit for name, limit in common.items() if name not in LIMITS}
    return Budget(common.get("max_params"), common.get("max_params_non_embedding"), common.get("max_flops"), latency)
