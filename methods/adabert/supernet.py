"""AdaBERT's supernet: every operation on every edge of every cell, and the parameters that choose among them."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from transformers.utils.generic import ModelOutput

from methods.adabert.cells import SupernetCell
from methods.adabert.expectation import ExpectedCosts, expected_costs
from methods.adabert.relaxation import Relaxation
from methods.adabert.space import AdaBertSpace, check_head
from methods.backbone import BackboneConfig
from methods.errors import UserError
from methods.layers.cell import States, Text, attended, run_cells
from methods.network import Network, head_output
from methods.space import Architecture, Form, SearchSpace
from methods.supernet import Batch, Supernet
from methods.tasks.head import Head
from methods.training.initialisation import initialise


class AdaBertSupernet(Supernet):
    """Kmax cells with weights of their own; per depth its own attention over layers and, if not shared, its own classifier.

    `edge_logits` (E, O + 1) and `depth_logits` (Kmax,) are the architecture parameters; no discrete architecture reads them.
    """

    space: AdaBertSpace

    def __init__(self, space: SearchSpace, backbone: BackboneConfig, head: Head) -> None:
        check_head(head)
        super().__init__(space, backbone, head)
        o = self.space.options
        self.stem = self.space.ends(backbone, head, 1)[0].build()
        self.cells = nn.ModuleList(SupernetCell(self.space) for _ in range(o.cells))
        self.layer_weights = nn.ParameterList(nn.Parameter(torch.zeros(k + 1)) for k in range(1, o.cells + 1))
        self.dropout = nn.Dropout(o.dropout)
        self.classifiers = nn.ModuleList(nn.Linear(o.width, head.labels) for _ in range(1 if o.shared_classifier else o.cells))
        self.edge_logits = nn.Parameter(torch.randn(len(self.space.edges), len(self.space.columns)) * o.initial_deviation)
        self.depth_logits = nn.Parameter(torch.randn(o.cells) * o.initial_deviation)
        initialise(self, backbone.initializer_range)

    def architecture_parameters(self) -> list[nn.Parameter]:
        return [self.edge_logits, self.depth_logits]

    def texts(self, batch: Batch) -> tuple[Text, ...]:
        """Each text behind the stem: (hidden (B, L, d), mask (B, L))."""
        masks = [(batch["input_ids"], batch["attention_mask"])]
        if "input_ids_b" in batch:
            masks.append((batch["input_ids_b"], batch["attention_mask_b"]))
        return tuple((self.stem(ids, mask), mask) for ids, mask in masks)

    def read_out(self, states: States, mask: Tensor) -> Tensor:
        """(B, C) of the depth whose k + 1 states these are."""
        depth = len(states) - 1
        classifier = self.classifiers[self._classifier(depth)]
        return cast(Tensor, classifier(self.dropout(attended(states, mask, self.layer_weights[depth - 1]))))

    def _classifier(self, depth: int) -> int:
        return 0 if len(self.classifiers) == 1 else depth - 1

    def forward(self, batch: Batch, architecture: Architecture) -> ModelOutput:
        """Logits, and the K + 1 states (B, L, d): the mean of the texts and the output of every cell."""
        genes = architecture.choices
        cells = [cast(SupernetCell, self.cells[k]).chosen(genes["nodes"]) for k in range(genes["K"])]
        states, mask = run_cells(self.texts(batch), cells)
        return head_output(self.head_kind, self.read_out(states, mask), states)

    def expected_costs(self, probabilities: Relaxation, length: int = 128, batch: int = 1, form: Form = "deployed") -> ExpectedCosts:
        """Expected costs of what derivation keeps, differentiable; see `methods.adabert.expectation`."""
        return expected_costs(self.space, self.backbone, self.head_kind, probabilities, length, batch, form)

    def probabilities(self) -> Relaxation:
        """Those of the architecture parameters."""
        return Relaxation(self.edge_logits.softmax(1), self.depth_logits.softmax(0))

    @torch.no_grad()
    def load_teacher(self, network: Network) -> None:
        """Copies the teacher's word and position tables. Raises UserError where their shapes differ."""
        for name in ("word", "position"):
            own, theirs = getattr(self.stem, name).weight, getattr(network.stem, name).weight
            if own.shape != theirs.shape:
                raise UserError(f"method adabert: the teacher's {name} table is {tuple(theirs.shape)}, {tuple(own.shape)} is needed")
            own.copy_(theirs)

    def _places(self, architecture: Architecture) -> dict[str, str]:
        """Where the tensors of the extracted network live here: prefix there -> prefix here."""
        genes = architecture.choices
        cells = genes["K"]
        places = {"stem.": "stem.", "head.weights": f"layer_weights.{cells - 1}"}
        places["head.classifier."] = f"classifiers.{self._classifier(cells)}."
        for k in range(cells):
            places[f"encoder.{k}.weights"] = f"cells.{k}.weights"
            for n, node in enumerate(genes["nodes"]):
                for slot, (source, name) in enumerate(node):
                    places[f"encoder.{k}.nodes.{n}.{slot}."] = f"cells.{k}.nodes.{n}.{source}.{name}."
        return places

    @torch.no_grad()
    def extract(self, architecture: Architecture) -> Network:
        device = next(self.parameters()).device
        network = Network(self.spec(architecture)).to(device).train(self.training)
        mine, places = self.state_dict(), self._places(architecture)
        for name, tensor in network.state_dict().items():
            prefix = next(place for place in places if name.startswith(place))
            tensor.copy_(mine[places[prefix] + name[len(prefix) :]])
        return network

    def parameters_of(self, architecture: Architecture) -> dict[str, tuple[slice, ...]]:
        used = set(self._places(architecture).values())
        prefixes = tuple(place for place in used if place.endswith("."))
        return {name: () for name, _ in self.named_parameters() if name in used or name.startswith(prefixes)}
