"""One step of the search: draw operations and a depth, mix the losses, leave gradients in weights and architecture parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace

import torch
from torch import Generator, Tensor

from methods.adabert import levels
from methods.adabert.efficiency import Efficiency
from methods.adabert.objective import Objective, Terms
from methods.adabert.options import SearchOptions
from methods.adabert.relaxation import Relaxation
from methods.adabert.remedies.alignment import each_cell, mean_cosine
from methods.adabert.remedies.mixing import mixing_at
from methods.adabert.remedies.operation_stop import OperationStop
from methods.adabert.remedies.penalties import penalty
from methods.adabert.remedies.perturbation import adversarial_perturbation, random_perturbation
from methods.adabert.sampling import temperature
from methods.adabert.search_data import SearchRows
from methods.adabert.search_model import SearchModel
from methods.adabert.steppers import SearchStepper
from methods.training.loop import Backward, Batch, seed_of


@dataclass
class SearchStep:
    """Everything drawn is a function of (seed, step): operations and depths are the same in every process, dropout is not."""

    model: SearchModel
    options: SearchOptions
    efficiency: Efficiency
    objective: Objective
    trained: SearchRows
    held_out: SearchRows | None
    operation_stop: OperationStop | None
    total: int
    per_epoch: int
    seed: int
    device: torch.device
    step: int = 0
    drawn: list[float] = field(default_factory=list)
    """How often each depth was drawn (soft weights add up)."""
    last: dict[str, float] = field(default_factory=lambda: {term.name: float("nan") for term in fields(Terms)})
    """The weighted terms of the step before."""
    stepper: SearchStepper | None = None

    def make_stepper(self, _: object, total: int) -> SearchStepper:
        """See `methods.training.loop.Loop.stepper`."""
        o, m = self.options, self.model
        self.stepper = SearchStepper(m.weights(), m.architecture_parameters(), o.weights, o.architecture, total)
        return self.stepper

    @property
    def progress(self) -> float:
        return self.step / self.total

    @property
    def temperature(self) -> float:
        return temperature(self.options.temperature, self.step, self.per_epoch, self.total)

    @property
    def warming(self) -> bool:
        """The architecture parameters rest."""
        return self.step < round(self.options.architecture.warm_up * self.total)

    def __call__(self, batch: Batch, backward: Backward) -> dict[str, float]:
        base = int(torch.randint(2**62, (1,)))
        losses = [self._loss(number, base) for number in range(self.options.samples_per_step)]
        alpha, level = self.model.architecture_parameters(), self.options.level
        if level == "single" or self.warming:
            levels.single(losses, batch, backward, free=not self.warming)
        elif level == "bilevel1":
            levels.bilevel(losses, batch, self.batch_of(self.held_out, self.step), backward, alpha)
        else:
            assert self.stepper is not None
            rate = self.stepper.weights.rate
            levels.unrolled(losses, batch, self.batch_of(self.held_out, self.step), backward, alpha, self.model.weights(), rate)
        if self.operation_stop is not None:
            self.operation_stop.compare(self._held_out_gradients(self.operation_stop, losses[0]))
        return {**self.last, "tau": self.temperature}

    def batch_of(self, rows: SearchRows | None, number: int) -> Batch:
        """Batch of that number of the endless series from these rows."""
        assert rows is not None
        batch = rows.numbered(number, self.options.batch_size, self.seed)
        return {name: tensor.to(self.device) for name, tensor in batch.items()}

    def generator(self, *purpose: int | str) -> Generator:
        """The same in every process."""
        return torch.Generator().manual_seed(seed_of(self.seed, "architecture", self.step, *purpose))

    def _loss(self, number: int, base: int) -> levels.Loss:
        """The loss under the draw of that number; dropout is drawn anew, the same, each time it is asked for."""

        def loss(batch: Batch, free: bool) -> Tensor:
            torch.manual_seed(seed_of(base, number))
            weights = self.model.sample(self.temperature, self.generator(number), free)
            weights = replace(weights, edges=weights.edges + self._perturbation(batch, weights, number))
            terms = self.terms(batch, weights, number, free)
            self.last = terms.figures()
            return terms.total

        self._count(number)
        return loss

    def _count(self, number: int) -> None:
        depth = self.model.sample(self.temperature, self.generator(number), free=False).depth.tolist()
        self.drawn = [a + b for a, b in zip(self.drawn or [0.0] * len(depth), depth, strict=True)]

    def terms(self, batch: Batch, weights: Relaxation, number: int, free: bool) -> Terms:
        """The loss's terms under these weights, penalties of the remedies among them; constants of alpha where it is not `free`."""
        remedies, model = self.options.remedies, self.model
        width = model.supernet.space.options.width
        mixing = mixing_at(self.options, self.progress, width, self.generator(number, "channels"), self.device)
        if remedies.cell_alignment:
            weights = replace(weights, edges=each_cell(weights.edges, len(model.supernet.cells)))
        with torch.set_grad_enabled(free):
            probabilities = model.probabilities()
            penalties = penalty(remedies, model.supernet.edge_logits, probabilities, self.progress)
            efficiency = self.efficiency.loss(probabilities)
        terms = self.objective(batch, model(batch, weights, mixing), weights)
        terms = replace(terms, efficiency=efficiency.float(), penalties=penalties)
        if remedies.cell_alignment:
            cosine = mean_cosine(terms.labels + terms.distillation, weights.edges, create_graph=True)
            terms = replace(terms, penalties=terms.penalties + remedies.cell_alignment * (1 - cosine))
        return terms

    def _perturbation(self, batch: Batch, weights: Relaxation, number: int) -> Tensor:
        remedies = self.options.remedies
        size = remedies.perturbation_size * self.progress
        if remedies.perturbation == "random":
            return random_perturbation(weights.edges, size, self.generator(number, "perturbation"))
        if remedies.perturbation == "adversarial":
            fixed = Relaxation(weights.edges.detach(), weights.depth.detach())
            return adversarial_perturbation(
                lambda edges: self.terms(batch, replace(fixed, edges=edges), number, False).total, fixed.edges, size
            )
        return torch.zeros((), device=weights.edges.device)

    def _held_out_gradients(self, stop: OperationStop, loss: levels.Loss) -> Mapping[str, Tensor]:
        """By operation; those that were not run have none."""
        trained = stop.trained()
        parameters = [parameter for own in trained.values() for parameter in own]
        if not parameters:
            return {}
        found = iter(torch.autograd.grad(loss(self.batch_of(self.held_out, self.step), False), parameters, allow_unused=True))
        by_place = {place: [next(found) for _ in own] for place, own in trained.items()}
        return {p: torch.cat([g.flatten() for g in own]) for p, own in by_place.items() if all(g is not None for g in own)}
