"""Penalties on architecture parameters: zero-one (FairDARTS), entropy, beta-decay (Beta-DARTS)."""

from __future__ import annotations

from torch import Tensor

from methods.adabert.options import RemedyOptions
from methods.adabert.relaxation import Relaxation


def zero_one(logits: Tensor) -> Tensor:
    """Minus the mean squared distance of the sigmoids from a half (FairDARTS, equation 7): least where all are 0 or 1."""
    return -(logits.sigmoid() - 0.5).square().mean()


def mean_entropy(probabilities: Relaxation) -> Tensor:
    """Mean over the edges of the entropy in nats, and that of the depth, added up."""
    return sum((entropy(p).mean() for p in (probabilities.edges, probabilities.depth)), probabilities.depth.new_zeros(()))


def entropy(probabilities: Tensor) -> Tensor:
    """(...,) in nats of (..., n); 0 log 0 is 0."""
    return -(probabilities * probabilities.clamp_min(1e-30).log()).sum(-1)


def beta_decay(logits: Tensor) -> Tensor:
    """Mean over rows of logsumexp, which pulls the largest logits down the most (Beta-DARTS, equation 16)."""
    return logits.logsumexp(-1).mean()


def penalty(options: RemedyOptions, edge_logits: Tensor, probabilities: Relaxation, progress: float) -> Tensor:
    """The weighted sum of those that are on; entropy and beta-decay gain weight linearly over the search."""
    total = edge_logits.new_zeros(())
    if options.zero_one:
        total = total + options.zero_one * zero_one(edge_logits)
    if options.entropy:
        total = total + progress * options.entropy * mean_entropy(probabilities)
    if options.beta_decay:
        total = total + progress * options.beta_decay * beta_decay(edge_logits)
    return total
