"""What steps the weights, and beside them the architecture parameters: an optimiser each, with clipping and learning rate of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import nn

from methods.adabert.options import ArchitectureOptimiser, Optimiser
from methods.training.loop import MakeStepper


def learning_rate(options: Optimiser, step: int, total: int) -> float:
    """At a step: from `learning_rate` to `final_learning_rate` by the schedule."""
    o, progress = options, min(1.0, step / max(1, total - 1))
    if o.schedule == "constant":
        return o.learning_rate
    fallen = (1 - math.cos(math.pi * progress)) / 2 if o.schedule == "cosine" else progress
    return o.learning_rate + (o.final_learning_rate - o.learning_rate) * fallen


_LARGE = 1_000_000


class WeightStepper:
    """SGD with momentum, Adam or AdamW on parameters, as the options say, over `total` steps."""

    def __init__(self, parameters: Sequence[nn.Parameter], options: Optimiser, total: int) -> None:
        o, self.total, self.done = options, total, 0
        self.options, self.parameters = options, list(parameters)
        self.optimizer: torch.optim.Optimizer
        if o.name == "sgd":
            self.optimizer = torch.optim.SGD(_groups(self.parameters), o.learning_rate, momentum=o.beta1, weight_decay=o.weight_decay)
        else:
            make = torch.optim.Adam if o.name == "adam" else torch.optim.AdamW
            self.optimizer = make(_groups(self.parameters), o.learning_rate, (o.beta1, o.beta2), weight_decay=o.weight_decay)

    @property
    def rate(self) -> float:
        """The learning rate of the next step."""
        return learning_rate(self.options, self.done, self.total)

    @property
    def weight_decay(self) -> float:
        return float(self.optimizer.param_groups[0]["weight_decay"])

    @weight_decay.setter
    def weight_decay(self, value: float) -> None:
        for group in self.optimizer.param_groups:
            group["weight_decay"] = value

    def step(self) -> None:
        torch.nn.utils.clip_grad_norm_(self.parameters, self.options.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate
        self.optimizer.step()
        self.done += 1

    def state_dict(self) -> dict[str, Any]:
        return {"optimizer": self.optimizer.state_dict(), "done": self.done}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state_dict["optimizer"])
        self.done = state_dict["done"]


def _groups(parameters: Sequence[nn.Parameter]) -> list[dict[str, Any]]:
    """Each table of words by itself, stepped in one pass over its memory: most of a step's time otherwise. The fused form can't take
    parameters together of which some have had no gradient yet."""
    tables = [parameter for parameter in parameters if parameter.numel() >= _LARGE]
    small = [parameter for parameter in parameters if parameter.numel() < _LARGE]
    return [*({"params": [table], "fused": True} for table in tables), *([{"params": small}] if small else [])]


def stepping(options: Optimiser) -> MakeStepper:
    """A `Loop`'s stepper of all parameters of its model."""
    return lambda model, total: WeightStepper(list(model.parameters()), options, total)


class SearchStepper:
    """Weights and architecture parameters; these rest, undecayed, in steps that left them no gradient."""

    def __init__(
        self, weights: Sequence[nn.Parameter], alpha: Sequence[nn.Parameter], own: Optimiser, theirs: ArchitectureOptimiser, total: int
    ) -> None:
        o = theirs
        self.weights, self.alpha, self.clip = WeightStepper(weights, own, total), list(alpha), o.clip
        self.adam = torch.optim.Adam(self.alpha, o.learning_rate, (o.beta1, o.beta2), weight_decay=o.weight_decay)

    def step(self) -> None:
        torch.nn.utils.clip_grad_norm_(self.alpha, self.clip)
        self.adam.step()
        self.weights.step()

    def state_dict(self) -> dict[str, Any]:
        return {"weights": self.weights.state_dict(), "architecture": self.adam.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.weights.load_state_dict(cast(dict[str, Any], state_dict["weights"]))
        self.adam.load_state_dict(cast(dict[str, Any], state_dict["architecture"]))
