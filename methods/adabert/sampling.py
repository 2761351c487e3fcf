"""From architecture parameters to weights: the samplers of differentiable search, and their temperature.

Each takes logits (rows, columns), a temperature and a generator on the CPU, and returns weights of that shape. A hard one's forward is
a one-hot; its gradient is that of a soft form (straight-through).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from methods.adabert.options import Temperature

Sampler = Callable[[Tensor, float, Generator], Tensor]
_TINY = 1e-30


def softmax(logits: Tensor, temperature: float, generator: Generator) -> Tensor:  # noqa: ARG001 (one signature)
    """All operations by their probability; nothing is drawn (DARTS)."""
    return (logits / temperature).softmax(-1)


def gumbel(logits: Tensor, temperature: float, generator: Generator) -> Tensor:
    """softmax((log p + g) / tau), g ~ Gumbel(0, 1) (SNAS)."""
    return ((logits.log_softmax(-1) + _gumbel_noise(logits, generator)) / temperature).softmax(-1)


def gumbel_st(logits: Tensor, temperature: float, generator: Generator) -> Tensor:
    """The largest one of `gumbel`'s weights as a one-hot, with the gradient of the weights (AdaBERT)."""
    soft = gumbel(logits, temperature, generator)
    return _one_hot(soft.argmax(-1), soft) + (soft - soft.detach())


def gdas(logits: Tensor, temperature: float, generator: Generator) -> Tensor:
    """As `gumbel_st`, but only the drawn operation's weight has a gradient, as where it alone is run (GDAS)."""
    soft = gumbel(logits, temperature, generator)
    return _one_hot(soft.argmax(-1), soft) * (1 + (soft - soft.detach()))


def dirichlet(logits: Tensor, temperature: float, generator: Generator) -> Tensor:  # noqa: ARG001
    """A draw from Dirichlet(elu(logits) + 1), reparametrised (DrNAS)."""
    concentration = concentrations(logits).cpu()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**62, (1,), generator=generator)))
        drawn: Tensor = torch.distributions.Dirichlet(concentration).rsample()
    return drawn.to(logits.device)


def sigmoid(logits: Tensor, temperature: float, generator: Generator) -> Tensor:  # noqa: ARG001
    """Each operation by itself; rows do not add up to 1 (FairDARTS)."""
    return (logits / temperature).sigmoid()


def reinmax(logits: Tensor, temperature: float, generator: Generator) -> Tensor:
    """A one-hot drawn from softmax(logits) with a second-order gradient (Liu et al. 2023, algorithm 2: Heun's method)."""
    plain, cooled = logits.softmax(-1), (logits / temperature).softmax(-1)
    drawn = _one_hot((logits.log_softmax(-1) + _gumbel_noise(logits, generator)).argmax(-1), plain)
    middle = ((drawn + cooled.detach()) / 2).clamp_min(_TINY).log()
    soft = 2 * ((middle - logits).detach() + logits).softmax(-1) - plain / 2
    return drawn + (soft - soft.detach())


SAMPLERS: dict[str, Sampler] = {sampler.__name__: sampler for sampler in (softmax, gumbel, gumbel_st, gdas, dirichlet, sigmoid, reinmax)}


def _gumbel_noise(logits: Tensor, generator: Generator) -> Tensor:
    noise = torch.empty(logits.shape).exponential_(generator=generator).clamp_min(_TINY)
    return -noise.log().to(logits.device, logits.dtype)


def _one_hot(places: Tensor, like: Tensor) -> Tensor:
    return F.one_hot(places, like.shape[-1]).to(like.dtype)


def concentrations(logits: Tensor) -> Tensor:
    """DrNAS' concentrations, above 0."""
    return (F.elu(logits) + 1).clamp_min(1e-6)


def means(logits: Tensor, sampler: str) -> Tensor:
    """The probabilities that a sampler gives logits (rows, columns), without temperature; rows add up to 1."""
    if sampler == "dirichlet":
        strengths = concentrations(logits)
    elif sampler == "sigmoid":
        strengths = logits.sigmoid()
    else:
        return logits.softmax(-1)
    return strengths / strengths.sum(-1, keepdim=True)


def temperature(options: Temperature, step: int, per_epoch: int, total: int) -> float:
    """tau at a step; see the options."""
    o = options
    progress = step / max(1, total - 1)
    if o.schedule == "constant":
        return o.start
    if o.schedule == "linear":
        return o.start + (o.end - o.start) * progress
    if o.rate is None:
        return float(o.start * (o.end / o.start) ** progress)
    return max(o.end, o.start * math.exp(-o.rate * (step // per_epoch)))
