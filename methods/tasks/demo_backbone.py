"""The embedded backbone: a small BERT with its own WordPiece vocabulary, pre-trained on sentences of the demo's language.

A sentence of the pre-training text begins with an exclamation that agrees with its verdict, and the masked language model has to
guess it: distant supervision, as by emoticons (Felbo et al. 2017). That is what carries over to the task. Fine-tuned on the demo's
rows, all four layers reach over 10 points more than from random weights. The encoder has seen the grammar of the task, so its
results say how the methods run, and nothing about other data.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from methods.backbone import BackboneConfig
from methods.tasks.batches import training_batches
from methods.tasks.demo_grammar import draw_pair, exclaimed

if TYPE_CHECKING:
    from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerBase

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
SHAPE: dict[str, Any] = {"hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 256}
STEPS = 1000
SIMPLE = 0.3
"""Part of the steps that read sentences of one clause only, first."""
BATCH = 32
RATE = 2e-3
MASKED = 0.15
"""Part of the words that are hidden: each a [MASK]."""
VOCABULARY_TEXTS = 2000


def make_demo_backbone(folder: Path, seed: int, steps: int = STEPS) -> None:
    """Trains tokenizer and encoder (half a minute on one core) and writes them in `transformers`' format, all at once, to `folder`.

    `steps`: of pre-training. The same for a seed and a number of threads; the caller's random state is left alone. What stood in
    `folder` is replaced.
    """
    rng = Random(f"backbone {seed}")
    tokenizer = _tokenizer(_sentences(VOCABULARY_TEXTS, rng))
    simple = int(SIMPLE * steps)
    parts = [_sentences(simple * BATCH, rng, simple=True), _sentences((steps - simple) * BATCH, rng)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _pretrained(_config(len(tokenizer)), tokenizer, parts, seed)
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    _save(model, tokenizer, partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def demo_config(seed: int) -> BackboneConfig:
    """The shape that `make_demo_backbone` gives the backbone, with nothing trained."""
    tokenizer = _tokenizer(_sentences(VOCABULARY_TEXTS, Random(f"backbone {seed}")))
    return BackboneConfig.from_transformers(_config(len(tokenizer)), "demo")


def _sentences(count: int, rng: Random, simple: bool = False) -> list[str]:
    """Opinions behind their exclamation; `simple`: of one clause."""
    texts: list[str] = []
    while len(texts) < count:
        pair = draw_pair(rng)
        if not simple or len(pair[0].clauses) == 1:
            texts.extend(map(exclaimed, pair))
    rng.shuffle(texts)
    return texts[:count]


def _tokenizer(texts: Sequence[str]) -> PreTrainedTokenizerBase:
    """A WordPiece tokenizer trained on the sentences, with the pieces that they use, and single characters for words to come.

    The trainer breaks ties at random, so the pieces on the way to a word differ from run to run; they are left out.
    """
    from tokenizers import BertWordPieceTokenizer
    from transformers import BertTokenizer

    trainer = BertWordPieceTokenizer()
    trainer.train_from_iterator(texts, vocab_size=1000, min_frequency=2, special_tokens=list(SPECIAL), show_progress=False)
    used = {piece for encoding in trainer.encode_batch(list(texts)) for piece in encoding.tokens}
    characters = {piece for piece in trainer.get_vocab() if len(piece.removeprefix("##")) == 1}
    pieces = [*SPECIAL, *sorted((used | characters) - set(SPECIAL))]
    return BertTokenizer(vocab={piece: number for number, piece in enumerate(pieces)}, model_max_length=128)


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


def _pretrained(config: BertConfig, tokenizer: PreTrainedTokenizerBase, parts: Sequence[list[str]], seed: int) -> BertForMaskedLM:
    """One pass over the parts in turn; the loss is that of the hidden words and that of the exclamation, added up."""
    from transformers import BertForMaskedLM

    model: BertForMaskedLM = BertForMaskedLM(config)
    batches = [batch for part in parts for batch in _batches(tokenizer, part, seed)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    steps = len(batches)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / (0.05 * steps), 2 * (1 - step / steps)))
    for input_ids in batches:
        hidden = (torch.rand(input_ids.shape) < MASKED) & (input_ids >= len(SPECIAL))
        hidden[:, 1] = True
        mask = (input_ids != tokenizer.pad_token_id).long()
        logits = model(input_ids.masked_fill(hidden, tokenizer.mask_token_id), attention_mask=mask).logits
        loss = F.cross_entropy(logits[hidden], input_ids[hidden]) + F.cross_entropy(logits[:, 1], input_ids[:, 1])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    model.eval()
    return model


def _batches(tokenizer: PreTrainedTokenizerBase, texts: list[str], seed: int) -> list[Tensor]:
    """Input ids (BATCH, longest), one pass."""
    if not texts:
        return []
    tokens = [torch.tensor(row) for row in tokenizer(texts)["input_ids"]]
    order = training_batches([len(row) for row in tokens], BATCH, seed, epoch=0)
    return [torch.nn.utils.rnn.pad_sequence([tokens[row] for row in batch], batch_first=True) for batch in order]


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
