"""A pool of long-lived actors that evaluate architectures: an evaluator as `search.loop.search` takes it."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from methods.errors import UserError
from search.ray_.failures import first_of, gave_up, raised
from search.ray_.tasks import RETRIES, Waiting

Evaluator = Callable[[Any], Any]


class _Worker:
    """An actor: makes its evaluator once, then answers."""

    def __init__(self, make: Callable[[], Evaluator]) -> None:
        self._make = make

    def start(self) -> None:
        """Apart from the constructor, so that a mistake comes back as it is."""
        self._evaluate = self._make()

    def evaluate(self, architecture: Any) -> Any:
        return self._evaluate(architecture)


@dataclass
class Pool:
    """Called with architectures, yields what the evaluator makes of each in the order in which they arrive.

    `make` is called when the first actor is needed and gives what makes the evaluator in each actor; what is large in that (weights) is
    an object of Ray's store, loaded once per node. There are at most `size` actors, made when there is work for them, with Ray's
    `resources` (`num_cpus`, `num_gpus`, `memory`); work goes to those that are up. What a dead actor had in hand goes to another one, up
    to `retries` times. An architecture whose evaluation raises ends the search with a StageError that names it, after all others of the
    generation have arrived.
    """

    make: Callable[[], Callable[[], Evaluator]]
    size: int
    name: str = "search"
    resources: Mapping[str, Any] = field(default_factory=dict)
    retries: int = RETRIES
    waiting: Waiting = nullcontext
    again: Callable[[str], None] = print
    _idle: list[Any] = field(default_factory=list)
    _starting: dict[Any, Any] = field(default_factory=dict)
    _busy: dict[Any, tuple[Any, Any]] = field(default_factory=dict)
    _made: int = 0
    _maker: Callable[[], Evaluator] | None = None

    def __call__(self, architectures: Sequence[Any]) -> Iterator[Any]:
        left = deque(architectures)
        deaths: Counter[Any] = Counter()
        mistakes: list[UserError] = []
        while left or self._busy:
            self._grow(len(left))
            while left and self._idle:
                actor, architecture = self._idle.pop(), left.popleft()
                self._busy[actor.evaluate.remote(architecture)] = actor, architecture
            for reference in self._arrived():
                if reference in self._starting:
                    self._started(reference, deaths)
                    continue
                actor, architecture = self._busy.pop(reference)
                try:
                    found = ray.get(reference)
                except RayTaskError as error:
                    self._idle.append(actor)
                    mistakes.append(raised(f"{self.name}, {_called(architecture)}", error))
                except RayError as error:
                    deaths[architecture] += 1
                    if deaths[architecture] > self.retries:
                        mistakes.append(gave_up(f"{self.name}, {_called(architecture)}", error, deaths[architecture]))
                    else:
                        self.again(f"{self.name}, {_called(architecture)}")
                        left.append(architecture)
                else:
                    self._idle.append(actor)
                    yield found
        if mistakes:
            raise first_of(mistakes)

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Ends the actors."""
        for actor in [*self._idle, *self._starting.values(), *(actor for actor, _ in self._busy.values())]:
            ray.kill(actor)
        self._idle, self._starting, self._busy = [], {}, {}

    def _grow(self, wanted: int) -> None:
        """As many actors as there is work for, those that are busy left out."""
        there = len(self._idle) + len(self._starting) + len(self._busy)
        for _ in range(min(self.size - there, wanted - len(self._idle) - len(self._starting))):
            self._maker = self._maker or self.make()
            self._made += 1
            actor: Any = ray.remote(_Worker).options(name=f"{self.name} #{self._made}", **self.resources).remote(self._maker)
            self._starting[actor.start.remote()] = actor

    def _arrived(self) -> list[Any]:
        pending = [*self._busy, *self._starting]
        with self.waiting():
            first, rest = ray.wait(pending, num_returns=1)
        more = ray.wait(rest, num_returns=len(rest), timeout=0)[0] if rest else []
        return [*first, *more]

    def _started(self, reference: Any, deaths: Counter[Any]) -> None:
        actor = self._starting.pop(reference)
        try:
            ray.get(reference)
        except RayTaskError as error:
            raise raised(self.name, error) from error
        except RayError as error:
            deaths[None] += 1
            if deaths[None] > self.retries:
                raise gave_up(self.name, error, deaths[None]) from error
            self.again(self.name)
        else:
            self._idle.append(actor)


def _called(architecture: Any) -> str:
    """As messages call it."""
    return str(getattr(architecture, "id", architecture))[:12]
