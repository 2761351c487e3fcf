"""What is timed, a piece or a whole network: as JSON, and as a module with inputs for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import methods.registry
from methods.layers.heads import MaskedLanguageModelHead
from methods.layers.part import Part, Piece, part_from_dict
from methods.network import Network, NetworkSpec

if TYPE_CHECKING:
    from torch import Tensor, nn

Subject = Piece | NetworkSpec


def to_dict(subject: Subject) -> dict[str, Any]:
    """Plain JSON data."""
    if isinstance(subject, NetworkSpec):
        return {"network": subject.to_dict()}
    return {"piece": subject.part.to_dict(), "width": subject.width, "role": subject.role}


def from_dict(data: Mapping[str, Any]) -> Subject:
    """The inverse of `to_dict`; the modules that define the parts must have been imported."""
    if "network" in data:
        return NetworkSpec.from_dict(data["network"])
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
    return subject.parts if isinstance(subject, NetworkSpec) else (subject.part,)


def size(subject: Subject) -> int:
    """Bytes of its parameters in float32."""
    return 4 * sum(part.embedding_parameters() + part.other_parameters() for part in parts_in(subject))


def flops(subject: Subject, length: int) -> int:
    """FLOPs of one text."""
    return sum(part.flops(length) for part in parts_in(subject))


def prepared(subject: Subject, batch: int, length: int) -> tuple[nn.Module, tuple[Any, ...]]:
    """The module in eval mode with random weights, and arguments for it: `batch` random texts of `length` tokens, none of them padding."""
    import torch

    mask = torch.ones(batch, length, dtype=torch.int64)
    if isinstance(subject, NetworkSpec):
        ids = torch.randint(subject.stem.vocabulary, (batch, length))
        second = (None, ids.flip(1), mask) if subject.stem.texts == 2 else ()
        return Network(subject).eval(), (ids, mask, *second)
    return subject.part.build().eval(), _arguments(subject, mask)


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
