"""A `Part`: the sizes of one piece of a network, its closed-form costs, and the module that it builds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

from torch import nn

_KINDS: dict[str, type[Part]] = {}
_WIDTHS = ("hidden", "inputs", "width")
Role = Literal["stem", "layer", "operation", "cell", "head"]


@dataclass(frozen=True)
class Part(ABC):
    """Sizes without weights. Subclasses are frozen dataclasses of plain values or other parts.

    The closed forms are plain arithmetic, so that they also take arrays in place of sizes (`SearchSpace.batch_costs` does that).
    A subclass names its `kind`, under which JSON knows it.
    """

    kind: ClassVar[str]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "kind" in cls.__dict__:
            _KINDS[cls.kind] = cls

    @abstractmethod
    def other_parameters(self) -> int:
        """Parameters that are no word, position or type table."""

    def embedding_parameters(self) -> int:
        """Parameters of word, position and type tables."""
        return 0

    @abstractmethod
    def flops(self, length: int) -> int:
        """FLOPs of one text of `length` tokens (padding included), by the convention of `methods.costs`."""

    @abstractmethod
    def build(self) -> nn.Module:
        """The module, freshly initialised."""

    def pieces(self, width: int = 0) -> tuple[Piece, ...]:
        """What runs in it one after another, for latency: the times add up. `width` of the hidden state that comes in counts where the
        part does not say it itself. A part of one piece is its own piece."""
        return (Piece(self, self.own_width() or width),)

    def own_width(self) -> int | None:
        """The width of the hidden state that comes in, by the part's own sizes; None where they do not tell."""
        return next((getattr(self, name) for name in _WIDTHS if hasattr(self, name)), None)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data with the part's kind."""
        return {"kind": self.kind, **{f.name: _plain(getattr(self, f.name)) for f in fields(self)}}


@dataclass(frozen=True)
class Piece:
    """A part that is timed by itself. `width`: of the hidden state that comes in.

    `role`, what its module takes: stem (token ids (B, L), mask (B, L)), layer (hidden (B, L, width), mask), operation (hidden, valid
    (B, L, 1)), cell (two texts of hidden and valid, and valid), head (states, mask, and for masked words the word table).
    """

    part: Part
    width: int
    role: Role = "layer"


def _plain(value: Any) -> Any:
    if isinstance(value, Part):
        return value.to_dict()
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value


def part_from_dict(data: Mapping[str, Any]) -> Part:
    """The inverse of `Part.to_dict`. Raises ValueError for a kind that no imported module defines, or fields that it lacks."""
    if data.get("kind") not in _KINDS:
        raise ValueError(f"no part of kind {data.get('kind')!r}; known: {', '.join(sorted(_KINDS))}")
    try:
        return _KINDS[data["kind"]](**{name: _restored(value) for name, value in data.items() if name != "kind"})
    except TypeError as error:
        raise ValueError(f"part {data['kind']}: {error}") from error


def _restored(value: Any) -> Any:
    if isinstance(value, Mapping):
        return part_from_dict(value)
    return tuple(_restored(item) for item in value) if isinstance(value, list) else value
