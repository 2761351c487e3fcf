"""Where in a file a mistake is: `methods[0].widths`, and all mistakes of a file in one message."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

Place = Sequence[str | int]


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
        place, message = (*prefix, *detail["loc"]), detail["msg"].removeprefix("Value error, ")
        if detail["type"] == "extra_forbidden":
            lines.append(f"{notation(place)}: unknown key{suggestion(str(place[-1]), _keys(model, detail['loc'][:-1]))}")
        elif detail["type"] == "missing":
            lines.append(f"{notation(place)}: missing")
        else:
            lines.append(f"{notation(place) or 'the file'}: {message[:1].lower()}{message[1:]}{_value(detail['input'])}")
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

    for step in place:
        if isinstance(step, int):
            continue
        fields = getattr(model, "model_fields", {})
        if step not in fields:
            return []
        model = _model_in(fields[step].annotation)
    return list(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else []


def _model_in(annotation: Any) -> Any:
    """The pydantic model within an annotation such as `tuple[Model, ...]` or `Model | None`."""
    from pydantic import BaseModel

    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = [_model_in(argument) for argument in getattr(annotation, "__args__", ())]
    return next((model for model in found if model is not None), None)
