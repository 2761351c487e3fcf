"""What the search trains: the supernet, the scaffolding that is thrown away, and the architecture parameters of both."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Generator, Tensor, nn

from methods.adabert.cells import PLAIN, Mixing
from methods.adabert.options import SearchOptions
from methods.adabert.relaxation import Relaxation, RelaxedOutput, relaxed
from methods.adabert.sampling import SAMPLERS, means
from methods.adabert.supernet import AdaBertSupernet
from methods.layers.cell import attended
from methods.supernet import Batch

_TINY = 1e-30


@dataclass(frozen=True)
class SearchOutput:
    """`depth_logits` (Kmax, B, C) of each depth's own classifier; `hidden_logits` (Kmax, B, C) of the heads on layers 0..Kmax - 1."""

    depth_logits: Tensor
    hidden_logits: Tensor | None


class SearchModel(nn.Module):
    """`hidden_heads`: a linear head for each hidden layer of the student, which distillation from probes needs; no network gets them.

    `edge_strengths` (E,): PC-DARTS' parameters, whose softmax over a node's incoming edges weighs these.
    """

    def __init__(self, supernet: AdaBertSupernet, options: SearchOptions) -> None:
        super().__init__()
        self.supernet, self.options = supernet, options
        o, head = supernet.space.options, supernet.head_kind
        layers = 0 if options.loss.distillation == "final" else o.cells
        self.hidden_heads = nn.ModuleList(nn.Linear(o.width, head.labels) for _ in range(layers))
        edges = len(supernet.space.edges)
        self.edge_strengths = nn.Parameter(torch.zeros(edges)) if options.remedies.edge_normalisation else None
        nodes = torch.tensor([node for node, _ in supernet.space.edges])
        self.register_buffer("same_node", nodes[:, None] == nodes[None, :], persistent=False)

    def architecture_parameters(self) -> list[nn.Parameter]:
        """Of edges, of depth, and of edges' strengths where they are trained."""
        return [*self.supernet.architecture_parameters(), *([] if self.edge_strengths is None else [self.edge_strengths])]

    def weights(self) -> list[nn.Parameter]:
        """All parameters that do not choose among architectures."""
        architecture = {id(parameter) for parameter in self.architecture_parameters()}
        return [parameter for parameter in self.parameters() if id(parameter) not in architecture]

    def forward(self, batch: Batch, weights: Relaxation, mixing: Mixing = PLAIN) -> SearchOutput:
        output = relaxed(self.supernet, batch, weights, mixing)
        return SearchOutput(output.depth_logits, self._hidden_logits(output))

    def _hidden_logits(self, output: RelaxedOutput) -> Tensor | None:
        """Linear on tanh of the mean over tokens, per hidden layer."""
        if not len(self.hidden_heads):
            return None
        alone = torch.zeros(1, device=output.mask.device)
        return torch.stack(
            [head(attended((state,), output.mask, alone)) for head, state in zip(self.hidden_heads, output.states, strict=False)]
        )

    def sample(self, temperature: float, generator: Generator, free: bool = True) -> Relaxation:
        """Weights drawn by the sampler, one draw for the whole batch and all cells; without gradient where not `free`."""
        with torch.set_grad_enabled(free):
            name = self.options.sampler
            edges = SAMPLERS[name](self.supernet.edge_logits, temperature, generator)
            depth = SAMPLERS[_depth_sampler(name)](self.supernet.depth_logits[None], temperature, generator)[0]
            if self.edge_strengths is not None:
                edges = edges * self._edge_shares()[:, None]
            return Relaxation(edges, depth)

    def probabilities(self) -> Relaxation:
        """What the architecture parameters mean to derivation and costs, edges' strengths included: an edge that has less than its whole
        share of a node is zero the more often."""
        edges = means(self.supernet.edge_logits, self.options.sampler)
        if self.edge_strengths is not None:
            alive = edges[:, :-1] * self._edge_shares()[:, None]
            edges = torch.cat([alive, 1 - alive.sum(1, keepdim=True)], 1)
        return Relaxation(edges, means(self.supernet.depth_logits[None], _depth_sampler(self.options.sampler))[0])

    def _edge_shares(self) -> Tensor:
        """(E,): softmax of the strengths over the edges into one node."""
        assert self.edge_strengths is not None
        logits = self.edge_strengths[None, :].expand(len(self.edge_strengths), -1)
        return logits.masked_fill(~cast(Tensor, self.same_node), -torch.inf).softmax(1).diagonal()

    @torch.no_grad()
    def decided(self) -> Relaxation:
        """Logits whose softmax are the probabilities: the supernet's own, where these mean that already."""
        own = Relaxation(self.supernet.edge_logits.detach(), self.supernet.depth_logits.detach())
        if self.edge_strengths is None and self.options.sampler not in ("dirichlet", "sigmoid"):
            return own
        found = self.probabilities()
        depth = found.depth.clamp_min(_TINY).log() if self.options.sampler == "dirichlet" else own.depth
        return replace(own, edges=found.edges.clamp_min(_TINY).log(), depth=depth)

    @torch.no_grad()
    def publish(self) -> None:
        """Makes the supernet's own architecture parameters say what all of them mean, for derivation."""
        logits = self.decided()
        self.supernet.edge_logits.copy_(logits.edges)
        self.supernet.depth_logits.copy_(logits.depth)


def _depth_sampler(name: str) -> str:
    """Depths exclude each other, so independent sigmoids do not fit them."""
    return "softmax" if name == "sigmoid" else name
