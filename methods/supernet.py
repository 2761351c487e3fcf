"""Shared weights that host every architecture of a space."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.utils.generic import ModelOutput

from methods.backbone import BackboneConfig
from methods.errors import UserError
from methods.network import Network, NetworkSpec
from methods.space import Architecture, Form, SearchSpace
from methods.tasks.head import Head

Batch = Mapping[str, Tensor]


class Supernet(nn.Module, ABC):
    """Runs any architecture of its space with shared weights, and cuts any of them out.

    There is no "set active" state: the architecture is an argument of `forward`. A batch is what the method's own `collate`
    makes (`input_ids`, `attention_mask` (B, L), ...; `labels` and `example_id` are not read here).
    """

    def __init__(self, space: SearchSpace, backbone: BackboneConfig, head: Head) -> None:
        super().__init__()
        self.space = space
        self.backbone = backbone
        self.head_kind = head

    @abstractmethod
    def forward(self, batch: Batch, architecture: Architecture) -> ModelOutput:
        """Logits and hidden states of one architecture, as `Network` returns them."""

    def forward_logits(self, batch: Batch, architecture: Architecture) -> ModelOutput:
        """`forward` where nothing but the logits will be read: what they do not depend on may be left out."""
        output: ModelOutput = self(batch, architecture)
        return output

    def spec(self, architecture: Architecture, form: Form = "hosted") -> NetworkSpec:
        """The architecture's network; the hosted form is the one that gives this supernet's logits."""
        return self.space.spec(architecture, self.backbone, self.head_kind, form)

    @abstractmethod
    def extract(self, architecture: Architecture) -> Network:
        """The hosted form as a stand-alone network with its own weights, in this supernet's train or eval mode."""

    @abstractmethod
    def parameters_of(self, architecture: Architecture) -> Mapping[str, tuple[slice, ...]]:
        """For each parameter (by name) that the architecture uses, the region of it that is used; `()` means all of it."""

    def architecture_parameters(self) -> list[nn.Parameter]:
        """Parameters that choose among architectures; empty where a method has none."""
        return []

    def save(self, path: Path) -> None:
        """Writes the weights and buffers as safetensors."""
        save_file({name: tensor.detach().contiguous() for name, tensor in self.state_dict().items()}, path)

    def load(self, path: Path) -> None:
        """Reads what `save` wrote. Raises UserError where the file is damaged or of another supernet."""
        try:
            self.load_state_dict(load_file(path))
        except Exception as error:
            raise UserError(f"{path}: not the weights of this supernet ({str(error).splitlines()[0]})") from error


def inputs(batch: Batch) -> dict[str, Tensor]:
    """What of a batch a network's forward takes."""
    names = ("input_ids", "attention_mask", "token_type_ids", "input_ids_b", "attention_mask_b")
    return {name: batch[name] for name in names if name in batch}
