"""A search in generations as Ray Tune sees it: what suggests trials, what schedules them, and what a trial does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from queue import Queue
from typing import Any

import ray
from ray.tune import Trainable
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from methods.space import Architecture
from search.ray_.optuna_search import QUALITY, OptunaSearchStrategy
from search.strategies.strategy import Problem

HOST, PLACE = "search", "place"
"""In a trial's configuration beside the choices: the name of the actor that it hands them to, and its place in the generation."""
Order = tuple[int, Sequence[float | None]]
Offer = tuple[list[Architecture], int]


class Messenger(Trainable):
    """A trial: hands its configuration over; where the score is known it reports that and is done. One process serves all trials."""

    def setup(self, config: dict[str, Any]) -> None:
        self._configuration = config

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._configuration = new_config
        return True

    def step(self) -> dict[str, Any]:
        host: Any = ray.get_actor(self._configuration[HOST])
        known: dict[str, Any] = ray.get(host.exchange.remote(self._configuration))
        return {**known, "done": True} if known else {}


class Generations(Searcher):
    """Suggests what `OptunaSearch` proposes, a generation at a time, and tells it of a generation as a whole, in the order of suggesting.

    `orders`: how many to propose (none: the end), and the scores of those before. `offers`: what the trials of a generation handed over,
    nothing where the space is exhausted, and the number of repeats so far; or what went wrong.
    """

    def __init__(self, name: str, problem: Problem) -> None:
        super().__init__()
        self.orders: Queue[Order] = Queue()
        self.offers: Queue[Offer | BaseException] = Queue()
        self._name, self._space, self._strategy = name, problem.space, OptunaSearchStrategy(problem)
        self._wanted: int | None = None
        self._generation: list[Architecture] = []
        self._scores: Sequence[float | None] | None = None
        self._left: list[int] = []
        self._open: dict[str, int] = {}
        self._handed: dict[int, Architecture] = {}
        self._reported: dict[int, float | None] = {}
        self._one_begins = False

    @property
    def all_handed(self) -> bool:
        """Whether every trial of the generation waits for its score."""
        return not self._left and not self._one_begins

    def suggest(self, trial_id: str) -> Any:
        """One trial after the other, so that the process of the one before is free."""
        if self._one_begins:
            return None
        if not self._left and not self._open and not self._begin():
            return Searcher.FINISHED
        if not self._left:
            return None
        place = self._open[trial_id] = self._left.pop(0)
        self._one_begins = True
        return {HOST: self._name, PLACE: place, **self._space.encode(self._generation[place])}

    def exchange(self, configuration: Mapping[str, Any]) -> dict[str, Any]:
        """Takes what a trial hands over. Returns what it is to report, nothing while that is not known."""
        choices = {name: value for name, value in configuration.items() if name not in (HOST, PLACE)}
        self._handed[configuration[PLACE]] = self._space.decode(choices)
        return {} if self._scores is None else {QUALITY: self._scores[configuration[PLACE]]}

    def wait_for_scores(self) -> None:
        """Offers the generation, and waits until its scores are there."""
        if self._scores is None:
            self.offers.put(([self._handed[place] for place in range(len(self._generation))], self._strategy.duplicates))
            self._wanted, self._scores = self.orders.get()

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:  # noqa: ARG002 (Tune's signature)
        """It has handed its configuration over."""
        self._one_begins = False

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        if error or result is None:
            raise RuntimeError("a trial came to no end")
        self._reported[self._open.pop(trial_id)] = result[QUALITY]

    def _begin(self) -> bool:
        """The next generation. Returns whether there is one."""
        if self._wanted is None:
            self._wanted, _ = self.orders.get()
        while self._wanted:
            for place, architecture in enumerate(self._generation):
                self._strategy.tell(architecture, self._reported[place], {})
            self._handed, self._reported, self._scores = {}, {}, None
            self._generation = self._strategy.ask(self._wanted)
            self._left = list(range(len(self._generation)))
            if self._generation:
                return True
            self.offers.put(([], self._strategy.duplicates))
            self._wanted, _ = self.orders.get()
        return False

    def save(self, checkpoint_path: str) -> None:
        """The archive is what a search goes on from."""

    def restore(self, checkpoint_path: str) -> None:
        """As above."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class Pausing(FIFOScheduler):
    """Trials are paused, without a process, until the scores of their generation are there, and then report in the order of suggesting."""

    def __init__(self, generations: Generations) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._generations = generations

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:  # noqa: ARG002 (Tune's signature)
        tune_controller.pause_trial(trial, should_checkpoint=False)
        return str(TrialScheduler.NOOP)

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        of: dict[str, list[Trial]] = {Trial.PENDING: [], Trial.RUNNING: [], Trial.PAUSED: []}
        for trial in tune_controller.get_live_trials():
            of.setdefault(trial.status, []).append(trial)
        if of[Trial.PENDING] or of[Trial.RUNNING]:
            return next(iter(of[Trial.PENDING]), None)
        if not of[Trial.PAUSED] or not self._generations.all_handed:
            return None
        self._generations.wait_for_scores()
        return min(of[Trial.PAUSED], key=lambda trial: trial.config[PLACE])
