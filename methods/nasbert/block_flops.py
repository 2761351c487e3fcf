"""What training and ranking paths of a block costs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from methods.backbone import BackboneConfig
from methods.costs import costs
from methods.layers.encoder import Link
from methods.nasbert.networks import teacher_spec
from methods.nasbert.paths import Paths
from methods.nasbert.space import NasBertSpace
from methods.tasks.head import Head


@dataclass(frozen=True)
class BlockFlops:
    """FLOPs of one text of a fixed length: of each operation (hidden sizes, operations), of the In or Out map (hidden sizes,), of the
    teacher without its head."""

    operations: npt.NDArray[np.int64]
    maps: npt.NDArray[np.int64]
    teacher: int

    @classmethod
    def of(cls, space: NasBertSpace, backbone: BackboneConfig, length: int) -> BlockFlops:
        """At texts of `length` tokens."""
        operations = space.tables(backbone, Head("mlm"), length).operation[:, :-1, 2]
        maps = np.array([Link(backbone.hidden, h).flops(length) for h in space.hidden_sizes])
        return cls(operations, maps, costs(teacher_spec(backbone, Head("none")), length).flops)

    def path(self, paths: Paths, number: int) -> int:
        """Of a text through a path and its In and Out maps."""
        hidden, names = paths.hidden[number], paths.operations[number]
        chosen = names[names < self.operations.shape[1]]
        return int(self.operations[hidden, chosen].sum() + 2 * self.maps[hidden])
