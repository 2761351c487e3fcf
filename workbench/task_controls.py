"""Control networks of methods whose supernet is trained on the task."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from methods.budget import Budget
from methods.recipe import Context
from methods.space import Architecture
from search.measurement import INT8
from workbench.corpus_controls import HAND_MADE, RANDOM, hand_made_within
from workbench.int8_control import measure_int8
from workbench.workers import Job, called

if TYPE_CHECKING:
    from workbench.running import MethodRun

FLOOR = "floor"


@dataclass(frozen=True)
class TaskControls:
    """Of one method, task and seed; those that the experiment asks for."""

    owner: MethodRun

    def jobs(self) -> list[Job]:
        """What of them can be computed beside the winners."""
        owner, controls = self.owner, self.owner.controls
        found = [owner.job("finished", f"finish {called(a, RANDOM)}", a, RANDOM) for a in owner.random]
        if controls.floors and owner.recipe.floor_controls:
            found += [owner.job("floors", f"{FLOOR} {budget.label()}", budget) for budget in owner.budgets]
        return found

    def run(self, chosen: Collection[Architecture]) -> None:
        """All of them, measured on `search` and `validation`; `chosen`: the architectures that were finished."""
        controls = self.owner.controls
        for architecture in self.owner.random:
            self.owner.finish(architecture, RANDOM)
        self.owner.workers.ahead(self._jobs_of_winners())
        for budget in self.owner.budgets:
            if controls.floors:
                self.floors(budget)
            winner = self.owner.best(budget)
            if winner is not None:
                self.beside(winner, budget)
            if winner is not None and controls.int8:
                self.quantised(winner)
        if controls.untrained and chosen:
            for wait in self.owner.earlier:
                wait()
            self.owner.workers.ahead([self.owner.job("untrained", self.owner.recipe.initial_name, tuple(chosen))])
            self.untrained(chosen)

    def _jobs_of_winners(self) -> list[Job]:
        """What can be computed once it is known which networks ship."""
        owner, controls, jobs = self.owner, self.owner.controls, []
        winners = [(budget, winner) for budget in owner.budgets if (winner := owner.best(budget)) is not None]
        if controls.hand_made or controls.variants:
            jobs += [owner.job("beside", f"{b.label()}: beside {called(a)}", a, b) for b, a in winners]
        if controls.int8:
            jobs += [owner.job("quantised", f"{INT8} {called(a)}", a) for a in dict.fromkeys(a for _, a in winners)]
        return jobs

    def quantised(self, winner: Architecture) -> None:
        """A winner with weights of 8 bit."""
        owner = self.owner
        measure_int8(owner.measurer, owner.recipe.finish(owner.context, owner.supernet, winner), winner)

    def floors(self, budget: Budget) -> None:
        """What the method has to beat under a budget."""

        def fits(architecture: Architecture) -> bool:
            return budget.met_by(self.owner.cost_of(architecture))

        for floor in self.owner.recipe.floors(self.recorded_as(FLOOR), self.owner.supernet, fits):
            self.owner.measurer.network(floor.network, floor.architecture, "control", floor.name)

    def beside(self, winner: Architecture, budget: Budget) -> None:
        """The hand-made network of the winner's budget, and both of them finished in the method's other ways."""
        controls, owner = self.owner.controls, self.owner
        hand_made = hand_made_within(owner.member.space, budget, owner.cost_of, winner) if controls.hand_made else None
        if hand_made is not None:
            owner.finish(hand_made, HAND_MADE)
        for variant in owner.recipe.variants if budget.label() in controls.variants else ():
            self.finish_variant(winner, variant, variant)
            if hand_made is not None:
                self.finish_variant(hand_made, variant, f"{HAND_MADE} {variant}")

    def finish_variant(self, architecture: Architecture, variant: str, control: str) -> None:
        """A network finished in another way."""
        network = self.owner.recipe.finish_variant(self.recorded_as(variant), self.owner.supernet, architecture, variant)
        self.owner.measurer.network(network, architecture, "control", control)

    def untrained(self, architectures: Collection[Architecture]) -> None:
        """These shapes cut from the supernet before its first trained stage."""
        owner = self.owner
        if not architectures:
            return
        initial = owner.recipe.initial(owner.context).to(owner.session.hardware.device).eval()
        for architecture in architectures:
            used = owner.cost_of(architecture)
            owner.measurer.network(initial.extract(architecture), architecture, "control", owner.recipe.initial_name, used)

    def recorded_as(self, way: str) -> Context:
        """The method's context, whose stages are recorded under a name of their own, so that they count for no winner."""
        owner = self.owner
        who = f"{owner.member.name} {way}"
        return replace(owner.context, record=partial(owner.session.archive.record_stage, owner.options.name, who, owner.seed))
