"""The architectures of a trained supernet scored with its weights, kept in the archive, and searched."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from methods.budget import Budget
from methods.costs import costs
from methods.evaluation import weights_digest
from methods.recipe import Context, TaskRecipe
from methods.space import Architecture
from methods.supernet import Supernet
from methods.training.processes import by_main_process
from methods.training.progress import progress_bar
from search.incumbents import EarlyStop
from search.limits import CostFunction
from search.loop import Evaluated, SearchResult, one_by_one, search
from search.measurement import Measurement
from search.predictions import Predictions
from search.stopping import Race, Stopped
from search.tables import SearchRow
from workbench.measuring import Measurer

if TYPE_CHECKING:
    from workbench.experiment import SearchOptions


@dataclass(frozen=True)
class SharedScores:
    """Of one method on one task with one seed; `cost_of`: costs of the deployed form."""

    recipe: TaskRecipe
    context: Context
    supernet: Supernet
    measurer: Measurer
    cost_of: CostFunction
    elsewhere: Callable[[Sequence[Any]], Iterable[Any]] | None = None
    """What answers on `search` as `answer` does, where other processes do it."""

    @cached_property
    def digest(self) -> str:
        """Of the supernet's weights."""
        return weights_digest(self.supernet)

    def on(self, *splits: str) -> SharedScores:
        """With these splits alone."""
        return replace(self, measurer=replace(self.measurer, task=self.measurer.task.restricted(*splits)))

    def known(self, architecture: Architecture, split: str = "search") -> Measurement | None:
        """What the archive holds of this supernet."""
        return self.measurer.known(architecture, split, self.digest, "shared")

    def measure(self, architecture: Architecture, split: str = "search") -> tuple[Measurement, Predictions]:
        """Nothing is kept. The seconds are those of all that it takes to have the score, re-estimated statistics included."""
        started = time.monotonic()
        run = self.recipe.score(self.context, self.supernet, architecture)
        found, predictions = self.measurer.measure(run, architecture, self.cost_of(architecture), split, self.digest, "shared")
        return replace(found, seconds=time.monotonic() - started), predictions

    def race(self, race: Race, split: str = "search") -> Evaluated | Stopped:
        """`measure`, but for what is found hopeless on the way."""
        if not race.rivals:
            return self.measure(race.architecture, split)
        started = time.monotonic()
        run = self.recipe.score(self.context, self.supernet, race.architecture)
        found, predictions = self.measurer.race(run, race, self.cost_of(race.architecture), split, self.digest, "shared")
        seconds = time.monotonic() - started
        return replace(found, seconds=seconds) if isinstance(found, Stopped) else (replace(found, seconds=seconds), predictions)

    def answer(self, asked: Architecture | Race) -> Evaluated | Stopped:
        """What is asked of another process."""
        return self.race(asked) if isinstance(asked, Race) else self.measure(asked)

    def keep(self, architecture: Architecture, split: str = "search") -> Measurement:
        """From the archive, or made and kept there."""

        def found() -> Measurement:
            known = self.known(architecture, split)
            if known is not None:
                return known
            made, predictions = self.measure(architecture, split)
            self.measurer.archive.add(made, predictions)
            return made

        return by_main_process(found)

    def keep_all(self, architectures: Sequence[Architecture]) -> None:
        """`keep` of each on `search`, side by side where others measure."""
        unknown = [architecture for architecture in architectures if self.known(architecture) is None] if self.elsewhere else []
        for found, predictions in self.elsewhere(unknown) if self.elsewhere and unknown else ():
            self.measurer.archive.add(found, predictions)
        for architecture in architectures:
            self.keep(architecture)

    def search(self, budgets: Sequence[Budget], options: SearchOptions) -> SearchResult:
        """Under every budget, on `search`; nothing where there is no budget. The main process searches alone."""
        return by_main_process(lambda: self._search(budgets, options)) if budgets else SearchResult(())

    def _search(self, budgets: Sequence[Budget], options: SearchOptions) -> SearchResult:
        space, bar = self.supernet.space, progress_bar(1, "search")

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        evaluate, how = self.elsewhere or one_by_one(self.measure), (options.strategy, options.evaluations, self.measurer.seed)
        archive, objectives = self.measurer.archive, options.objectives
        last = (options.generation, objectives, self._early(options.early_stop))
        result = search(space, evaluate, budgets, *how, self.cost_of, self.known, archive.add, progress, *last)
        bar.close()
        return result

    def _early(self, error: float | None) -> EarlyStop | None:
        if error is None:
            return None
        archive, (task, split) = self.measurer.archive, (self.measurer.task.name, self.measurer.task.split("search").digest)

        def known(architecture: Architecture) -> Stopped | None:
            return archive.find_stopped((architecture.id, task, split, self.digest, "shared"))

        def predictions(measurement: Measurement) -> Predictions | None:
            return archive.predictions(measurement.key)

        return EarlyStop(error, self.elsewhere or one_by_one(self.race), predictions, known, archive.add_stopped)

    def cost(self, strategy: str, label: str, measurements: Sequence[Measurement], stopped: Sequence[Stopped] = ()) -> SearchRow:
        """Added up from measurements, so that an interrupted search costs what an uninterrupted one does; FLOPs at the mean length, of
        the rows of `search` that were read and those that are read before."""
        split, s = self.measurer.task.split("search"), self.supernet
        length = max(1, round(float(self.measurer.collate.encode(split).lengths.mean())))
        before = self.recipe.rows_before_score(self.context)
        read = [(m.architecture, len(split), m.seconds) for m in measurements] + [(m.architecture, m.rows, m.seconds) for m in stopped]
        flops = sum(costs(s.spec(architecture), length).flops * (rows + before) for architecture, rows, _ in read)
        seconds = sum(seconds for *_, seconds in read)
        names = (self.measurer.task.name, s.space.method, self.measurer.seed, strategy, label)
        return SearchRow(*names, len(read), seconds, float(flops))
