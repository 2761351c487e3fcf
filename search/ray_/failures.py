"""What Ray says of a call that came to no end, as one message."""

from __future__ import annotations

import re

from ray.exceptions import RayError, RayTaskError

from methods.errors import StageError, UserError

_PLACE = re.compile(r'File "([^"]+)", line (\d+)')
_MEMORY = ("outofmemory", "out of memory", "memory monitor", "low on memory")


def raised(what: str, error: RayTaskError) -> UserError:
    """The mistake that a call raised: a user's as it is, any other as the failure of this one stage, with its place in the code."""
    cause = error.cause
    if isinstance(cause, UserError):
        return cause
    places = _PLACE.findall(str(error))
    where = f" ({places[-1][0].rpartition('site-packages/')[2]}, line {places[-1][1]})" if places else ""
    return StageError(f"{what}: {type(cause).__name__}: {_first_line(cause)}{where}")


def gave_up(what: str, error: RayError, deaths: int) -> StageError:
    """A call whose worker died each time that it was made."""
    text = f"{type(error).__name__} {error}".lower()
    if any(word in text for word in _MEMORY):
        why = "memory ran out on its node; raise resources.memory of the method, so that fewer run side by side, or lower its batch_size"
    else:
        why = _first_line(error)
    return StageError(f"{what}: its worker died {deaths} times, the last time: {why}")


def first_of(mistakes: list[UserError]) -> UserError:
    """What to raise of several mistakes: one that ends the whole run before one that ends a stage alone."""
    found = next((mistake for mistake in mistakes if not isinstance(mistake, StageError)), mistakes[0])
    return found if len(mistakes) == 1 else type(found)(f"{found} (and {len(mistakes) - 1} more)")


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__
