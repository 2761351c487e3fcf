"""Ray Tune as a strategy: a `Tuner` with `OptunaSearch`, whose trials are evaluated where those of all strategies are.

A trial of Tune is a messenger. It hands its configuration to the driver and is paused until the score is there; measuring is left to the
actors of `search.ray_.pool`, which are warm, and every measurement is in the archive, so that a search is resumed by being told again.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, cast
from uuid import uuid4

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from methods.space import Architecture
from search.ray_.cluster import connected
from search.ray_.failures import gave_up, raised
from search.ray_.host import TuneHost
from search.strategies.strategy import Problem, Strategy

NAME = "Ray Tune"
END_SECONDS = 30.0


class RayTune(Strategy):
    """The driver's side. From the first question on, on the cluster that Ray is connected to, else on this machine alone until the search
    ends."""

    def __init__(self, problem: Problem) -> None:
        self._problem, self._ray = problem, ExitStack()
        self._host: Any = None
        self._asked: list[Architecture] = []
        self._told: dict[Architecture, float | None] = {}

    def _start(self) -> None:
        self._ray.enter_context(connected("local"))
        name = f"{NAME} {uuid4().hex}"
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        options: dict[str, Any] = {"name": name, "num_cpus": 0, "max_concurrency": 4, "scheduling_strategy": here}
        self._host = ray.remote(cast(Any, TuneHost)).options(**options).remote(name, self._problem)
        self._fit = self._host.fit.remote()

    def ask(self, count: int) -> list[Architecture]:
        if self._host is None:
            self._start()
        try:
            self._asked, self.duplicates = ray.get(self._host.ask.remote(count, self._scores()))
        except RayTaskError as error:
            raise raised(NAME, error) from error
        except RayError as error:
            raise gave_up(NAME, error, 1) from error
        return list(self._asked)

    def tell(self, architecture: Architecture, score: float | None, violations: Mapping[str, float]) -> None:  # noqa: ARG002 (trials name them)
        self._told[architecture] = score

    def close(self) -> None:
        if self._host is None:
            return
        try:
            self._host.end.remote(self._scores())
            ray.get(self._fit, timeout=END_SECONDS)
        except (RayError, GetTimeoutError):
            pass  # what failed has been told by `ask`
        finally:
            ray.kill(self._host)
            self._ray.close()

    def _scores(self) -> list[float | None]:
        found = [self._told.get(architecture) for architecture in self._asked]
        self._told = {}
        return found
