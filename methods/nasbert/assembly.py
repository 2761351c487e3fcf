"""Whole networks on masked words: assembled from the supernet's blocks, or pre-trained on their own (paper, section 3.4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from methods.corpus.masked_words import masked_word_logits
from methods.nasbert.ranking import block_error, on_device
from methods.recipe import Hardware

if TYPE_CHECKING:
    from methods.network import Network
    from methods.supernet import Batch

LastState = Callable[["Batch"], Tensor]
"""From a masked batch to the last state (B, L, H)."""


def last_state(network: Network) -> LastState:
    """Of a stand-alone network."""

    def run(batch: Batch) -> Tensor:
        mask = batch["attention_mask"]
        states, _ = network.encoder(((network.stem(batch["input_ids"], mask, batch.get("token_type_ids")), mask),))
        final: Tensor = states[-1]
        return final

    return run


@dataclass(frozen=True)
class MaskedWords:
    """Fixed masked batches, and where a teacher is given its last states on them, in the host's memory; the device holds one batch."""

    batches: Sequence[Batch]
    hardware: Hardware
    taught: Sequence[Tensor] = ()

    @classmethod
    def of(cls, batches: Sequence[Batch], hardware: Hardware, teacher: Network | None = None) -> MaskedWords:
        """The teacher runs once over the batches."""
        if teacher is None:
            return cls(batches, hardware)
        run = last_state(teacher.to(hardware.device).eval())
        with torch.inference_mode(), torch.autocast(hardware.device, torch.bfloat16, enabled=hardware.precision == "bf16"):
            return cls(batches, hardware, [run(on_device(batch, hardware)).cpu() for batch in batches])

    def score(self, run: LastState, head: torch.nn.Module, table: Tensor) -> dict[str, float]:
        """`log_likelihood` (mean over masked words, nats), `masked_accuracy`; with a teacher `negative_state_error`, less the mean squared
        error of the last state. `head`: the output layer for masked words, `table`: its word table (V, E)."""
        likelihood = right = words = error = tokens = 0.0
        with torch.inference_mode(), torch.autocast(self.hardware.device, torch.bfloat16, enabled=self.hardware.precision == "bf16"):
            for i, batch in enumerate(on_device(kept, self.hardware) for kept in self.batches):
                state, labels = run(batch), batch["labels"]
                logits = masked_word_logits(head, state, labels, table).float()
                asked = labels[labels >= 0]
                likelihood -= float(F.cross_entropy(logits, asked, reduction="sum"))
                right += float((logits.argmax(-1) == asked).sum())
                words += len(asked)
                if self.taught:
                    here = float(batch["attention_mask"].sum())
                    error += here * float(block_error(state, self.taught[i].to(state.device), batch["attention_mask"]))
                    tokens += here
        found = {"log_likelihood": likelihood / words, "masked_accuracy": right / words}
        return found | ({"negative_state_error": -error / tokens} if self.taught else {})
