"""Where in a file a mistake is: `methods[0].widths`, and all mistakes of a file in one message."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, get_origin

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

Place = Sequence[str | int]
_WANTED = {
    "tuple_type": "write a list, such as [a, b]",
    "dict_type": "write a mapping, such as {key: value}",
    "model_type": "write a mapping, such as {key: value}",
    "string_type": "write text, in quotes where YAML takes it for something else",
    "too_short": "at least %(min_length)s entries are needed, there are %(actual_length)s",
    "too_long": "at most %(max_length)s entries are possible, there are %(actual_length)s",
}
"""What would be right, where pydantic speaks of Python's types."""


def notation(place: Place) -> str:
    """`("methods", 0, "widths")` as `methods[0].widths`."""
    text = ""
    for step in place:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def mistakes(error: ValidationError, model: type[BaseModel], prefix: Place = ()) -> list[str]:
    """One line for each mistake: its place, what is wrong there, and the value."""
    lines = []
    details = error.errors(include_url=False)
    for detail in details:
        # a list whose only entry is wrong is also "too short" to pydantic
        if detail["type"] == "too_short" and any(other["loc"][: len(detail["loc"])] == detail["loc"] != other["loc"] for other in details):
            continue
        wanted = _WANTED.get(detail["type"], "") % detail.get("ctx", {})
        place, message = (*prefix, *detail["loc"]), wanted or detail["msg"].removeprefix("Value error, ")
        if detail["type"] == "extra_forbidden":
            lines.append(f"{notation(place)}: unknown key{suggestion(str(place[-1]), _keys(model, detail['loc'][:-1]))}")
        elif detail["type"] == "missing":
            lines.append(f"{notation(place)}: missing")
        else:
            where = f"{notation(place)}: " if place else ""
            lines.append(f"{where}{message[:1].lower()}{message[1:]}{_value(detail['input'])}")
    return lines


def suggestion(wrong: str, known: Iterable[str]) -> str:
    """What was perhaps meant, else all that there is."""
    known = list(known)
    near = get_close_matches(wrong, known, n=1)
    if near:
        return f"; did you mean {near[0]}?"
    return f"; there are {', '.join(known)}" if known else ""


def _value(value: Any) -> str:
    return f" (got {value!r})" if isinstance(value, str | int | float | bool | None) else ""


def _keys(model: Any, place: Place) -> list[str]:
    """The keys that the model has at a place; none where it can't be told."""
    from pydantic import BaseModel

    keyed = False
    for step in place:
        if isinstance(step, int) or keyed:
            keyed = False
            continue
        fields = getattr(model, "model_fields", {})
        if step not in fields:
            return []
        annotation = fields[step].annotation
        model, keyed = _model_in(annotation), get_origin(annotation) is dict
    return list(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else []


def _model_in(annotation: Any) -> Any:
    """The pydantic model within an annotation such as `tuple[Model, ...]` or `Model | None`."""
    from pydantic import BaseModel

    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = [_model_in(argument) for argument in getattr(annotation, "__args__", ())]
    return next((model for model in found if model is not None), None)
