"""Evaluates networks on splits and keeps the results; what the archive knows is not computed again."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from methods.evaluation import Run, evaluate, evaluate_in_parts, weights_digest
from methods.network import Network
from methods.recipe import Hardware
from methods.space import Architecture
from methods.supernet import inputs
from methods.tasks.metrics import compute
from methods.tasks.task import Task
from methods.training.processes import by_main_process
from search.archive import Archive
from search.limits import costs_on
from search.measurement import Kind, Measurement
from search.predictions import Predictions
from search.stopping import Race, Stopped, right
from workbench.experiment import CostOptions

if TYPE_CHECKING:
    from methods.costs import Costs
    from methods.latency import LatencyTable
    from methods.tasks.batches import Collate


@dataclass(frozen=True)
class Measurer:
    """Of one task and seed; `collate` is the method's own. `devices`: latency tables."""

    archive: Archive
    task: Task
    collate: Collate
    seed: int
    cost: CostOptions
    hardware: Hardware
    devices: Mapping[str, LatencyTable] = field(default_factory=dict)

    def known(self, architecture: Architecture, split: str, digest: str, kind: Kind) -> Measurement | None:
        """What the archive holds of these weights."""
        return self.archive.find(architecture.id, self.task.name, self.task.split(split).digest, digest, kind)

    def measure(
        self, run: Run, architecture: Architecture, used: Costs, split: str, digest: str, kind: Kind, control: str = ""
    ) -> tuple[Measurement, Predictions]:
        """Scores `run` on a split; nothing is kept."""
        rows, spec = self.task.split(split), self.task.spec
        found = evaluate(run, self.collate, rows, spec, self.hardware)
        key = (architecture, self.task.name, split, rows.digest, digest, kind)
        measurement = Measurement(*key, self.seed, spec.metric, found.metrics, used, control, found.seconds)
        return measurement, Predictions(found.ids, found.logits, rows.labels)

    def race(
        self, run: Run, race: Race, used: Costs, split: str, digest: str, kind: Kind
    ) -> tuple[Measurement, Predictions] | tuple[Stopped, None]:
        """`measure` of the race's architecture, or what is known of it by then where it is found hopeless."""
        rows, spec = self.task.split(split), self.task.spec
        logits = np.empty((len(rows), len(spec.labels)), dtype=np.float32)
        key = (race.architecture, self.task.name, split, rows.digest, digest, kind)
        started = time.monotonic()
        for seen, found in evaluate_in_parts(run, self.collate, rows, race.parts(), self.hardware):
            rightly = right(found, rows.labels[seen])
            logits[seen] = found
            if len(seen) < len(rows) and (p := race.p_value(seen, rightly)) <= race.level:
                told = (len(seen), race.estimate(seen, rightly), tuple(rival.id for rival in race.rivals), p)
                return Stopped(*key, self.seed, *told, time.monotonic() - started), None
        metrics = compute(spec, logits, rows.labels)
        measurement = Measurement(*key, self.seed, spec.metric, metrics, used, "", time.monotonic() - started)
        return measurement, Predictions(np.asarray(rows.ids), logits, rows.labels)

    def keep(
        self, run: Run, architecture: Architecture, used: Costs, split: str, digest: str, kind: Kind, control: str = ""
    ) -> Measurement:
        """The measurement of these weights on a split: from the archive, or made and kept there."""

        def found() -> Measurement:
            known = self.known(architecture, split, digest, kind)
            if known is not None:
                return known
            measurement, predictions = self.measure(run, architecture, used, split, digest, kind, control)
            self.archive.add(measurement, predictions)
            return measurement

        return by_main_process(found)

    def network(
        self, network: Network, architecture: Architecture, kind: Kind, control: str = "", used: Costs | None = None
    ) -> dict[str, Measurement]:
        """A stand-alone network on `search` and on all that the task reports on (MNLI has a mismatched `validation` too), by split.

        `used`: the costs to keep, where the network is not in the form that ships.
        """
        splits = [name for name in self.task.split_names if name != "train"]
        network = network.to(self.hardware.device).eval()
        used = used or costs_on(network.spec, self.cost.length, self.cost.batch, self.devices)
        digest = weights_digest(network)
        return {
            split: self.keep(lambda batch: network(**inputs(batch)), architecture, used, split, digest, kind, control) for split in splits
        }
