"""DynaBERT's elastic space: any layers, each with heads and neurons of its own; the paper's multipliers are a grid inside it."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from methods.backbone import BackboneConfig
from methods.costs import CostArrays
from methods.dynabert.space import DynaBertSpace, architecture_of, encoder_spec, kept_neurons, spec_of, transformer_layer
from methods.errors import UserError
from methods.network import NetworkSpec
from methods.space import Architecture, Assignment, Choice, Form, SearchSpace, Value
from methods.tasks.head import Head

if TYPE_CHECKING:
    from methods.latency import LatencyTable

Widths = dict[int, tuple[int, int]]
"""Of each kept layer (index from 0) its heads and neurons."""


class ElasticSpace(SearchSpace):
    """Any layers stay, at least one, each with its own first 1..A heads and its own first I k / A neurons, k = 1..A.

    Genes of layers that are dropped do not exist; an assignment that keeps no layer stands for the smallest architecture. The sizes are
    those that `grid` rounds to, so that each of its architectures is one of this space, with the same id. `all_layers`: none is dropped.
    """

    def __init__(self, grid: DynaBertSpace, all_layers: bool = False) -> None:
        b = grid.backbone
        self.grid, self.all_layers = grid, all_layers
        self.backbone, self.method = b, grid.method
        self.heads = tuple(range(1, b.heads + 1))
        self.neurons = tuple(kept_neurons(b.intermediate, b.heads, k) for k in self.heads)
        if self.neurons[0] < 1:
            raise UserError(
                f"space: elastic cuts the neurons in as many parts as there are heads, and the backbone has {b.intermediate} for "
                f"{b.heads} heads; write grid"
            )
        self.choices = tuple(choice for i in range(b.layers) for choice in self._layer_choices(i))

    def _layer_choices(self, i: int) -> Iterator[Choice]:
        yield Choice(f"layer{i}.kept", (True,) if self.all_layers else (False, True), ordered=True, monotone=True)
        yield Choice(f"layer{i}.heads", self.heads, ordered=True, monotone=True)
        yield Choice(f"layer{i}.neurons", self.neurons, ordered=True, monotone=True)

    def full_depth(self) -> ElasticSpace:
        """The networks that keep all layers."""
        return ElasticSpace(self.grid.full_depth(), all_layers=True)

    def _architecture(self, widths: Widths) -> Architecture:
        layers = sorted(widths)
        return architecture_of(layers, [int(widths[i][0]) for i in layers], [int(widths[i][1]) for i in layers], self.method)

    def _widths(self, architecture: Architecture) -> Widths:
        """Raises ValueError where the architecture is not in the space."""
        genes = architecture.choices
        if architecture.method == self.method and genes.keys() == {"layers", "heads", "neurons"}:
            widths = dict(zip(genes["layers"], zip(genes["heads"], genes["neurons"], strict=False), strict=False))
            known = all(i in range(self.backbone.layers) and a in self.heads and f in self.neurons for i, (a, f) in widths.items())
            enough = len(widths) >= (self.backbone.layers if self.all_layers else 1)
            if known and enough and self._architecture(widths) == architecture:
                return widths
        raise ValueError(f"{architecture.to_json()} is not in the space")

    def decode(self, assignment: Assignment) -> Architecture:
        kept = [i for i in range(self.backbone.layers) if assignment[f"layer{i}.kept"]]
        widths = {i: (int(assignment[f"layer{i}.heads"]), int(assignment[f"layer{i}.neurons"])) for i in kept}
        return self._architecture(widths) if widths else self.smallest()

    def encode(self, architecture: Architecture) -> dict[str, Value]:
        """Dropped layers are given the sizes of the nearest kept one."""
        widths = self._widths(architecture)
        assignment: dict[str, Value] = {}
        for i in range(self.backbone.layers):
            heads, neurons = _nearest(widths, i)
            assignment |= {f"layer{i}.kept": i in widths, f"layer{i}.heads": heads, f"layer{i}.neurons": neurons}
        return assignment

    def size(self) -> int:
        """A layer has A^2 pairs of sizes or is dropped, and not all are."""
        pairs, layers = len(self.heads) * len(self.neurons), self.backbone.layers
        return int(pairs**layers) if self.all_layers else int((pairs + 1) ** layers) - 1

    def enumerate(self) -> Iterator[Architecture]:
        layer = [*([] if self.all_layers else [None]), *itertools.product(self.heads, self.neurons)]
        for sizes in itertools.product(layer, repeat=self.backbone.layers):
            widths = {i: pair for i, pair in enumerate(sizes) if pair is not None}
            if widths:
                yield self._architecture(widths)

    def smallest(self) -> Architecture:
        layers = range(self.backbone.layers if self.all_layers else 1)
        return self._architecture(dict.fromkeys(layers, (self.heads[0], self.neurons[0])))

    def fastest(self, table: LatencyTable, backbone: BackboneConfig, head: Head) -> Architecture:
        """As few layers as can be; the times of a layer's heads and neurons add up."""
        layers = range(self.backbone.layers if self.all_layers else 1)

        def seconds(heads: int, neurons: int) -> float:
            return table.network(spec_of(self._architecture(dict.fromkeys(layers, (heads, neurons))), backbone, head))

        heads = min(self.heads, key=lambda value: seconds(value, self.neurons[0]))
        neurons = min(self.neurons, key=lambda value: seconds(self.heads[0], value))
        return self._architecture(dict.fromkeys(layers, (heads, neurons)))

    def anchors(self) -> list[Architecture]:
        """The smallest, the largest, and the uniform networks of the paper's grid."""
        return list(dict.fromkeys([self.smallest(), self.largest(), *self.grid.enumerate()]))

    def sample(self, rng: random.Random) -> Architecture:
        """Even over depths, mean heads and mean neurons, where uniform assignments would nearly all be of middling size.

        The number of layers is uniform, and which they are. A share p for heads and one for neurons are uniform in [0, 1]; each layer
        then keeps 1 + Binomial(A - 1, p) parts of A: for itself every number is as likely as any other, and the layers go together.
        """
        layers = self.backbone.layers
        kept = rng.sample(range(layers), layers if self.all_layers else rng.randint(1, layers))
        of_heads, of_neurons = rng.random(), rng.random()
        return self._architecture({i: (self.heads[self._part(of_heads, rng)], self.neurons[self._part(of_neurons, rng)]) for i in kept})

    def _part(self, share: float, rng: random.Random) -> int:
        return sum(rng.random() < share for _ in self.heads[1:])

    def mutate(self, architecture: Architecture, rng: random.Random) -> Architecture:
        """One move, uniform over those there are: a kept layer's heads or neurons one step up or down, a layer dropped, or one inserted
        with the sizes of the nearest kept one."""
        widths = self._widths(architecture)
        moves: list[Widths] = []
        for i in range(self.backbone.layers):
            if i not in widths:
                moves.append({**widths, i: _nearest(widths, i)})
                continue
            heads, neurons = widths[i]
            moves += [{**widths, i: (a, neurons)} for a in _beside(self.heads, heads)]
            moves += [{**widths, i: (heads, f)} for f in _beside(self.neurons, neurons)]
            if len(widths) > 1 and not self.all_layers:
                moves.append({layer: pair for layer, pair in widths.items() if layer != i})
        return self._architecture(rng.choice(moves)) if moves else architecture

    def spec(self, architecture: Architecture, backbone: BackboneConfig, head: Head, form: Form = "deployed") -> NetworkSpec:  # noqa: ARG002
        return spec_of(architecture, backbone, head)

    def batch_costs(
        self, assignments: Mapping[str, npt.NDArray[Any]], backbone: BackboneConfig, head: Head, length: int = 128, batch: int = 1
    ) -> CostArrays:
        def column(name: str) -> npt.NDArray[Any]:
            """(n, layers): the values of every layer's choice."""
            chosen = [c for c in self.choices if c.name.endswith(f".{name}")]
            return np.stack([np.array(c.values)[assignments[c.name]] for c in chosen], axis=1)

        kept, heads, neurons = column("kept"), column("heads"), column("neurons")
        empty = ~kept.any(axis=1)
        kept[empty, 0], heads[empty, 0], neurons[empty, 0] = True, self.heads[0], self.neurons[0]
        layer = transformer_layer(backbone, 0, heads, neurons)
        rest = encoder_spec(backbone, head, []).parts
        return CostArrays.of(
            len(kept),
            sum(part.embedding_parameters() for part in rest),
            sum(part.other_parameters() for part in rest) + (kept * layer.other_parameters()).sum(axis=1),
            sum(part.flops(length) for part in rest) + (kept * layer.flops(length)).sum(axis=1),
            length,
            batch,
        )

    def mean_flops(self, backbone: BackboneConfig, head: Head, length: int) -> float:
        """Expectation of a text's FLOPs over what `sample` gives, exactly: a layer's FLOPs are linear in its heads and neurons, which are
        uniform for themselves."""
        layer = transformer_layer(backbone, 0, np.array(self.heads), np.array(self.neurons))
        layers = backbone.layers if self.all_layers else (backbone.layers + 1) / 2
        rest = encoder_spec(backbone, head, []).parts
        return sum(part.flops(length) for part in rest) + layers * float(np.mean(layer.flops(length)))


def _nearest(widths: Widths, layer: int) -> tuple[int, int]:
    """The sizes of the kept layer that is nearest, of two the lower one."""
    return widths[min(sorted(widths), key=lambda i: abs(i - layer))]


def _beside(values: tuple[int, ...], value: int) -> list[int]:
    place = values.index(value)
    return [values[p] for p in (place - 1, place + 1) if 0 <= p < len(values)]
