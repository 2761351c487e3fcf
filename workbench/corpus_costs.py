"""What networks cost that are to serve several tasks: counted with the dearest output layer."""

from __future__ import annotations

from collections.abc import Iterable

from methods.backbone import BackboneConfig
from methods.costs import costs
from methods.space import SearchSpace
from methods.tasks.head import Head
from workbench.experiment import TaskOptions


def dearest(space: SearchSpace, backbone: BackboneConfig, tasks: Iterable[TaskOptions], length: int) -> Head:
    """The tasks' head that costs most; heads differ in their last matrix alone, so it is the same for every architecture."""
    smallest = space.smallest()

    def used(head: Head) -> tuple[int, int]:
        found = costs(space.spec(smallest, backbone, head), length)
        return found.parameters, found.flops

    return max((options.spec.head for options in tasks), key=used)
