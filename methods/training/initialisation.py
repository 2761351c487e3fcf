"""BERT's initialisation, and the weights of a `transformers` BertModel or RobertaModel under the names of our `Network`."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from methods.errors import UserError
from methods.network import Network


@torch.no_grad()
def initialise(module: nn.Module, deviation: float = 0.02) -> None:
    """Weights of linear maps and tables from N(0, deviation), biases and the padding row 0, norms at identity (BERT, appendix)."""
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Embedding):
            part.weight.normal_(0.0, deviation)
        if isinstance(part, nn.Linear) and part.bias is not None:
            part.bias.zero_()
        if isinstance(part, nn.Embedding) and part.padding_idx is not None:
            part.weight[part.padding_idx].zero_()


_NAMES = (
    (r"embeddings\.word_embeddings\.", "stem.word."),
    (r"embeddings\.position_embeddings\.", "stem.position."),
    (r"embeddings\.token_type_embeddings\.", "stem.token_type."),
    (r"embeddings\.LayerNorm\.", "stem.norm_before."),
    (r"encoder\.layer\.(\d+)\.attention\.self\.", r"encoder.\1.attention."),
    (r"encoder\.layer\.(\d+)\.attention\.output\.dense\.", r"encoder.\1.attention.output."),
    (r"encoder\.layer\.(\d+)\.attention\.output\.LayerNorm\.", r"encoder.\1.attention.norm."),
    (r"encoder\.layer\.(\d+)\.intermediate\.dense\.", r"encoder.\1.feed_forward.intermediate."),
    (r"encoder\.layer\.(\d+)\.output\.dense\.", r"encoder.\1.feed_forward.output."),
    (r"encoder\.layer\.(\d+)\.output\.LayerNorm\.", r"encoder.\1.feed_forward.norm."),
    (r"pooler\.dense\.", "head.pooler."),
    (r"cls\.predictions\.transform\.dense\.", "head.transform."),
    (r"cls\.predictions\.transform\.LayerNorm\.", "head.norm."),
    (r"cls\.predictions\.decoder\.bias", "head.bias"),
    (r"lm_head\.dense\.", "head.transform."),
    (r"lm_head\.layer_norm\.", "head.norm."),
    (r"lm_head\.decoder\.bias", "head.bias"),
)


def network_name(name: str) -> str | None:
    """Our name of a tensor of BertModel, RobertaModel or their output layers for masked words; None for what we do not keep."""
    for pattern, ours in _NAMES:
        if re.match(pattern, name):
            return re.sub("^" + pattern, ours, name)
    return None


def load_backbone(network: Network, weights: Mapping[str, Tensor]) -> None:
    """Copies a BertModel's tensors into the network of `full_spec`; the classifier (and a pooler that is missing) stay as they are.

    Raises UserError where a tensor is missing or has another shape.
    """
    renamed = {ours: tensor for name, tensor in weights.items() if (ours := network_name(name))}
    own = network.state_dict()
    missing = [n for n in own if n not in renamed and n.startswith(("stem.", "encoder."))]
    if missing:
        raise UserError(f"backbone: its weights lack {len(missing)} tensors of the encoder, such as {missing[0]}")
    fitting = {name: tensor for name, tensor in renamed.items() if name in own}
    wrong = [name for name, tensor in fitting.items() if tensor.shape != own[name].shape]
    if wrong:
        raise UserError(f"backbone: {wrong[0]} has shape {tuple(fitting[wrong[0]].shape)}, its config says {tuple(own[wrong[0]].shape)}")
    network.load_state_dict(fitting, strict=False)


def load_masked_word_head(network: Network, weights: Mapping[str, Tensor]) -> None:
    """Copies the output layer of a BertForMaskedLM or RobertaForMaskedLM, by its names there, into the head of a network for masked words.

    Raises UserError where a tensor is missing or has another shape.
    """
    renamed = {ours.removeprefix("head."): tensor for name, tensor in weights.items() if (ours := network_name(name))}
    try:
        network.head.load_state_dict(renamed)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise UserError(f"backbone: its output layer for masked words does not fit its config ({reason})") from error
