"""An architecture in a few words that a person can read, whatever its method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from methods.space import Architecture

SHORT_ID = 8


def short_id(architecture: Architecture) -> str:
    """The first characters of the id: enough to name an architecture of a run."""
    return architecture.id[:SHORT_ID]


def describe(architecture: Architecture, width: int | None = None) -> str:
    """The choices, repetition taken out: `layers 0-5, heads 3, neurons 384`; cut to `width` characters with an ellipsis."""
    text = ", ".join(f"{name} {_value(value)}" for name, value in _in_order(architecture.choices))
    return text if width is None or len(text) <= width else text[: width - 1].rstrip(" ,") + "…"


def _in_order(choices: dict[str, Any]) -> list[tuple[str, Any]]:
    """Layers first, for depth is what one looks for first; the version of a schema says nothing of the network."""
    return sorted(((name, value) for name, value in choices.items() if name != "schema"), key=lambda item: item[0] != "layers")


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "(" + " ".join(f"{name}={_value(inner)}" for name, inner in value.items()) + ")"
    if not isinstance(value, list) or not value:
        return "none" if value == [] else str(value)
    if all(type(entry) is int for entry in value):
        return _integers(value)
    if all(map(_is_node, value)):
        return " ".join("(" + " ".join(f"{source}:{operation}" for source, operation in node) + ")" for node in value)
    if len(value) > 1 and all(isinstance(entry, dict) and entry.keys() == value[0].keys() for entry in value):
        return " ".join(_runs([f"({':'.join(map(_within, entry.values()))})" for entry in value]))
    return " ".join(_runs([_value(entry) for entry in value]))


def _is_node(value: Any) -> bool:
    """The edges of a node of a cell: [[0, "conv_3"], [1, "identity"]], by source."""
    return isinstance(value, list) and bool(value) and all(isinstance(e, list) and [type(x) for x in e] == [int, str] for e in value)


def _within(value: Any) -> str:
    """A value of one of several alike groups: `128` or `S3.M.F` of the groups (128:S3.M.F) (192:M.F)."""
    return ".".join(map(_value, value)) if isinstance(value, list) and value else _value(value)


def _integers(values: Sequence[int]) -> str:
    """One number for a constant list, first-last for consecutive numbers, else each with its repetitions."""
    if len(set(values)) == 1:
        return str(values[0])
    if list(values) == list(range(values[0], values[-1] + 1)):
        return f"{values[0]}-{values[-1]}"
    return " ".join(_runs([str(value) for value in values]))


def _runs(words: Sequence[str]) -> list[str]:
    groups: list[list[str]] = []
    for word in words:
        if groups and groups[-1][0] == word:
            groups[-1].append(word)
        else:
            groups.append([word])
    return [group[0] if len(group) == 1 else f"{group[0]}×{len(group)}" for group in groups]
