"""Budgets that no architecture can meet are refused before anything is trained or evaluated."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from methods.backbone import BackboneConfig
from methods.budget import Budget, amount
from methods.costs import Costs, costs
from methods.errors import UserError
from methods.space import Architecture, SearchSpace
from methods.tasks.head import Head
from search.strategies.strategy import CostOf

if TYPE_CHECKING:
    from methods.latency import LatencyTable
    from methods.network import NetworkSpec

_ROUNDING = 1e-9
"""Seconds do not add up exactly."""


def costs_on(spec: NetworkSpec, length: int, batch: int, devices: Mapping[str, LatencyTable]) -> Costs:
    """Costs of any network, latency on those devices whose tables have all its parts."""
    latency = {device: table.network(spec) for device, table in devices.items() if table.knows(spec)}
    return replace(costs(spec, length, batch), latency=latency)


def known_to_fit(budget: Budget, devices: Mapping[str, LatencyTable], length: int, batch: int, spec: NetworkSpec) -> bool:
    """Whether all that the budget limits is known of a network, and within the limits."""
    used = costs_on(spec, length, batch, devices)
    return budget.limits().keys() <= used.measured_against().keys() and budget.met_by(used)


@dataclass
class CostFunction:
    """Costs of the deployed form, latency on `devices` among them, each architecture's computed once; and the least that the space
    has of each."""

    space: SearchSpace
    backbone: BackboneConfig
    head: Head
    length: int = 128
    batch: int = 1
    devices: Mapping[str, LatencyTable] = field(default_factory=dict)
    _known: dict[Architecture, Costs] = field(default_factory=dict)

    def __call__(self, architecture: Architecture) -> Costs:
        if architecture not in self._known:
            spec = self.spec(architecture)
            latency = {device: table.network(spec) for device, table in self.devices.items()}
            self._known[architecture] = replace(costs(spec, self.length, self.batch), latency=latency)
        return self._known[architecture]

    def spec(self, architecture: Architecture) -> NetworkSpec:
        """The deployed network."""
        return self.space.spec(architecture, self.backbone, self.head)

    @cached_property
    def least(self) -> dict[str, float]:
        """The smallest value in the space of the cost that each limit speaks of; of latency where the space and the table can tell."""
        ranges = self.space.cost_range(self.backbone, self.head, self.length, self.batch)
        found = {name: least for name, (least, _) in ranges.items()}
        for device, table in self.devices.items():
            with suppress(UserError):  # it lacks a part of networks that need not be looked at
                fastest = self.space.fastest(table, self.backbone, self.head)
                if fastest is not None:
                    found[f"max_latency.{device}"] = table.network(self.spec(fastest))
        return found


def refuse_impossible(space: SearchSpace, budget: Budget, cost_of: CostOf) -> None:
    """Raises UserError, naming the limit and the smallest value that exists, where no architecture meets one of the limits. A cost
    function that does not know the space's least costs is asked for the smallest architecture's.

    Limits on latency of a device whose fastest network is not known are left to the search: the smallest one need not be the fastest.
    """
    known = isinstance(cost_of, CostFunction)
    least = cost_of.least if isinstance(cost_of, CostFunction) else cost_of(space.smallest()).measured_against()
    for name, limit in budget.limits().items():
        if not name.startswith("max_latency"):
            if least[name] > limit:
                needed = f"{limit:,.0f}, and the smallest network of {space.method} needs {least[name]:,.0f}"
                raise UserError(f"budget {budget.label()}: {name} is {needed}")
        elif known and least.get(name, 0.0) * (1 - _ROUNDING) > limit:
            needed = f"{amount(name, limit)}, and the fastest network of {space.method} takes {amount(name, least[name])}"
            raise UserError(f"budget {budget.label()}: {name} is {needed}")
