"""What a network costs, from its spec alone: exact parameters and FLOPs.

Convention (printed with every table): 2 FLOPs per multiply-add in matrix products and convolutions; embedding look-up, pooling,
norms, softmax, activations and element-wise products 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from methods.network import NetworkSpec

CONVENTION = "2 FLOPs per multiply-add of matrix products and convolutions; embedding look-up, pooling, norms and softmax 0"


@dataclass(frozen=True)
class Costs:
    """Parameters (word, position and type tables apart as embedding) and FLOPs of one forward pass of `batch` texts of `length`.

    Seconds by device: `latency` as its table predicts them, `latency_measured` as the network was timed there, which then counts.
    """

    embedding_parameters: int
    other_parameters: int
    flops: int
    length: int = 128
    batch: int = 1
    latency: Mapping[str, float] = field(default_factory=dict)
    latency_measured: Mapping[str, float] = field(default_factory=dict)

    @property
    def parameters(self) -> int:
        return self.embedding_parameters + self.other_parameters

    def measured_against(self) -> dict[str, float]:
        """The cost that each limit of a `Budget` speaks of."""
        return {
            "max_params": self.parameters,
            "max_params_non_embedding": self.other_parameters,
            "max_flops": self.flops,
            **{f"max_latency.{device}": seconds for device, seconds in {**self.latency, **self.latency_measured}.items()},
        }


@dataclass(frozen=True)
class CostArrays:
    """Costs of n networks: int64 arrays of shape (n,)."""

    embedding_parameters: npt.NDArray[np.int64]
    other_parameters: npt.NDArray[np.int64]
    flops: npt.NDArray[np.int64]
    length: int = 128
    batch: int = 1

    @classmethod
    def of(cls, n: int, embedding: Any, other: Any, flops: Any, length: int, batch: int) -> CostArrays:
        """Broadcasts scalars to n; `flops` are those of one text."""

        def spread(value: Any) -> npt.NDArray[np.int64]:
            return np.broadcast_to(np.asarray(value, dtype=np.int64), (n,))

        return cls(spread(embedding), spread(other), spread(np.asarray(flops) * batch), length, batch)

    @property
    def parameters(self) -> npt.NDArray[np.int64]:
        return self.embedding_parameters + self.other_parameters

    def measured_against(self) -> dict[str, npt.NDArray[np.int64]]:
        """The cost arrays that each limit of a `Budget` speaks of."""
        return {"max_params": self.parameters, "max_params_non_embedding": self.other_parameters, "max_flops": self.flops}

    def __len__(self) -> int:
        return len(self.flops)

    def __getitem__(self, i: int) -> Costs:
        return Costs(int(self.embedding_parameters[i]), int(self.other_parameters[i]), int(self.flops[i]), self.length, self.batch)


def costs(spec: NetworkSpec, length: int = 128, batch: int = 1, embedding: Literal["lookup", "dense"] = "lookup") -> Costs:
    """Costs of a spec, exactly: parameters equal the sum of numel, FLOPs equal torch's counter with eager attention.

    `embedding="dense"` counts the look-up of word pieces as a product with one-hot vectors (2 V E per token), as ELECTRA's
    calculator does; only to reproduce published numbers (NAS-BERT, table 2).
    """
    flops = sum(part.flops(length) for part in spec.parts)
    if embedding == "dense":
        flops += 2 * spec.stem.vocabulary * spec.stem.width * length
    return Costs(
        embedding_parameters=sum(part.embedding_parameters() for part in spec.parts),
        other_parameters=sum(part.other_parameters() for part in spec.parts),
        flops=flops * batch,
        length=length,
        batch=batch,
    )
