"""Words that a masked language model puts in the place of a word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from methods.corpus.masked_words import masked_words_of
from methods.corpus.masking import IGNORED
from methods.costs import costs
from methods.network import Network
from methods.recipe import Hardware
from methods.training.augmentation.words import Word

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BATCH = 64
Request = tuple[int, Word]
"""A text's number, and its word of one piece."""


@dataclass
class MaskedWordPredictor:
    """`network`: with an output layer for masked words, in eval mode; `words`: the pieces that may be predicted.

    The model reads the text with the word masked and, as second segment, the text as it is (as TinyBERT's code has it): what it puts
    there keeps the meaning. Where both do not fit into `positions` tokens it reads the masked text alone.
    """

    network: Network
    tokenizer: PreTrainedTokenizerBase
    words: Mapping[int, str]
    positions: int
    hardware: Hardware
    flops: float = field(default=0.0, init=False)
    """Of all predictions so far."""

    def predict(self, texts: Sequence[str], requests: Sequence[Request], count: int) -> list[tuple[str, ...]]:
        """For each request the `count` likeliest words, likeliest first, without the word itself; none for a word beyond the positions."""
        ids = self._encoded(texts)
        found: list[tuple[str, ...]] = [()] * len(requests)
        seen = [place for place, (row, word) in enumerate(requests) if word.token < len(ids[row][0]) - 1]
        seen.sort(key=lambda place: len(ids[requests[place][0]][0]))
        for start in range(0, len(seen), BATCH):
            group = seen[start : start + BATCH]
            predicted = self._predicted(ids, [requests[place] for place in group], count)
            for place, words in zip(group, predicted, strict=True):
                found[place] = words
        return found

    def _encoded(self, texts: Sequence[str]) -> list[tuple[list[int], list[int]]]:
        """Token ids and segments of each text beside itself, or alone where that is too long."""
        both = self.tokenizer(list(texts), list(texts), return_token_type_ids=True, return_attention_mask=False, verbose=False)
        rows = list(zip(both["input_ids"], both["token_type_ids"], strict=True))
        for row, (ids, _) in enumerate(rows):
            if len(ids) > self.positions:
                alone = self.tokenizer(texts[row], truncation=True, max_length=self.positions)["input_ids"]
                rows[row] = alone, [0] * len(alone)
        return rows

    @torch.inference_mode()
    def _predicted(self, ids: Sequence[tuple[list[int], list[int]]], requests: Sequence[Request], count: int) -> list[tuple[str, ...]]:
        batch = self._batch(ids, requests)
        length = batch["input_ids"].shape[1]
        spec = self.network.spec
        self.flops += len(requests) * (costs(spec, length).flops - spec.head.flops(length) + spec.head.flops(1))
        with torch.autocast(self.hardware.device, torch.bfloat16, enabled=self.hardware.precision == "bf16"):
            logits = masked_words_of(self.network)(batch).float()
        allowed = torch.full(logits.shape[-1:], -torch.inf, device=logits.device)
        allowed[torch.tensor(sorted(self.words), device=logits.device)] = 0.0
        logits = logits + allowed
        logits[range(len(requests)), [word.pieces[0] for _, word in requests]] = -torch.inf
        values, places = logits.topk(min(count, logits.shape[-1]))
        return [
            tuple(self.words[int(p)] for p in place[value > -torch.inf]) for value, place in zip(values.cpu(), places.cpu(), strict=True)
        ]

    def _batch(self, ids: Sequence[tuple[list[int], list[int]]], requests: Sequence[Request]) -> dict[str, Tensor]:
        """Padded inputs (B, L); `labels` ask for the one masked word of each row."""
        length = max(len(ids[row][0]) for row, _ in requests)
        shape = (len(requests), length)
        inputs = torch.full(shape, int(self.tokenizer.pad_token_id or 0))
        mask, segments = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape, dtype=torch.int64)
        labels = torch.full(shape, IGNORED)
        for place, (row, word) in enumerate(requests):
            own, types = ids[row]
            inputs[place, : len(own)], segments[place, : len(own)], mask[place, : len(own)] = torch.tensor(own), torch.tensor(types), 1
            inputs[place, word.token] = int(self.tokenizer.mask_token_id)
            labels[place, word.token] = word.pieces[0]
        batch = {"input_ids": inputs, "attention_mask": mask, "token_type_ids": segments, "labels": labels}
        if self.network.spec.stem.types < 2:
            batch["token_type_ids"] = torch.zeros_like(segments)
        return {name: tensor.to(self.hardware.device) for name, tensor in batch.items()}
