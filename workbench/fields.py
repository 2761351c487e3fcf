"""The kinds of values in an experiment file: counts, seeds, quantities with K, M or G, durations, names of devices."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer

from methods.budget import parse_quantity, parse_seconds
from methods.errors import UserError
from methods.registry import import_plugins

Count = Annotated[int, Field(ge=1)]
Seeds = Annotated[tuple[Annotated[int, Field(ge=0, le=2**63 - 1)], ...], Field(min_length=1)]


def _quantity(value: Any) -> Any:
    try:
        return None if value is None else parse_quantity(value, "")
    except UserError as error:
        raise ValueError(str(error).removeprefix(": ")) from error


def _imported(modules: tuple[str, ...]) -> tuple[str, ...]:
    try:
        import_plugins(modules)
    except UserError as error:
        raise ValueError(str(error)) from error
    return modules


def _whole(value: float | None) -> float | int | None:
    return int(value) if value is not None and value == int(value) else value


def _seconds(value: Any) -> Any:
    try:
        return parse_seconds(value, "")
    except UserError as error:
        raise ValueError(str(error).removeprefix(": ")) from error


Quantity = Annotated[float | None, BeforeValidator(_quantity), PlainSerializer(_whole)]
Latency = Annotated[float, BeforeValidator(_seconds)]
Device = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]
Plugins = Annotated[tuple[str, ...], AfterValidator(_imported)]
"""Modules; they are imported when they are read."""
