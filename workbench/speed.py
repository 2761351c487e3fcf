"""How fast this machine multiplies matrices, and what that says of the time a plan takes: an estimate, and called so."""

from __future__ import annotations

import time

from methods.backbone import BackboneConfig

SHARE = 0.4
"""Of the rate of bare matrix products a training step reaches about this much (norms, activations, Python, the optimiser)."""
SECONDS = 0.5
TRIES = 400
TOKENS = 128
"""So few that a product ends before the system gives the processor to others."""


def matmul_rate(backbone: BackboneConfig, threads: int, precision: str = "fp32", seconds: float = SECONDS) -> float:
    """FLOPs per second of products of the sizes of the backbone's feed-forward layers on the CPU, in the experiment's `hardware.precision`.

    The fastest of TRIES, or of those that `seconds` allow, so that whoever else uses the machine does not count.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        states = torch.randn(TOKENS, backbone.hidden, dtype=dtype)
        weight = torch.randn(backbone.hidden, backbone.intermediate, dtype=dtype)
        with torch.inference_mode():
            torch.mm(states, weight)
            best, started = float("inf"), time.monotonic()
            for _ in range(TRIES):
                before_one = time.perf_counter()
                torch.mm(states, weight)
                best = min(best, time.perf_counter() - before_one)
                if time.monotonic() - started > seconds:
                    break
    finally:
        torch.set_num_threads(before)
    return 2.0 * TOKENS * backbone.hidden * backbone.intermediate / best


def duration(seconds: float) -> str:
    """A time in the largest units that matter: 40 s, 12 min, 3.5 h, 2.1 days."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:,.0f} days"
