"""What is timed, a piece or a whole network: as JSON, and as a module with inputs for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import methods.registry
from methods.layers.heads import MaskedLanguageModelHead
from methods.layers.part import Part, Piece, part_from_dict
from methods.network import Network, NetworkSpec, load_network

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Finished:
    """A network with its weights, as `methods.network.save_network` wrote it into `folder`."""

    folder: str
    spec: NetworkSpec


Subject = Piece | NetworkSpec | Finished
COPIES = 4


def to_dict(subject: Subject) -> dict[str, Any]:
    """Plain JSON data."""
    if isinstance(subject, NetworkSpec):
        return {"network": subject.to_dict()}
    if isinstance(subject, Finished):
        return {"network": subject.spec.to_dict(), "folder": subject.folder}
    return {"piece": subject.part.to_dict(), "width": subject.width, "role": subject.role}


def from_dict(data: Mapping[str, Any]) -> Subject:
    """The inverse of `to_dict`; the modules that define the parts must have been imported."""
    if "network" in data:
        spec = NetworkSpec.from_dict(data["network"])
        return Finished(data["folder"], spec) if "folder" in data else spec
    return Piece(part_from_dict(data["piece"]), data["width"], data["role"])


def modules_of(subjects: Iterable[Subject]) -> list[str]:
    """The names of the Python modules that define the subjects' parts."""
    found: set[str] = set()
    for subject in subjects:
        _collect(subject, found)
    return sorted(found)


def _collect(value: Any, found: set[str]) -> None:
    if isinstance(value, Part):
        found.add(type(value).__module__)
    if isinstance(value, tuple):
        for item in value:
            _collect(item, found)
    elif is_dataclass(value):
        for field in fields(value):
            _collect(getattr(value, field.name), found)


def import_parts(names: Iterable[str]) -> None:
    """Imports the modules that define parts, the built-in ones too."""
    methods.registry.import_parts()
    for name in names:
        import_module(name)


def parts_in(subject: Subject) -> tuple[Part, ...]:
    """The parts that hold its parameters."""
    if isinstance(subject, Piece):
        return (subject.part,)
    return subject.spec.parts if isinstance(subject, Finished) else subject.parts


def size(subject: Subject) -> int:
    """Bytes of its parameters in float32, in all copies."""
    return 4 * copies(subject) * sum(part.embedding_parameters() + part.other_parameters() for part in parts_in(subject))


def flops(subject: Subject, length: int) -> int:
    """FLOPs of one text."""
    return sum(part.flops(length) for part in parts_in(subject))


def copies(subject: Subject) -> int:
    """How many modules with weights of their own are timed as one: layers run after others in a network, whose weights have taken the
    place of theirs in the nearest cache; stem, output layer and the whole run once."""
    return COPIES if isinstance(subject, Piece) and subject.role not in ("stem", "head") else 1


def prepared(subject: Subject, batch: int, length: int, device: str = "cpu") -> tuple[list[nn.Module], tuple[Any, ...]]:
    """The modules in eval mode, `copies` of them, and arguments for each: `batch` random texts of `length` tokens, none of them padding.

    Weights are random, those of a `Finished` network its own.
    """
    import torch

    with torch.device(device):
        mask = torch.ones(batch, length, dtype=torch.int64)
        if isinstance(subject, Piece):
            return [subject.part.build().eval() for _ in range(copies(subject))], _arguments(subject, mask)
        network, spec = _network(subject)
        ids = torch.randint(spec.stem.vocabulary, (batch, length))
        second = (None, ids.flip(1), mask) if spec.stem.texts == 2 else ()
        return [network.to(device).eval()], (ids, mask, *second)


def _network(subject: NetworkSpec | Finished) -> tuple[Network, NetworkSpec]:
    if isinstance(subject, NetworkSpec):
        return Network(subject), subject
    network = load_network(subject.folder)
    return network, network.spec


def _arguments(piece: Piece, mask: Tensor) -> tuple[Any, ...]:
    import torch

    batch, length = mask.shape
    if piece.role == "stem":
        return torch.randint(getattr(piece.part, "vocabulary"), (batch, length)), mask  # noqa: B009 (a stem, in any method)
    hidden, valid = torch.randn(batch, length, piece.width), mask.bool()[..., None]
    if piece.role == "operation":
        return hidden, valid
    if piece.role == "cell":
        return (hidden, valid), (torch.randn_like(hidden), valid), valid
    if piece.role == "layer":
        return hidden, mask
    states = tuple(torch.randn_like(hidden) for _ in range(getattr(piece.part, "states", 1)))
    table = (torch.randn(piece.part.vocabulary, piece.part.width),) if isinstance(piece.part, MaskedLanguageModelHead) else ()
    return states, mask, *table
