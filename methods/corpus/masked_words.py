"""The output layer at masked places alone: of 128 tokens with 30,522 logits each, 19 or so are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods.corpus.masking import IGNORED, SHARE, Masker, NoWordsError
from methods.costs import costs

if TYPE_CHECKING:
    from methods.corpus.packing import Packed
    from methods.network import Network, NetworkSpec
    from methods.recipe import Hardware

Batch = dict[str, Tensor]
Run = Callable[[Batch], Tensor]
"""From a masked batch to logits (M, V) of its M masked words, in the order of `labels[labels != -100]`."""


def word_flops(spec: NetworkSpec, length: int, share: float = SHARE) -> float:
    """FLOPs of one text of `length` tokens through a network whose output layer runs at that share of them alone."""
    return costs(spec, length).flops - (1 - share) * spec.head.flops(length)


def masked_word_logits(head: nn.Module, states: Tensor, labels: Tensor, table: Tensor) -> Tensor:
    """Logits (M, V) of the M places where `labels` (B, L) asks, from the last states (B, L, H).

    `head`: a MaskedLanguageModelHeadModule; `table` (V, width): its word table.
    """
    asked = labels != IGNORED
    logits: Tensor = head((states[asked],), asked, table)
    return logits


def masked_word_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy in nats of logits (M, V) and the M words that `labels` (B, L) asks for."""
    return F.cross_entropy(logits.float(), labels[labels != IGNORED])


def masked_words_of(network: Network) -> Run:
    """A stand-alone network with a masked-language-model head, its output layer applied to masked words alone."""

    def run(batch: Batch) -> Tensor:
        mask = batch["attention_mask"]
        states, _ = network.encoder(((network.stem(batch["input_ids"], mask, batch.get("token_type_ids")), mask),))
        return masked_word_logits(network.head, states[-1], batch["labels"], network.stem.word.weight)

    return run


def masked_batches(packed: Packed, masker: Masker, batch_size: int, batches: int = 0, seed: int = 0) -> Iterator[Batch]:
    """The first `batches` batches (0: all), masked row by row from `seed`: the same words for every `batch_size`, in every process.

    Rows without a known word are left out. Raises NoWordsError where all of them are.
    """
    generator, found = torch.Generator().manual_seed(seed), False
    rows = min(len(packed), batches * batch_size) if batches else len(packed)
    for start in range(0, rows, batch_size):
        masked = []
        for row in range(start, min(start + batch_size, rows)):
            with suppress(NoWordsError):
                masked.append(masker(packed.batch([row]), generator))
        if masked:
            found = True
            yield {name: torch.cat([batch[name] for batch in masked]) for name in masked[0]}
    if not found:
        raise NoWordsError


def evaluate_masked_words(
    run: Run, packed: Packed, masker: Masker, hardware: Hardware, batches: int = 0, batch_size: int = 32, seed: int = 0
) -> dict[str, float]:
    """`log_likelihood` (nats a masked word, larger is better) and `masked_accuracy` of the model behind `run`, which is in eval mode.

    `batches`: so many are read (0: all).
    """
    likelihood = right = words = 0.0
    with torch.inference_mode(), torch.autocast(hardware.device, torch.bfloat16, enabled=hardware.precision == "bf16"):
        for masked in masked_batches(packed, masker, batch_size, batches, seed):
            batch = {name: tensor.to(hardware.device) for name, tensor in masked.items()}
            logits, asked = run(batch).float(), batch["labels"][batch["labels"] != IGNORED]
            likelihood -= float(F.cross_entropy(logits, asked, reduction="sum"))
            right += float((logits.argmax(-1) == asked).sum())
            words += len(asked)
    return {"log_likelihood": likelihood / words, "masked_accuracy": right / words}
