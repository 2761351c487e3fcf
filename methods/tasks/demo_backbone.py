"""The embedded backbone: a small BERT with its own WordPiece vocabulary, pre-trained on unlabelled sentences of the demo's language.

What pre-training is worth here: fine-tuned on the demo's rows it gets a few points beyond the same network from random weights.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import torch

from methods.backbone import BackboneConfig
from methods.tasks.batches import training_batches
from methods.tasks.demo_grammar import draw_list, draw_pair

if TYPE_CHECKING:
    from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerBase

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
SHAPE: dict[str, Any] = {"hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 256}
STEPS = 1300
BATCH = 32
VOCABULARY_TEXTS = 2000
RATE = 2e-3
MASKED = 0.15
"""Part of the words that are hidden: each a [MASK]."""


def make_demo_backbone(folder: Path, seed: int, steps: int = STEPS) -> None:
    """Trains tokenizer and encoder (half a minute on one core) and writes them in `transformers`' format, all at once, to `folder`.

    `steps`: of pre-training. The same for a seed and a number of threads; the caller's random state is left alone. What stood in `folder` is replaced.
    """
    texts = _sentences(max(steps * BATCH, VOCABULARY_TEXTS), Random(f"backbone {seed}"))
    tokenizer = _tokenizer(texts[:VOCABULARY_TEXTS])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _pretrained(_config(len(tokenizer)), tokenizer, texts[: steps * BATCH], seed)
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    _save(model, tokenizer, partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def demo_config(seed: int) -> BackboneConfig:
    """The shape that `make_demo_backbone` gives the backbone, with nothing trained."""
    return BackboneConfig.from_transformers(_config(len(_tokenizer(_texts(seed)[:2000]))), "demo")


def _texts(seed: int) -> list[str]:
    return _sentences(STEPS * BATCH, Random(f"backbone {seed}"))


def _sentences(count: int, rng: Random) -> list[str]:
    """Opinions without their verdicts, and lists of words of one polarity."""
    texts: list[str] = []
    while len(texts) < count:
        texts.extend([draw_list(rng)] if rng.random() < 0.3 else map(str, draw_pair(rng)))
    rng.shuffle(texts)
    return texts[:count]


def _tokenizer(texts: Sequence[str]) -> PreTrainedTokenizerBase:
    """A WordPiece tokenizer trained on the sentences; pieces are numbered by name, so that nothing depends on the trainer's order."""
    from tokenizers import BertWordPieceTokenizer
    from transformers import BertTokenizer

    trainer = BertWordPieceTokenizer()
    trainer.train_from_iterator(texts, vocab_size=1000, min_frequency=2, special_tokens=list(SPECIAL), show_progress=False)
    pieces = sorted(set(trainer.get_vocab()) - set(SPECIAL))
    return BertTokenizer(vocab={piece: number for number, piece in enumerate([*SPECIAL, *pieces])}, model_max_length=128)


def _config(vocabulary: int) -> BertConfig:
    """The initial scale is larger than BERT's, as fits a small width; without dropout, which so small a network can't afford."""
    from transformers import BertConfig

    return BertConfig(
        vocab_size=vocabulary,
        max_position_embeddings=128,
        initializer_range=0.05,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        **SHAPE,
    )


def _pretrained(config: BertConfig, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], seed: int) -> BertForMaskedLM:
    """Masked language modelling, one pass over the texts (Devlin et al. 2019, section 3.1, every hidden word a [MASK])."""
    from transformers import BertForMaskedLM

    model: BertForMaskedLM = BertForMaskedLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.98), weight_decay=0.01)
    steps = len(texts) // BATCH
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / (0.05 * steps), 2 * (1 - step / steps)))
    tokens = tokenizer(list(texts), return_attention_mask=False, return_token_type_ids=False)["input_ids"]
    for batch in training_batches([len(row) for row in tokens], BATCH, seed, epoch=0):
        input_ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(tokens[row]) for row in batch], batch_first=True)
        hidden = (torch.rand(input_ids.shape) < MASKED) & (input_ids >= len(SPECIAL))
        loss = model(
            input_ids=input_ids.masked_fill(hidden, tokenizer.mask_token_id),
            attention_mask=(input_ids != tokenizer.pad_token_id).long(),
            labels=input_ids.masked_fill(~hidden, -100),
        ).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    model.eval()
    return model


def _save(model: BertForMaskedLM, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    from transformers.utils import logging

    active = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    finally:
        if active:
            logging.enable_progress_bar()
