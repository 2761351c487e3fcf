"""A space with a made-up quality: networks that differ in depth and, layer by layer, in heads and neurons; no training is needed."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from methods.backbone import BackboneConfig
from methods.budget import Budget
from methods.costs import CostArrays
from methods.layers.attention import SelfAttention
from methods.layers.encoder import Chain, TransformerLayer
from methods.layers.feed_forward import FeedForward
from methods.network import NetworkSpec, make_head, make_stem
from methods.space import Architecture, Assignment, Choice, Form, SearchSpace, Value
from methods.tasks.head import Head
from search.limits import CostFunction
from search.measurement import Kind, Measurement
from search.random_controls import BatchCosts
from search.strategies.strategy import CostOf

BACKBONE = BackboneConfig(vocabulary=100, positions=32, types=2, hidden=24, layers=12, heads=12, intermediate=96)
HEAD = Head("classification", 2)
LENGTH = 16
HEADS, NEURONS = (2, 4, 6, 8, 10, 12), (16, 32, 64, 96)


class LayerSpace(SearchSpace):
    """Keeps the first layers; genes of layers beyond the depth do not exist. `heads` are categories, the rest is ordered."""

    method = "layers"

    def __init__(self, layers: int, ordered_heads: bool = False) -> None:
        self.layers = layers
        self.choices = (
            Choice("depth", tuple(range(1, layers + 1)), ordered=True, monotone=True),
            *(Choice(f"heads.{i}", HEADS, ordered=ordered_heads, monotone=ordered_heads) for i in range(layers)),
            *(Choice(f"neurons.{i}", NEURONS, ordered=True, monotone=True) for i in range(layers)),
        )

    def decode(self, assignment: Assignment) -> Architecture:
        kept = range(int(assignment["depth"]))
        genes = {name: [assignment[f"{name}.{i}"] for i in kept] for name in ("heads", "neurons")}
        return Architecture.of(self.method, genes)

    def encode(self, architecture: Architecture) -> dict[str, Value]:
        genes = architecture.choices
        depth = len(genes["heads"])
        rest = self.layers - depth
        heads, neurons = genes["heads"] + [HEADS[0]] * rest, genes["neurons"] + [NEURONS[0]] * rest
        return {
            "depth": depth,
            **{f"heads.{i}": HEADS[HEADS.index(a)] for i, a in enumerate(heads)},
            **{f"neurons.{i}": NEURONS[NEURONS.index(f)] for i, f in enumerate(neurons)},
        }

    def size(self) -> int:
        return sum((len(HEADS) * len(NEURONS)) ** depth for depth in range(1, self.layers + 1))

    def smallest(self) -> Architecture:
        return self._corner(0)

    def largest(self) -> Architecture:
        return self._corner(-1)

    def _corner(self, place: int) -> Architecture:
        return self.decode({choice.name: choice.values[place] for choice in self.choices})

    def anchors(self) -> list[Architecture]:
        """Uniform over layers: every depth by two widths."""
        depths = range(1, self.layers + 1)
        return [Architecture.of(self.method, {"heads": [a] * d, "neurons": [f] * d}) for d in depths for a, f in ((12, 96), (6, 32))]

    def spec(self, architecture: Architecture, backbone: BackboneConfig, head: Head, form: Form = "deployed") -> NetworkSpec:
        b, genes = backbone, architecture.choices
        layers = [
            TransformerLayer(SelfAttention(b.hidden, heads, b.head_size), FeedForward(b.hidden, neurons), i)
            for i, (heads, neurons) in enumerate(zip(genes["heads"], genes["neurons"], strict=True))
        ]
        stem = make_stem(b)
        return NetworkSpec(stem, Chain(tuple(layers)), make_head(head, b.hidden, True, stem), head)

    def batch_costs(
        self, assignments: Mapping[str, np.ndarray], backbone: BackboneConfig, head: Head, length: int = 128, batch: int = 1
    ) -> CostArrays:
        b = backbone
        fixed = NetworkSpec(make_stem(b), Chain(()), make_head(head, b.hidden, True, make_stem(b)), head).parts
        other: Any = sum(part.other_parameters() for part in fixed)
        flops: Any = sum(part.flops(length) for part in fixed)
        for i in range(self.layers):
            heads, neurons = np.array(HEADS)[assignments[f"heads.{i}"]], np.array(NEURONS)[assignments[f"neurons.{i}"]]
            layer = TransformerLayer(SelfAttention(b.hidden, heads, b.head_size), FeedForward(b.hidden, neurons), i)
            there = assignments["depth"] >= i
            other, flops = other + there * layer.other_parameters(), flops + there * layer.flops(length)
        embedding = sum(part.embedding_parameters() for part in fixed)
        return CostArrays.of(len(assignments["depth"]), embedding, other, flops, length, batch)


def quality(architecture: Architecture) -> float:
    """Grows with heads and neurons, with falling returns; later layers count more."""
    genes = architecture.choices
    weights = np.sort(np.random.default_rng(7).uniform(0.3, 1.7, 12))
    pairs = zip(weights, genes["heads"], genes["neurons"], strict=False)
    got = sum(w * min((a / 12) ** 0.5, 1.15 * (f / 96) ** 0.35) for w, a, f in pairs)
    return float((got / weights.sum()) ** 0.8)


def costs_of(space: SearchSpace) -> CostOf:
    return CostFunction(space, BACKBONE, HEAD, LENGTH)


def batch_costs_of(space: SearchSpace) -> BatchCosts:
    return partial(space.batch_costs, backbone=BACKBONE, head=HEAD, length=LENGTH)


def share(space: SearchSpace, part: float) -> Budget:
    """A FLOP limit at this part of the way from the smallest network to the largest."""
    least, most = (costs_of(space)(a).flops for a in (space.smallest(), space.largest()))
    return Budget(max_flops=least + part * (most - least))


def measured(architecture: Architecture, space: SearchSpace, kind: Kind = "shared", weights: str = "w", **changes: Any) -> Measurement:
    """What an evaluation of the architecture would hand over."""
    facts: dict[str, Any] = {
        "task": "toy",
        "split": "search",
        "split_digest": "s",
        "seed": 0,
        "metric": "accuracy",
        "metrics": {"accuracy": quality(architecture)},
        "costs": costs_of(space)(architecture),
        **changes,
    }
    return Measurement(architecture=architecture, kind=kind, weights_digest=weights, **facts)
