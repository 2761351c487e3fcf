"""DynaBERT's supernet: every sub-network is a prefix of heads and neurons in a subset of layers (paper, section 2)."""

from __future__ import annotations

from typing import cast

import torch
from transformers.utils.generic import ModelOutput

from methods.backbone import BackboneConfig
from methods.dynabert.space import full_spec
from methods.layers.encoder import ChainModule, ElasticTransformerLayer
from methods.layers.heads import FirstTokenHeadModule, MaskedLanguageModelHeadModule
from methods.network import Network, head_output
from methods.space import Architecture, SearchSpace
from methods.supernet import Batch, Supernet
from methods.tasks.head import Head
from methods.training.initialisation import initialise

Region = tuple[slice, ...]


class DynaBertSupernet(Supernet):
    """The whole backbone. Its tensors bear the names of the teacher's `Network`, so that `load_state_dict` takes the teacher's."""

    def __init__(self, space: SearchSpace, backbone: BackboneConfig, head: Head) -> None:
        super().__init__(space, backbone, head)
        whole = full_spec(backbone, head)
        self.stem = whole.stem.build()
        self.encoder = cast(ChainModule, whole.encoder.build())
        self.head = whole.head.build()
        initialise(self, backbone.initializer_range)

    def forward(self, batch: Batch, architecture: Architecture) -> ModelOutput:
        """Logits, and the n+1 hidden states (B, L, H): the input of every kept layer and the last output.

        The batch may hold `inputs_embeds` (B, L, H), its words looked up in the word table.
        """
        genes = architecture.choices
        mask = batch["attention_mask"]
        states = [self.stem(batch["input_ids"], mask, batch.get("token_type_ids"), batch.get("inputs_embeds"))]
        for index, heads, neurons in zip(genes["layers"], genes["heads"], genes["neurons"], strict=True):
            states.append(self.encoder[index](states[-1], mask, heads, neurons))
        extra = (self.stem.word.weight,) if isinstance(self.head, MaskedLanguageModelHeadModule) else ()
        return head_output(self.head_kind, self.head(tuple(states), mask, *extra), tuple(states))

    def forward_logits(self, batch: Batch, architecture: Architecture) -> ModelOutput:
        """Where the output layer reads the first token alone, the last layer computes that token alone."""
        if not isinstance(self.head, FirstTokenHeadModule):
            return super().forward_logits(batch, architecture)
        genes, mask = architecture.choices, batch["attention_mask"]
        hidden = self.stem(batch["input_ids"], mask, batch.get("token_type_ids"), batch.get("inputs_embeds"))
        last = len(genes["layers"]) - 1
        for place, (index, heads, neurons) in enumerate(zip(genes["layers"], genes["heads"], genes["neurons"], strict=True)):
            hidden = self.encoder[index](hidden, mask, heads, neurons, queries=1 if place == last else None)
        return head_output(self.head_kind, self.head((hidden,), mask), (hidden,))

    @torch.no_grad()
    def extract(self, architecture: Architecture) -> Network:
        device = next(self.parameters()).device
        network = Network(self.spec(architecture)).to(device).train(self.training)
        mine, cut = self.state_dict(), network.state_dict()
        regions = self.parameters_of(architecture)
        place = {f"encoder.{layer}.": f"encoder.{i}." for i, layer in enumerate(architecture.choices["layers"])}
        for name, region in regions.items():
            target = name
            if name.startswith("encoder."):
                prefix = name[: name.index(".", len("encoder.")) + 1]
                target = place[prefix] + name[len(prefix) :]
            cut[target].copy_(mine[name][region])
        return network

    def parameters_of(self, architecture: Architecture) -> dict[str, Region]:
        genes = architecture.choices
        used: dict[str, Region] = {name: () for name, _ in self.named_parameters() if not name.startswith("encoder.")}
        for index, heads, neurons in zip(genes["layers"], genes["heads"], genes["neurons"], strict=True):
            layer = cast(ElasticTransformerLayer, self.encoder[index])
            width = slice(heads * self.backbone.head_size)
            cuts: dict[str, Region] = {
                **{f"attention.{name}.{kind}": (width,) for name in ("query", "key", "value") for kind in ("weight", "bias")},
                "attention.output.weight": (slice(None), width),
                "feed_forward.intermediate.weight": (slice(neurons),),
                "feed_forward.intermediate.bias": (slice(neurons),),
                "feed_forward.output.weight": (slice(None), slice(neurons)),
            }
            used |= {f"encoder.{index}.{name}": cuts.get(name, ()) for name, _ in layer.named_parameters()}
        return used
