"""From start and end logits to answers, and what an answer is worth by SQuAD's own rules (v1.1)."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

CANDIDATES = 20
LONGEST = 30
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def best_spans(logits: Tensor, context: Tensor) -> Tensor:
    """(B, 3) float32: sum of start and end logit, first and last token of each window's best span; the sum is -inf where there is none.

    `logits` (B, L, 2); `context` (B, L): where the tokens are the context's. Best of the pairs of the 20 likeliest starts and ends (of all
    tokens) that lie in the context, in order, and span at most 30 tokens: Devlin et al. 2019, released code; transformers' run_qa.
    """
    some = min(CANDIDATES, logits.shape[1])
    starts, ends = (logits[..., side].float().topk(some, dim=1) for side in (0, 1))
    tokens = ends.indices[:, None, :] - starts.indices[:, :, None] + 1
    inside = context.bool()
    inside = inside.gather(1, starts.indices)[:, :, None] & inside.gather(1, ends.indices)[:, None, :]
    sums = starts.values[:, :, None] + ends.values[:, None, :]
    sums = sums.masked_fill(~(inside & (tokens >= 1) & (tokens <= LONGEST)) | sums.isnan(), -torch.inf)
    best, place = sums.flatten(1).max(dim=1)
    first = starts.indices.gather(1, (place // some)[:, None])[:, 0]
    last = ends.indices.gather(1, (place % some)[:, None])[:, 0]
    return torch.stack([best, first.float(), last.float()], dim=1)


def normalised(text: str) -> str:
    """SQuAD's: lower case, without punctuation and articles, single spaces."""
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text.lower().translate(_PUNCTUATION)).split())


def answer_f1(answer: str, right: str) -> float:
    """The harmonic mean of precision and recall over words, as bags."""
    given, wanted = normalised(answer).split(), normalised(right).split()
    common = (Counter(given) & Counter(wanted)).total()
    return 2 * common / (len(given) + len(wanted)) if common else 0.0


def exact_match(answer: str, right: str) -> float:
    """1 where both are the same once normalised, else 0."""
    return float(normalised(answer) == normalised(right))


def scores(answer: str, right: Sequence[str]) -> tuple[float, float]:
    """F1 and exact match of an answer, each against the right answer that it is likest to (Rajpurkar et al. 2016, section 6.1)."""
    return max(answer_f1(answer, one) for one in right), max(exact_match(answer, one) for one in right)
