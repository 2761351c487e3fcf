"""The actor in which Ray Tune's `Tuner` runs: a process beside the driver, whose generators, signals and output it leaves alone."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from tempfile import TemporaryDirectory
from typing import Any

import ray
from ray import tune
from ray.tune.experiment import Trial

from search.ray_.generations import Generations, Messenger, Offer, Pausing
from search.ray_.tasks import RETRIES
from search.strategies.strategy import Problem

SETTINGS = {
    "RAY_AIR_NEW_OUTPUT": "0",  # which prints a box even where it is to print nothing
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1e9",
}
"""Of Tune: no files and no lines that nobody reads."""


class TuneHost:
    """`fit` runs the search, while the driver asks and the trials hand over and hear."""

    def __init__(self, name: str, problem: Problem) -> None:
        os.environ.update(SETTINGS)
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
        self._generations = Generations(name, problem)

    def ask(self, count: int, scores: Sequence[float | None]) -> Offer:
        """Up to `count` architectures, and how many proposals were repeats; `scores`: of those asked for before, in their order."""
        self._generations.orders.put((count, scores))
        offer = self._generations.offers.get()
        if isinstance(offer, BaseException):
            raise offer
        return offer

    def end(self, scores: Sequence[float | None]) -> None:
        """The trials that wait report, and `fit` comes to its end."""
        self._generations.orders.put((0, scores))

    def exchange(self, configuration: Mapping[str, Any]) -> dict[str, Any]:
        """Called by trials."""
        return self._generations.exchange(configuration)

    def fit(self) -> None:
        """A resource that only this node has holds the trials here; it is none that other work asks for."""
        here = {"cpu": 0, f"node:{ray.util.get_node_ip_address()}": 0.001}
        with TemporaryDirectory() as folder:
            tuner = tune.Tuner(
                tune.with_resources(Messenger, here),
                tune_config=tune.TuneConfig(
                    search_alg=self._generations,
                    scheduler=Pausing(self._generations),
                    num_samples=-1,
                    reuse_actors=True,
                    trial_dirname_creator=_folder,
                ),
                run_config=tune.RunConfig(
                    name="search",
                    storage_path=folder,
                    verbose=0,
                    failure_config=tune.FailureConfig(max_failures=RETRIES),
                    checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                ),
            )
            try:
                tuner.fit()
            except BaseException as error:
                self._generations.offers.put(error)
                raise


def _folder(trial: Trial) -> str:
    return str(trial.trial_id)
