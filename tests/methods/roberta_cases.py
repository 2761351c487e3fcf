"""A tiny RoBERTa on disk, as transformers saves it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedModel, RobertaConfig, RobertaForSequenceClassification, RobertaTokenizer

from tests.conformance.cases import randomise
from tests.conftest import WORDS

SHAPE: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 66,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-5,
}


def make_tokenizer() -> RobertaTokenizer:
    """Byte-level pieces, merged to the known words."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=320, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    trained.train_from_iterator([" ".join(WORDS)], trainer)
    model = json.loads(trained.to_str())["model"]
    return RobertaTokenizer(vocab=model["vocab"], merges=[tuple(merge) for merge in model["merges"]])


def make_roberta(folder: Path, kind: type[PreTrainedModel] = RobertaForSequenceClassification, **changes: Any) -> Any:
    """A random model (biases and norm gains too), saved in `folder` with its tokenizer; in eval mode."""
    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    model: Any = kind(RobertaConfig(vocab_size=len(tokenizer), **{**SHAPE, **changes})).eval()
    randomise(model, 0)
    model.tie_weights()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model


def edit_json(path: Path, **changes: Any) -> None:
    """Lays changes over a JSON file's mapping."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
