"""The settings of published latencies, by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from methods.errors import UserError


@dataclass(frozen=True)
class Scenario:
    """`batch` texts of `length` tokens on `device`; `runs` of each part and network (0: as many as the time allows)."""

    summary: str
    device: str
    batch: int
    length: int
    runs: int = 0


SCENARIOS: Mapping[str, Scenario] = MappingProxyType(
    {
        "paper-cpu": Scenario("one text of 128 tokens on the processor, as DynaBERT's paper times it", "cpu", 1, 128),
        "paper-gpu": Scenario(
            "100 batches of 128 texts of 128 tokens on a GPU, by CUDA events, as DynaBERT's paper times it", "cuda", 128, 128, 100
        ),
    }
)


def scenario(name: str) -> Scenario:
    """Raises UserError where there is none of that name, or where torch sees no GPU that it needs."""
    if name not in SCENARIOS:
        raise UserError(f"--scenario {name}: there is no such scenario; there are {', '.join(SCENARIOS)}")
    found = SCENARIOS[name]
    if found.device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise UserError(f"--scenario {name}: needs a GPU, and torch sees none here")
    return found
