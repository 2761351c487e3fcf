"""Stage `derive`: which architecture a trained supernet has found, by the rule of the options, without a budget or under one."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from methods.adabert.budgeted import CostOf, budgeted
from methods.adabert.derivation import AlphaModel, derive
from methods.adabert.masking import LossOf, project, relaxed_loss, tuner
from methods.adabert.plan import DERIVE, Plan
from methods.adabert.relaxation import Relaxation
from methods.budget import Budget
from methods.errors import UserError
from methods.evaluation import Run, evaluate, weights_digest
from methods.recipe import StageRecord
from methods.space import Architecture
from methods.supernet import inputs
from methods.tasks.batches import Collate, evaluation_batches, training_batches
from methods.tasks.split import stratified_rows
from methods.training.checkpoint import write_atomically
from methods.training.loop import seed_of
from methods.training.processes import by_main_process, of_main_process
from methods.training.stage import training_flops

if TYPE_CHECKING:
    from methods.adabert.options import AdaBertOptions
    from methods.adabert.statistics import Statistician
    from methods.adabert.supernet import AdaBertSupernet
    from methods.recipe import Context

BATCH = 128
TRIES = 100
"""So many draws per candidate are made to meet a budget."""


def sample_best(model: AlphaModel, count: int, seed: int, score: Callable[[Architecture], float], fits: Callable[[Architecture], bool]) \
        -> Architecture | None:  # fmt: skip
    """Of `count` different draws that fit the one of the highest score, of equal ones the more probable; None where none fits."""
    rng = np.random.default_rng(seed)
    drawn: dict[Architecture, None] = {}
    for _ in range(TRIES * count):
        if len(drawn) == count:
            break
        one = model.draw(rng)
        if fits(one):
            drawn[one] = None
    return max(drawn, key=lambda a: (score(a), model.log_probability(a)), default=None)


@dataclass
class Derivation:
    """Of one trained supernet. What was found lies as plain data in the stage's folder, and is read there the next time."""

    context: Context
    options: AdaBertOptions
    supernet: AdaBertSupernet
    statistician: Statistician
    collate: Collate
    examples: int = 0
    flops: float = 0.0

    @cached_property
    def model(self) -> AlphaModel:
        return AlphaModel.of_supernet(self.supernet)

    @property
    def weights(self) -> Relaxation:
        """The probabilities of operations and depths."""
        found = self.supernet.probabilities()
        return Relaxation(found.edges.detach(), found.depth.detach())

    def run(self) -> Architecture:
        """The rule without a budget."""
        return self._settled(Budget(), {}, self._unlimited)

    def under(self, budget: Budget, cost_of: CostOf) -> Architecture | None:
        """The rule under a budget: `budget` and `sample_best` look at it; of the others the one architecture, None where that exceeds it.

        Raises UserError where no architecture at all meets the budget.
        """
        if self.options.derivation.rule in ("argmax", "perturbation"):
            found = self.run()
            return found if budget.met_by(cost_of(found)) else None
        least = cost_of(self.supernet.space.smallest()).measured_against() if budget.limits() else {}
        return self._settled(budget, least, lambda: self._limited(budget, cost_of))

    def _unlimited(self) -> Architecture:
        rule = self.options.derivation.rule
        if rule == "perturbation":
            return self._projected()
        if rule == "sample_best":
            found = sample_best(self.model, self.options.derivation.candidates, self.context.seed, self.score, lambda _: True)
            assert found is not None
            return found
        return derive(self.supernet.space, self.supernet.edge_logits, self.supernet.depth_logits)

    def _limited(self, budget: Budget, cost_of: CostOf) -> Architecture:
        o = self.options.derivation
        if o.rule == "budget":
            return budgeted(self.model, budget, cost_of)[0].architecture
        found = sample_best(self.model, o.candidates, self.context.seed, self.score, lambda a: budget.met_by(cost_of(a)))
        if found is None:  # draws hardly ever meet it: the most probable ones that do stand in for them
            likely = budgeted(self.model, budget, cost_of, o.candidates)
            found = max((one.architecture for one in likely), key=self.score)
        return found

    def score(self, architecture: Architecture) -> float:
        """The task's metric on `search`, with the supernet's weights and statistics re-estimated."""
        network = self.statistician.extract(self.supernet, architecture)
        estimated = self.options.derivation.batch_norm_batches * self.options.search.batch_size
        self._count(min(estimated, len(self.context.task.split("train"))), self._forward(architecture))
        return self.evaluate(lambda batch: network(**inputs(batch)), architecture)

    def evaluate(self, run: Run, architecture: Architecture) -> float:
        """The task's metric on `search` of whatever runs this architecture."""
        split, task = self.context.task.split("search"), self.context.task.spec
        self._count(len(split), self._forward(architecture))
        return evaluate(run, self.collate, split, task, self.context.hardware).metrics[task.metric]

    def _count(self, rows: int, flops: float) -> None:
        """`flops` of one row, at the greatest length."""
        self.examples += rows
        self.flops += rows * flops

    def _forward(self, architecture: Architecture) -> float:
        return training_flops([], [self.supernet.spec(architecture)])(1, self.context.max_length)

    def _mixed(self) -> float:
        """FLOPs of one row through all operations."""
        net = self.supernet
        return Plan(self.options, net.space, net.backbone, net.head_kind, 1, self.context.max_length).supernet_flops()

    def _projected(self) -> Architecture:
        o, context = self.options, self.context
        supernet, space = self.supernet, self.supernet.space
        weights = self.weights
        if o.derivation.blank:
            weights = Relaxation(weights.edges.new_full(weights.edges.shape, 1 / weights.edges.shape[1]), weights.depth * 0 + 1 / o.cells)
        own = copy.deepcopy(supernet)
        tune = tuner(own, self._training(), o.derivation.tuning_steps, o.search.weights, context.seed)
        return project(space, weights, self.loss(own, o.derivation.masked_rows), context.seed, tune)

    def loss(self, supernet: AdaBertSupernet, rows: int) -> LossOf:
        """The loss of the mixed supernet on at most so many rows of `search`; what it takes is counted."""
        batches, flops = self.searched(rows), self._mixed()
        plain = relaxed_loss(supernet, batches)

        def counted(weights: Relaxation) -> float:
            self._count(sum(len(batch["labels"]) for batch in batches), flops)
            return plain(weights)

        return counted

    def searched(self, rows: int) -> list[dict[str, Tensor]]:
        """Batches of at most so many rows of `search`, a stratified choice."""
        split = self.context.task.split("search")
        encoded = self.collate.encode(split.take(stratified_rows(split.labels, rows, seed=0)))
        return [self._batch(encoded, places) for places in evaluation_batches(encoded.lengths, BATCH)]

    def _training(self) -> Iterator[dict[str, Tensor]]:
        """Batches of `train` without end."""
        encoded = self.collate.encode(self.context.task.split("train"))
        epoch = 0
        while True:
            for rows in training_batches(encoded.lengths, self.options.search.batch_size, self.context.seed, epoch):
                self._count(len(rows), 3 * self._mixed())
                yield self._batch(encoded, rows)
            epoch += 1

    def _batch(self, encoded: Any, rows: list[int]) -> dict[str, Tensor]:
        return {name: tensor.to(self.context.hardware.device) for name, tensor in self.collate(encoded, rows).items()}

    def _settled(self, budget: Budget, least: Mapping[str, float], choose: Callable[[], Architecture]) -> Architecture:
        """What `choose` says, from the stage's folder where it was asked before. Raises UserError where that is damaged, of another search
        or of other costs; `least`: those of the smallest architecture."""
        limits = budget.limits()
        made_of = {
            "supernet": self._digest,
            "derivation": self.options.derivation.model_dump(),
            "search": self.context.task.split("search").digest,
            "limits": limits,
            "costs": dict(least),
        }
        name = "architecture" if not limits else f"architecture-{seed_of(json.dumps(limits, sort_keys=True)):015x}"
        path = self.context.folder / DERIVE / f"{name}.json"
        if not of_main_process(path.exists()):
            stage = DERIVE if not limits else f"{DERIVE} ({budget.label()})"
            by_main_process(lambda: self._choose(choose, stage, path, made_of))
        found, record = _read(path, made_of)
        self.context.record(record)
        return found

    def _choose(self, choose: Callable[[], Architecture], stage: str, path: Path, made_of: dict[str, Any]) -> None:
        """Leaves in the file what `choose` says, and what that cost."""
        started, self.examples, self.flops = time.monotonic(), 0, 0.0
        found = choose()
        record = StageRecord(stage, 0, self.examples, self.flops, time.monotonic() - started)
        data = {"made_of": made_of, "architecture": found.to_json(), "log_probability": self.model.log_probability(found)}
        write_atomically(path, json.dumps({**data, "choices": found.choices, "record": vars(record)}, indent=1) + "\n")

    @cached_property
    def _digest(self) -> str:
        return weights_digest(self.supernet)


def _read(path: Path, made_of: dict[str, Any]) -> tuple[Architecture, StageRecord]:
    try:
        data = json.loads(path.read_text())
        found, record, known = Architecture.from_json(data["architecture"]), StageRecord(**data["record"]), dict(data["made_of"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: damaged ({error}); remove it to have it derived anew") from error
    other = [key for key, value in json.loads(json.dumps(made_of)).items() if known.get(key) != value]
    if other:
        raise UserError(f"{path}: was derived with other {', '.join(other)}; choose another run folder, or remove the file")
    return found, record
