"""Masked words: which tokens a network has to guess (BERT, Devlin et al. 2019, section 3.1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from methods.errors import UserError

IGNORED = -100
"""The label of a token that nobody asks for, as in `torch.nn.functional.cross_entropy`."""
SHARE = 0.15
"""Of all words so many are chosen."""
REPLACED, KEPT = 0.8, 0.1
"""Of the chosen words so many become [MASK] and so many stay as they are; the rest become another word."""


class NoWordsError(UserError):
    """Special tokens alone, of which nothing can be asked."""

    def __init__(self) -> None:
        super().__init__("corpus: a batch has no known word to mask; the backbone's tokenizer must know the words of the text")


@dataclass(frozen=True)
class Masker:
    """Chooses each word of a batch with chance `share`; special tokens and padding are neither chosen nor drawn as another word.

    `vocabulary`: token ids are below it.
    """

    mask_id: int
    vocabulary: int
    special_ids: tuple[int, ...]
    share: float = SHARE

    def __call__(self, batch: Mapping[str, Tensor], generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The batch with masked `input_ids` and with `labels` (B, L) int64: the word where it is asked for, -100 elsewhere.

        At least one word is chosen. Drawn from `generator`, or from torch's global one of the CPU, so that a seed gives the same masks
        on every device. Raises NoWordsError where the batch has special tokens alone.
        """
        ids = batch["input_ids"]
        device = torch.device("cpu") if generator is None else generator.device
        draws = torch.rand(2, *ids.shape, generator=generator, device=device).to(ids.device)
        places = torch.randint(len(self._words), ids.shape, generator=generator, device=device)
        chosen = self._chosen(draws[0], self._maskable(batch))
        others = self._words.to(device)[places].to(ids.device)
        masked = torch.where(draws[1] < REPLACED, self.mask_id, torch.where(draws[1] < 1 - KEPT, others, ids))
        return {**batch, "input_ids": torch.where(chosen, masked, ids), "labels": torch.where(chosen, ids, IGNORED)}

    def _maskable(self, batch: Mapping[str, Tensor]) -> Tensor:
        ids = batch["input_ids"]
        words = ~torch.isin(ids, torch.tensor(self.special_ids, device=ids.device))
        return words & batch["attention_mask"].bool() if "attention_mask" in batch else words

    def _chosen(self, draw: Tensor, maskable: Tensor) -> Tensor:
        """(B, L): where `draw` is below `share`; the place of the smallest draw where that is nowhere."""
        draw = torch.where(maskable, draw, torch.inf)
        chosen = draw < self.share
        if not chosen.any():
            if not maskable.any():
                raise NoWordsError
            chosen.view(-1)[draw.argmin()] = True
        return chosen

    @cached_property
    def _words(self) -> Tensor:
        """The ids (n,) of all that is no special token."""
        ids = torch.arange(self.vocabulary)
        return ids[~torch.isin(ids, torch.tensor(self.special_ids))]
