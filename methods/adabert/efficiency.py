"""The efficiency term (paper): the expected cost of the derived network, differentiable in all architecture parameters.

Weighted form: beta (K / Kmax) times the mean normalised cost of the edges that derivation keeps (a mean, as in the TensorFlow
re-release and the authors' code, so that beta = 4 prices a whole network of the dearest cells at 0.43 and not at six times that).
Budget form: a hinge on the relative overshoot over the limits of the exact expected costs, or of the costs of the network that would be
derived, whose weight rises while they are exceeded and falls while they are not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from methods.adabert.derivation import derive
from methods.adabert.expectation import kept_probabilities
from methods.adabert.options import CostLimits, LossOptions, OperationName
from methods.adabert.relaxation import Relaxation
from methods.adabert.space import AdaBertSpace
from methods.budget import Budget
from methods.costs import costs
from methods.errors import UserError

if TYPE_CHECKING:
    from methods.adabert.supernet import AdaBertSupernet

PER_ELEMENT = 3
"""Elementary steps per element of a pool, or of the ReLU and the norm beside a convolution; for normalisers only, reported FLOPs of a
pool are 0."""


def operation_costs(space: AdaBertSpace, options: LossOptions, length: int) -> Tensor:
    """(O,) float64 without zero: the normalised cost of each operation on an edge, for texts of `length`."""
    if options.operation_latency is not None:
        return _over_largest(_latencies(space, options.operation_latency))
    parts = list(space.parts["hosted"].values())
    elements = PER_ELEMENT * length * space.options.width
    parameters = torch.tensor([*(part.other_parameters() for part in parts), 0], dtype=torch.float64)
    steps = [part.flops(length) // 2 + (0 if part.kind == "cell_identity" else elements) for part in parts]
    work = torch.tensor([*steps, 0], dtype=torch.float64)
    if options.normaliser == "softmax":  # over all columns of an edge, zero too
        normalised = [(parameters / options.parameter_scale).softmax(0), (work / options.flops_scale).softmax(0)]
    elif options.normaliser == "max":
        normalised = [_over_largest(parameters), _over_largest(work)]
    else:
        everything = len(space.edges)
        normalised = [figure / (everything * figure.sum()).clamp_min(1) for figure in (parameters, work)]
    return (sum(normalised, torch.zeros_like(work)) / 2)[:-1]


def _latencies(space: AdaBertSpace, table: Mapping[OperationName, float]) -> Tensor:
    missing = [name for name in space.options.operations if name not in table]
    if missing:
        raise UserError(f"search.loss.operation_latency: lacks {', '.join(missing)}; every operation of the space needs one")
    return torch.tensor([table[name] for name in space.options.operations], dtype=torch.float64)


def _over_largest(figures: Tensor) -> Tensor:
    return figures / figures.max().clamp_min(1e-30)


def depth_share(depth: Tensor) -> Tensor:
    """Expected K over Kmax; `depth` (Kmax,) are probabilities."""
    return (depth * torch.arange(1, len(depth) + 1, device=depth.device)).sum() / len(depth)


class Efficiency:
    """The term of one search; `dual` is the hinge's weight in the budget form."""

    def __init__(self, supernet: AdaBertSupernet, options: LossOptions, length: int) -> None:
        self.supernet, self.options, self.dual = supernet, options, 0.0
        self.costs = operation_costs(supernet.space, options, length)
        if options.limits is not None:
            self._check_reachable(options.limits)

    def loss(self, probabilities: Relaxation) -> Tensor:
        """The weighted term, a scalar; 0 where it is off."""
        if self.options.efficiency == "off":
            return probabilities.depth.sum() * 0
        if self.options.efficiency == "budget":
            return self.dual * self.overshoot(probabilities).clamp_min(0)
        return self.options.beta * self.price(probabilities)

    def price(self, probabilities: Relaxation) -> Tensor:
        """(K / Kmax) times the mean expected normalised cost of a kept edge; shares of the supernet add up instead."""
        kept = kept_probabilities(self.supernet.space, probabilities.edges.double())
        cell = (kept * self.costs.to(kept.device)).sum()
        return depth_share(probabilities.depth.double()) * (cell if self.options.normaliser == "share" else cell / kept.sum())

    def overshoot(self, probabilities: Relaxation) -> Tensor:
        """Of the limit that is exceeded most (or nearest): cost / limit - 1. The gradient is that of the expected costs."""
        limits = self.options.limits
        assert limits is not None
        expected = self.supernet.expected_costs(probabilities, limits.length)
        costs_of = {"max_params": expected.parameters, "max_params_non_embedding": expected.other_parameters, "max_flops": expected.flops}
        if limits.of == "derived":
            exact = self._derived(probabilities, limits.length)
            costs_of = {name: cost - cost.detach() + exact[name] for name, cost in costs_of.items()}
        return torch.stack([costs_of[name] / limit - 1 for name, limit in _budget(limits).limits().items()]).max()

    @torch.no_grad()
    def _derived(self, probabilities: Relaxation, length: int) -> dict[str, float]:
        """Costs of the most probable network."""
        found = derive(self.supernet.space, probabilities.edges.log(), probabilities.depth.log())
        exact = costs(self.supernet.spec(found, "deployed"), length)
        return {"max_params": exact.parameters, "max_params_non_embedding": exact.other_parameters, "max_flops": exact.flops}

    @torch.no_grad()
    def ascend(self, probabilities: Relaxation) -> None:
        """One step of dual ascent on the hinge's weight."""
        limits = self.options.limits
        if limits is not None:
            self.dual = max(0.0, self.dual + limits.dual_rate * float(self.overshoot(probabilities)))

    def _check_reachable(self, limits: CostLimits) -> None:
        least = costs(self.supernet.spec(self.supernet.space.smallest(), "deployed"), limits.length)
        exceeded = [name for name, overshoot in _budget(limits).violations(least).items() if overshoot > 0]
        if exceeded:
            raise UserError(
                f"search.loss.limits: nothing meets {', '.join(exceeded)}: the smallest network of the space has {least.parameters:,} "
                f"parameters ({least.other_parameters:,} without embedding) and {least.flops:,} FLOPs at length {limits.length}"
            )


def _budget(limits: CostLimits) -> Budget:
    return Budget(limits.max_params, limits.max_params_non_embedding, limits.max_flops)
