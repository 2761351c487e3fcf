"""What an exported network's config says of it in plain numbers, so that nobody has to derive sizes from multipliers."""

from __future__ import annotations

from typing import Any

from methods.network import NetworkSpec


def layer_facts(spec: NetworkSpec) -> list[dict[str, Any]]:
    """Per layer of a sequential transformer: its place in the backbone, heads, head size, attention width and FFN size.

    Empty for encoders that are no sequence of such layers; `network` in the config describes those.
    """
    facts = []
    for layer in getattr(spec.encoder, "layers", ()):
        attention, feed_forward = getattr(layer, "attention", None), getattr(layer, "feed_forward", None)
        if attention is None or feed_forward is None:
            return []
        facts.append(
            {
                "backbone_layer": layer.index,
                "heads": attention.heads,
                "head_size": attention.head_size,
                "attention_width": attention.heads * attention.head_size,
                "ffn_size": feed_forward.neurons,
            }
        )
    return facts
