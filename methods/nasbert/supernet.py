"""NAS-BERT's supernet: at every sub-layer each candidate operation of each width has weights of its own; a network is one path."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.utils.generic import ModelOutput

from methods.backbone import BackboneConfig
from methods.errors import UserError
from methods.layers.encoder import ChainModule, LinkModule
from methods.layers.heads import MaskedLanguageModelHeadModule
from methods.nasbert.initialise import initialise_network
from methods.nasbert.networks import operation, teacher_head
from methods.nasbert.space import NasBertSpace
from methods.network import Network, head_output, make_stem
from methods.space import Architecture, SearchSpace
from methods.supernet import Batch, Supernet
from methods.tasks.head import Head

Path = tuple[int, Sequence[str]]


class NasBertSupernet(Supernet):
    """Blocks of candidate operations between the stem and the head of the teacher.

    Names: `operations.<block>.<position>.<hidden>.<operation>`, `into.<block>.<hidden>` (teacher width to h) and
    `out.<block>.<hidden>` (back), blocks and positions from 0. Nothing is shared between widths or kernel sizes (paper, section 3.2).
    """

    def __init__(self, space: SearchSpace, backbone: BackboneConfig, head: Head) -> None:
        super().__init__(space, backbone, head)
        self.nasbert = cast(NasBertSpace, space)
        self.stem = make_stem(backbone).build()
        self.head = teacher_head(backbone, head).build()
        blocks, sizes = range(self.nasbert.blocks), self.nasbert.hidden_sizes
        self.into = nn.ModuleList(nn.ModuleDict({str(h): LinkModule(backbone.hidden, h) for h in sizes}) for _ in blocks)
        self.out = nn.ModuleList(nn.ModuleDict({str(h): LinkModule(h, backbone.hidden) for h in sizes}) for _ in blocks)
        positions = range(self.nasbert.per_block)
        self.operations = nn.ModuleList(nn.ModuleList(self._candidates() for _ in positions) for _ in blocks)
        initialise_network(self, backbone.initializer_range, self.nasbert.settings.dropout)

    def _candidates(self) -> nn.ModuleDict:
        eps, settings = self.backbone.layer_norm_eps, self.nasbert.settings
        return nn.ModuleDict(
            {
                str(h): nn.ModuleDict({name: operation(name, h, eps, settings).build() for name in self.nasbert.operations})
                for h in self.nasbert.hidden_sizes
            }
        )

    def forward(self, batch: Batch, architecture: Architecture) -> ModelOutput:
        """Logits, and the states of the hosted network: (B, L, h) before every layer, (B, L, teacher width) at the end."""
        mask, states = batch["attention_mask"], self.encode(batch, architecture)
        extra = (self.stem.word.weight,) if isinstance(self.head, MaskedLanguageModelHeadModule) else ()
        return head_output(self.head_kind, self.head(states, mask, *extra), states)

    def encode(self, batch: Batch, architecture: Architecture) -> tuple[Tensor, ...]:
        """The states of the hosted network, without its head."""
        mask = batch["attention_mask"]
        paths = self._paths(architecture)
        wide = self.stem(batch["input_ids"], mask, batch.get("token_type_ids"))
        states: list[Tensor] = [self.map_of("into", 0, paths[0][0])(wide, mask)]
        for n, path in enumerate(paths):
            if n:
                weight, bias = self._link(n, paths[n - 1][0], path[0])
                narrow = F.linear(states[-1], weight, bias)
                states.append(narrow * mask[..., None].to(narrow.dtype))
            for module in self._modules_of(n, path):
                states.append(module(states[-1], mask))
        states.append(self.map_of("out", len(paths) - 1, paths[-1][0])(states[-1], mask))
        return tuple(states)

    def block_forward(self, block: int, path: Path, teacher_state: Tensor, mask: Tensor) -> Tensor:
        """Runs block `block` (from 0) on the teacher's state before it: (B, L, teacher width) to the same, 0 at padded positions.

        `path`: hidden size and operations. What block-wise training compares with the teacher's state after the block (section 3.2).
        """
        state: Tensor = self.map_of("into", block, path[0])(teacher_state, mask)
        for module in self._modules_of(block, path):
            state = module(state, mask)
        output: Tensor = self.map_of("out", block, path[0])(state, mask)
        return output

    def _link(self, block: int, before: int, hidden: int) -> tuple[Tensor, Tensor]:
        """Weight (h, h before) and bias (h,) of In(Out(x)) at the border before `block`.

        Multiplied out, so that a hosted network and the supernet do the same arithmetic; always in the weights' own precision.
        """
        out, into = self.map_of("out", block - 1, before), self.map_of("into", block, hidden)
        with torch.autocast(out.weight.device.type, enabled=False):
            return into.weight @ out.weight, into.weight @ out.bias + into.bias

    def block_modules(self, block: int) -> nn.ModuleDict:
        """All that is trained of a block: In and Out maps of every width, and every candidate operation. Shared, not copied."""
        return nn.ModuleDict({"into": self.into[block], "operations": self.operations[block], "out": self.out[block]})

    def module_of(self, block: int, position: int, hidden: int, name: str) -> nn.Module:
        """The candidate operation of that name and width at a position of a block."""
        return self.get_submodule(f"operations.{block}.{position}.{hidden}.{name}")

    def _modules_of(self, block: int, path: Path) -> list[nn.Module]:
        return [self.module_of(block, j, path[0], name) for j, name in enumerate(path[1])]

    def map_of(self, direction: Literal["into", "out"], block: int, hidden: int) -> LinkModule:
        """In (teacher width to h) or Out (back) of a block."""
        return cast(LinkModule, self.get_submodule(f"{direction}.{block}.{hidden}"))

    @staticmethod
    def _paths(architecture: Architecture) -> list[Path]:
        genes: dict[str, Any] = architecture.choices
        return [(block["hidden"], block["ops"]) for block in genes["blocks"]]

    @torch.no_grad()
    def extract(self, architecture: Architecture) -> Network:
        network = Network(self.spec(architecture)).to(self.stem.word.weight.device).train(self.training)
        paths = self._paths(architecture)
        into = self.map_of("into", 0, paths[0][0])
        network.stem.load_state_dict({**self.stem.state_dict(), "projection.weight": into.weight, "projection.bias": into.bias})
        _copy(self.head, network.head)
        layers = iter(cast(ChainModule, network.encoder))
        for n, path in enumerate(paths):
            if n:
                weight, bias = self._link(n, paths[n - 1][0], path[0])
                next(layers).load_state_dict({"weight": weight, "bias": bias})
            for module in self._modules_of(n, path):
                _copy(module, next(layers))
        _copy(self.map_of("out", len(paths) - 1, paths[-1][0]), next(layers))
        return network

    def parameters_of(self, architecture: Architecture) -> dict[str, tuple[slice, ...]]:
        used = [f"{part}.{name}" for part in ("stem", "head") for name, _ in getattr(self, part).named_parameters()]
        for n, (hidden, names) in enumerate(self._paths(architecture)):
            prefixes = [f"into.{n}.{hidden}", *(f"operations.{n}.{j}.{hidden}.{name}" for j, name in enumerate(names)), f"out.{n}.{hidden}"]
            used += [f"{prefix}.{name}" for prefix in prefixes for name, _ in self.get_submodule(prefix).named_parameters()]
        return dict.fromkeys(used, ())

    def load_teacher(self, teacher: Network) -> None:
        """Copies the stem and the head of a stand-alone teacher of this backbone. Raises UserError where they have other shapes."""
        try:
            self.stem.load_state_dict(teacher.stem.state_dict())
            self.head.load_state_dict(teacher.head.state_dict())
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1].strip()
            raise UserError(f"nasbert: the teacher's stem or head does not fit this supernet's backbone and task ({reason})") from error


def _copy(source: nn.Module, target: nn.Module) -> None:
    target.load_state_dict(source.state_dict())
