"""What changes how an edge mixes its operations: auxiliary skip, operation dropout, partial channels."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from methods.adabert.cells import Mixing
from methods.adabert.options import SearchOptions


def mixing_at(options: SearchOptions, progress: float, width: int, generator: Generator, device: torch.device) -> Mixing:
    """How edges mix at this share of the search. The auxiliary skip (DARTS-) fades linearly from 1 to 0, dropout from its rate to 0;
    partial channels (PC-DARTS) are drawn anew each step, since operations keep their width and all channels ship."""
    remedies = options.remedies
    return Mixing(
        chosen=options.execution == "chosen",
        auxiliary_skip=1 - progress if remedies.auxiliary_skip else 0.0,
        dropped=remedies.operation_dropout * (1 - progress),
        channels=_channels(width, remedies.partial_channels, generator).to(device) if remedies.partial_channels > 1 else None,
    )


def _channels(width: int, part: int, generator: Generator) -> Tensor:
    """(width,) with 1 at max(1, width / part) channels."""
    chosen = torch.zeros(width)
    chosen[torch.randperm(width, generator=generator)[: max(1, width // part)]] = 1.0
    return chosen
