"""Calls on Ray side by side; one whose worker died is made again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from methods.errors import UserError
from search.ray_.failures import first_of, gave_up, raised

Waiting = Callable[[], AbstractContextManager[Any]]
RETRIES = 3


def completed(
    calls: Mapping[str, Callable[[], Any]], retries: int = RETRIES, waiting: Waiting = nullcontext, again: Callable[[str], None] = print
) -> Iterator[tuple[str, Any]]:
    """(name, value) of each call as it arrives. A call returns a reference (`f.remote(...)`).

    One whose worker or node died is made again, up to `retries` times; `again` hears of it. One that raised is not. When all have come
    to an end raises what failed: StageError, or the UserError of the call. `waiting` is entered while nothing can be done but wait.
    """
    running = {call(): name for name, call in calls.items()}
    deaths: Counter[str] = Counter()
    mistakes: list[UserError] = []
    while running:
        with waiting():
            done, _ = ray.wait(list(running), num_returns=1)
        for reference in done:
            name = running.pop(reference)
            try:
                value = ray.get(reference)
            except RayTaskError as error:
                mistakes.append(raised(name, error))
            except RayError as error:
                deaths[name] += 1
                if deaths[name] > retries:
                    mistakes.append(gave_up(name, error, deaths[name]))
                else:
                    again(name)
                    running[calls[name]()] = name
            else:
                yield name, value
    if mistakes:
        raise first_of(mistakes)
