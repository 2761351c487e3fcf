"""Losses between a teacher and a student."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from methods.training.processes import weighed


def soft_cross_entropy(student: Tensor, teacher: Tensor) -> Tensor:
    """-sum softmax(teacher) log softmax(student), mean over the batch; logits (B, C). Not reduced by the teacher's entropy.

    DynaBERT, equation 5.
    """
    return -(F.softmax(teacher.float(), dim=-1) * F.log_softmax(student.float(), dim=-1)).sum(-1).mean()


def soft_divergence(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """T^2 KL(softmax(teacher / T) || softmax(student / T)), mean over rows; logits (N, C).

    NAS-BERT, section 3.5; T^2 keeps the gradient's scale (Hinton et al. 2015, section 2).
    """
    s, t = (F.log_softmax(logits.float() / temperature, dim=-1) for logits in (student, teacher))
    return temperature**2 * F.kl_div(s, t, reduction="batchmean", log_target=True)


def hidden_loss(student: Sequence[Tensor], teacher: Sequence[Tensor], mask: Tensor, padded: bool = False) -> Tensor:
    """Sum over matched states (B, L, H) of their mean squared error.

    The mean is over tokens (of all processes) and features; `padded` counts padded positions too, as the reference code does. DynaBERT,
    equations 6, 7.
    """
    weights = torch.ones_like(mask, dtype=torch.float32) if padded else mask.float()
    tokens = weights.sum()
    terms = [((s.float() - t.float()).square() * weights[..., None]).sum() for s, t in zip(student, teacher, strict=True)]
    return weighed(torch.stack(terms).sum() / (tokens * student[0].shape[-1]), tokens, len(mask))
