"""What a stand-alone network is (`NetworkSpec`), the one builder of it (`Network`), and its folder on disk."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.modeling_outputs import BaseModelOutput, MaskedLMOutput, QuestionAnsweringModelOutput, SequenceClassifierOutput
from transformers.utils.generic import ModelOutput

from methods.errors import UserError
from methods.layers.embedding import Stem
from methods.layers.heads import MaskedLanguageModelHead, MaskedLanguageModelHeadModule, NoHead
from methods.layers.part import Part, part_from_dict
from methods.tasks.head import Head

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from methods.backbone import BackboneConfig

FORMAT = 1
_NEVER = -1e4
"""A logit whose probability is zero in float32."""


@dataclass(frozen=True)
class NetworkSpec:
    """A network without weights: stem, encoder and head with all their sizes, and what the task asks of it."""

    stem: Stem
    encoder: Part
    head: Part
    task: Head

    @property
    def parts(self) -> tuple[Part, Part, Part]:
        return self.stem, self.encoder, self.head

    def to_dict(self) -> dict[str, Any]:
        return {**{name: getattr(self, name).to_dict() for name in ("stem", "encoder", "head")}, "task": vars(self.task)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> NetworkSpec:
        stem, encoder, head = (part_from_dict(data[name]) for name in ("stem", "encoder", "head"))
        return cls(cast(Stem, stem), encoder, head, Head(**data["task"]))


class Network(nn.Module):
    """The stand-alone network of a spec: takes and returns what a `transformers` model with that head does.

    A method that reads two texts apart takes the second one as `input_ids_b`, `attention_mask_b`.
    """

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.spec = spec
        self.stem = spec.stem.build()
        self.encoder = spec.encoder.build()
        self.head = spec.head.build()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        input_ids_b: Tensor | None = None,
        attention_mask_b: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> ModelOutput:
        """`input_ids` (B, L) and masks alike; `labels` (B,), for `span` (B, 2) first and last token, for `mlm` (B, L) with -100 where
        nothing is asked."""
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        texts = [(self.stem(input_ids, mask, token_type_ids), mask)]
        if input_ids_b is not None:
            mask_b = torch.ones_like(input_ids_b) if attention_mask_b is None else attention_mask_b
            texts.append((self.stem(input_ids_b, mask_b), mask_b))
        states, mask = self.encoder(tuple(texts))
        extra = (self.stem.word.weight,) if isinstance(self.head, MaskedLanguageModelHeadModule) else ()
        return head_output(self.spec.task, self.head(states, mask, *extra), states, labels)


@dataclass
class SpanOutput(QuestionAnsweringModelOutput):
    """`logits` (B, L, 2): start and end logits in one."""

    logits: Tensor | None = None


def head_output(task: Head, logits: Tensor, states: tuple[Tensor, ...], labels: Tensor | None = None) -> ModelOutput:
    """Logits and states under the field names of `transformers`, with the task's loss where labels are given."""
    if task.kind == "none":
        return BaseModelOutput(last_hidden_state=logits, hidden_states=states)
    loss = None if labels is None else task_loss(task, logits, labels)
    if task.kind == "span":
        return SpanOutput(loss=loss, start_logits=logits[..., 0], end_logits=logits[..., 1], hidden_states=states, logits=logits)
    output = MaskedLMOutput if task.kind == "mlm" else SequenceClassifierOutput
    return output(loss=loss, logits=logits, hidden_states=states)


def task_loss(task: Head, logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy for classification and masked words, for spans the mean of those of start and end, mean squared error for regression;
    means over the batch."""
    if task.kind == "regression":
        return F.mse_loss(logits.squeeze(-1).float(), labels.float())
    rows = distributions(task, logits)
    return F.cross_entropy(rows.reshape(-1, rows.shape[-1]).float(), labels.reshape(-1))


def distributions(task: Head, logits: Tensor) -> Tensor:
    """Logits whose last dimension is what is chosen from, as losses need them: of spans (B, L, 2) as (2B, L), start and end of each row one
    after the other; all others as they are. Padded places stay finite at any temperature."""
    return logits.transpose(1, 2).flatten(0, 1).float().clamp(min=_NEVER) if task.kind == "span" else logits


def save_network(network: Network, folder: Path, tokenizer: PreTrainedTokenizerBase | None = None, **about: Any) -> None:
    """Writes `model.safetensors`, `config.json` (spec and whatever `about` says) and the tokenizer's files into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.detach().contiguous() for name, tensor in network.state_dict().items()}
    (folder / "model.safetensors").write_bytes(save(state))  # readable by whom the other files are; `save_file`'s is the owner's alone
    save_description(network.spec, folder, tokenizer, **about)


def save_description(spec: NetworkSpec, folder: Path, tokenizer: PreTrainedTokenizerBase | None = None, **about: Any) -> None:
    """What `save_network` writes beside the weights."""
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    text = json.dumps({"format": FORMAT, "library": "elastibench", **about, "network": spec.to_dict()}, indent=1)
    (folder / "config.json").write_text(text + "\n")


def load_network(folder: Path | str) -> Network:
    """The network that `save_network` or `elastibench export` wrote: bit-equal, in eval mode. Raises UserError where it can't be read."""
    import methods.registry

    folder = Path(folder)
    try:
        data = json.loads((folder / "config.json").read_text())
        if data.get("format") != FORMAT:
            raise ValueError(f"format {data.get('format')!r}, this version reads {FORMAT}")
        methods.registry.import_parts()
        network = Network(NetworkSpec.from_dict(data["network"]))
        network.load_state_dict(load_file(folder / "model.safetensors"))
    except FileNotFoundError as error:
        raise UserError(f"{folder}: no exported network there ({Path(error.filename or '').name} is missing)") from error
    except Exception as error:
        raise UserError(f"{folder}: the exported network is damaged ({str(error).splitlines()[0]})") from error
    return network.eval()


def make_head(task: Head, hidden: int, pooler: bool, stem: Stem, dropout: float = 0.1, activation: str = "gelu") -> Part:
    """The output part of a sequential encoder for what the task asks."""
    from methods.layers.heads import FirstTokenHead, SpanHead

    if task.kind in ("classification", "regression"):
        return FirstTokenHead(hidden, task.labels, pooler=pooler, dropout=dropout)
    if task.kind == "span":
        return SpanHead(hidden)
    if task.kind == "mlm":
        return MaskedLanguageModelHead(hidden, stem.width, stem.vocabulary, activation=activation, layer_norm_eps=stem.layer_norm_eps)
    return NoHead()


def make_stem(backbone: BackboneConfig) -> Stem:
    """The backbone's own stem: word, position and type tables, LayerNorm, dropout."""
    b = backbone
    return Stem(
        b.vocabulary,
        b.positions,
        b.types,
        b.hidden,
        dropout=b.dropout,
        layer_norm_eps=b.layer_norm_eps,
        padding_id=b.padding_id,
        position_offset=b.position_offset,
    )


def backbone_head(task: Head, backbone: BackboneConfig) -> Part:
    """The backbone's own output part: BERT's, or RoBERTa's, whose layer for masked words always has GELU."""
    from methods.layers.heads import FirstTokenHead

    roberta = backbone.family == "roberta"
    activation = "gelu" if roberta else backbone.activation
    part = make_head(task, backbone.hidden, True, make_stem(backbone), backbone.dropout, activation)
    return replace(part, first_dropout=backbone.dropout) if roberta and isinstance(part, FirstTokenHead) else part
