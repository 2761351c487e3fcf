"""The work of a run on its corpus: one supernet, its tables, the networks chosen by them, and their pre-training; all of it resumable."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

from methods.budget import Budget
from methods.corpus.masked_words import word_flops
from methods.costs import Costs
from methods.errors import UserError
from methods.evaluation import weights_digest
from methods.network import Network
from methods.recipe import CorpusContext, CorpusRecipe, Estimate, Estimates, StageRecord, serves
from methods.space import Architecture
from methods.supernet import Supernet
from methods.tasks.head import Head
from methods.training.processes import by_main_process
from methods.training.progress import progress_bar
from search.candidates import rankable
from search.limits import CostFunction
from search.measurement import Kind, Measurement
from search.tables import SearchRow
from search.timings import as_measured, timed_in
from workbench.corpus_controls import HAND_MADE, RANDOM, hand_made_within, random_within
from workbench.corpus_costs import dearest
from workbench.experiment import TaskOptions
from workbench.progress import Reporter
from workbench.session import Member, Session
from workbench.stopwatch import Stopwatch
from workbench.workers import Job, Workers, called

PREDICTED, LIKELIHOOD = "negative_loss", "log_likelihood"
STRATEGY = "tables"
TOGETHER = 10
"""So many networks are assembled by one job."""


@dataclass(frozen=True)
class Chosen:
    """A network to be pre-trained and finished. `control`: what the table calls it, empty for a winner; `variant`: how it is finished."""

    architecture: Architecture
    control: str = ""
    variant: str = ""

    @property
    def kind(self) -> Kind:
        return "control" if self.control else "finished"


@dataclass
class CorpusRun:
    """One method on the corpus with one seed. Measurements and stages have the corpus's name for their task."""

    session: Session
    member: Member
    recipe: CorpusRecipe
    seed: int
    reporter: Reporter
    workers: Workers = field(default_factory=Workers)
    stages: dict[str, StageRecord] = field(default_factory=dict)

    def run(self) -> None:
        """Trains (or reads back), selects by tables and by assembled networks, pre-trains what was chosen and measures it."""
        self._say("training")
        self.workers.ahead([self.job("part_trained", f"train part {part + 1}", part) for part in range(self.recipe.parts)])
        self.workers.ahead([self.job("trained_on_corpus", "train")])
        _ = self.supernet
        for subject, text in self.recipe.about(self.context).items():
            self.session.archive.note(f"{self.task}, {self.member.name}, {subject}", text)
        self._say("selection")
        self.hand_out({e.architecture: e for _, estimates in self.candidates.values() for e in estimates}.values())
        self.sample()
        self._say(f"{len(self.winners)} winners, {len(self.chosen) - len(self.winners)} controls")
        self.assemble_chosen()
        self.workers.ahead([self.job("pre_trained", f"pre-train {called(c.architecture, c.control)}", c) for c in self.chosen])
        for chosen in self.chosen:
            self.measure(chosen)

    def job(self, call: str, stage: str, *arguments: Any) -> Job:
        """A part of this for other workers."""
        name = f"{self.task} {self.member.name} seed {self.seed} {stage}"
        return Job(call, (self.member.name, self.seed, *arguments), name, self.task, self.session.resources_of(self.member))

    @property
    def task(self) -> str:
        """The corpus's name, under which the archive keeps all this."""
        return self.session.corpus.name

    def training_flops(self) -> float:
        """Of all stages that the winners owe their weights to."""
        return winners_flops(self.stages.values(), set(self.winners.values()))

    @cached_property
    def context(self) -> CorpusContext:
        def heard(stage: StageRecord) -> None:
            if stage.stage not in self.stages:
                self.reporter.finished(self.task, self.member.name, stage.stage, stage.seconds)
            self.stages[stage.stage] = stage

        return self.session.corpus_context(self.member.name, self.seed, heard)

    @cached_property
    def supernet(self) -> Supernet:
        return self.recipe.train(self.context).to(self.session.hardware.device).eval()

    @cached_property
    def weights(self) -> str:
        return weights_digest(self.supernet)

    @property
    def tasks(self) -> tuple[TaskOptions, ...]:
        """Those that the supernet serves."""
        return self.session.experiment.tasks_of(self.member.entry)

    @cached_property
    def head(self) -> Head:
        """That of the task with the dearest output layer: what meets a budget with it meets it on every task."""
        return dearest(self.member.space, self.session.shape, self.tasks, self.session.experiment.cost.length)

    @cached_property
    def cost_of(self) -> CostFunction:
        return self.session.cost_of(self.member, self.head)

    @cached_property
    def estimates(self) -> Estimates:
        cost, heads = self.session.experiment.cost, [options.spec.head for options in self.tasks]
        _ = self.supernet
        where = (self.context.folder, self.member.space, self.session.shape)
        return self.recipe.estimates(*where, heads, cost.length, cost.batch, self.session.devices)

    @cached_property
    def candidates(self) -> dict[str, tuple[Budget, list[Estimate]]]:
        """Per budget, by its label, what the tables put first; budgets that no network of the tables meets are told of and left out."""
        found = {}
        for budget in self.session.possible(self.member, self.head):
            try:
                found[budget.label()] = budget, self.estimates.best(budget, self.recipe.candidates)
            except UserError as error:
                self._say(str(error))
        if not found:
            raise UserError(f"{self.session.name}: budgets: the tables of {self.member.name} (seed {self.seed}) meet none of them")
        return found

    @cached_property
    def winners(self) -> dict[str, Architecture]:
        """Per budget the candidate that is best by the recipe's criterion, as a whole network with the supernet's weights."""
        everything = {e.architecture: e for _, estimates in self.candidates.values() for e in estimates}
        assembled = self.assemble(everything.values())
        rows, winners = [], {}
        for label, (budget, estimates) in self.candidates.items():
            found = [assembled[e.architecture] for e in estimates]
            winners[label] = self._in_time(budget, sorted(found, key=_order))
            rows.append(self._cost_of_search(label, found))
        self.session.archive.record_searches(rows)
        for row in rows:
            self.reporter.finished(self.task, self.member.name, "select", row.seconds)
        return winners

    def _in_time(self, budget: Budget, found: list[Measurement]) -> Architecture:
        """The first that meets the budget as measured on devices that are this machine; the first of all where none does."""
        for m in found:
            self.stopwatch.time({m.architecture: self.cost_of.spec(m.architecture)})
            if not budget.max_latency or budget.met_by(as_measured([m], timed_in(self.session.archive))[0].costs):
                return m.architecture
        self._say(f"{budget.label()}: none of the {len(found)} candidates is as fast as predicted")
        return found[0].architecture

    @cached_property
    def stopwatch(self) -> Stopwatch:
        return Stopwatch(self.session.archive, self.task, self.session.devices)

    def sample(self) -> None:
        """So many networks drawn from the tables, estimated and assembled: how well do the estimates rank?"""
        wanted = self.session.experiment.search.sampled
        rng, space = random.Random(self.seed), self.estimates.space
        drawn: dict[Architecture, None] = {}
        for _ in range(20 * wanted):
            if len(drawn) < wanted:
                drawn[space.sample(rng)] = None
        losses = {architecture: self.estimates.loss(architecture) for architecture in drawn}
        estimates = [Estimate(a, loss, self.cost_of(a)) for a, loss in losses.items() if loss is not None]
        self.hand_out(estimates)
        self.assemble(estimates)

    def hand_out(self, estimates: Iterable[Estimate]) -> None:
        """`assemble` by other workers, some at a time."""
        left = list(estimates)
        chunks = [tuple(left[start : start + TOGETHER]) for start in range(0, len(left), TOGETHER)]
        self.workers.ahead([self.job("assembled", f"assemble {place + 1}", chunk) for place, chunk in enumerate(chunks)])

    def assemble_chosen(self) -> None:
        """The controls as whole networks with the supernet's weights too, so that this score can be set against the finished one."""
        digest = self._text_digest
        for architecture in dict.fromkeys(chosen.architecture for chosen in self.chosen):
            self._assembled(architecture, self.cost_of(architecture), digest)

    @property
    def _text_digest(self) -> str:
        return self.session.corpus.packed("search", self.recipe.lengths[-1]).digest

    def assemble(self, estimates: Iterable[Estimate]) -> dict[Architecture, Measurement]:
        """Keeps what the tables say of each and what it does as a whole network; what the archive knows is not computed again."""
        estimates, digest = list(estimates), self._text_digest
        bar = progress_bar(len(estimates), "assemble")
        found = {}
        for e in estimates:
            predicted = {PREDICTED: -e.loss}
            self.session.archive.add(
                self._measurement(e.architecture, e.costs, "search", digest, self.weights, "predicted", PREDICTED, predicted)
            )
            found[e.architecture] = self._assembled(e.architecture, e.costs, digest)
            bar.update(1)
        bar.close()
        return found

    def _assembled(self, architecture: Architecture, used: Costs, digest: str) -> Measurement:
        return by_main_process(lambda: self._found(architecture, used, digest))

    def _found(self, architecture: Architecture, used: Costs, digest: str) -> Measurement:
        known = self.session.archive.find(architecture.id, self.task, digest, self.weights, "assembled")
        if known is not None:
            return known
        started = time.monotonic()
        metrics = self.recipe.assemble(self.context, self.supernet, architecture)
        made = self._measurement(architecture, used, "search", digest, self.weights, "assembled", self.recipe.criterion, metrics)
        made = replace(made, seconds=time.monotonic() - started)
        self.session.archive.add(made)
        return made

    def _measurement(
        self,
        architecture: Architecture,
        used: Costs,
        split: str,
        digest: str,
        weights: str,
        kind: Kind,
        metric: str,
        metrics: Mapping[str, float],
    ) -> Measurement:
        return Measurement(architecture, self.task, split, digest, weights, kind, self.seed, metric, dict(metrics), used)

    def _cost_of_search(self, label: str, found: list[Measurement]) -> SearchRow:
        """FLOPs of whole networks as the supernet hosts them, over the texts of the corpus's `search` that are read."""
        texts, words = self.session.corpus.packed("search", self.recipe.lengths[-1]), Head("mlm")
        count = min(len(texts), self.recipe.assembled_texts or len(texts))
        specs = (self.member.space.spec(m.architecture, self.session.shape, words, "hosted") for m in found)
        flops = float(count * sum(word_flops(spec, texts.length) for spec in specs))
        return SearchRow(self.task, self.member.name, self.seed, STRATEGY, label, len(found), sum(m.seconds for m in found), flops)

    @cached_property
    def chosen(self) -> list[Chosen]:
        """Winners, hand-made networks beside them, both in the recipe's other ways, and random ones that use up a budget."""
        controls, space = self.session.experiment.controls_of(self.member.entry), self.member.space
        found, drawn = [Chosen(architecture) for architecture in self.winners.values()], []
        for label, winner in self.winners.items():
            budget, _ = self.candidates[label]
            hand_made = hand_made_within(space, budget, self.cost_of, winner) if controls.hand_made else None
            found += [Chosen(hand_made, HAND_MADE)] if hand_made else []
            for variant in self.recipe.variants if label in controls.variants else ():
                found.append(Chosen(winner, variant, variant))
                found += [Chosen(hand_made, f"{HAND_MADE} {variant}", variant)] if hand_made else []
            drawn += [Chosen(a, RANDOM) for a in random_within(space, budget, self.cost_of, controls.random, self.seed)]
        return list(dict.fromkeys([*found, *drawn]))

    def pretrained(self, chosen: Chosen) -> Network:
        """Pre-trained on the corpus, or read back. What is finished in another way is recorded under that name too, so that it counts for
        no winner."""
        context = self.context
        if chosen.variant:
            who = f"{self.member.name} {chosen.variant}"
            context = replace(context, record=partial(self.session.archive.record_stage, self.task, who, self.seed))
        return self.recipe.pretrain(context, self.supernet, chosen.architecture, chosen.variant)

    def measure(self, chosen: Chosen) -> None:
        """The pre-trained network on the corpus's `search` and `validation`."""
        network = self.pretrained(chosen)
        by_main_process(lambda: self._measure(chosen, network))

    def _measure(self, chosen: Chosen, network: Network) -> None:
        weights, everything = weights_digest(network), replace(self.context, corpus=self.session.corpus)
        for split in ("search", "validation"):
            digest = self.session.corpus.packed(split, self.recipe.lengths[-1]).digest
            if self.session.archive.find(chosen.architecture.id, self.task, digest, weights, chosen.kind) is None:
                started = time.monotonic()
                metrics = self.recipe.measure(everything, network, split)
                used = self.cost_of(chosen.architecture)
                made = self._measurement(chosen.architecture, used, split, digest, weights, chosen.kind, LIKELIHOOD, metrics)
                self.session.archive.add(replace(made, control=chosen.control, seconds=time.monotonic() - started))

    def _say(self, what: str) -> None:
        self.reporter.say(self.task, self.member.name, f"seed {self.seed}", what)


def corpus_run(session: Session, member: Member, seed: int, reporter: Reporter, workers: Workers) -> CorpusRun:
    """The run of a method on the corpus, done."""
    if member.on_corpus is None:
        raise TypeError(f"{member.name} is not trained on a corpus")
    made = CorpusRun(session, member, member.on_corpus, seed, reporter, workers)
    made.run()
    return made


def _order(m: Measurement) -> tuple[float, int, int, str]:
    """Best first; of equals the one with fewer FLOPs, fewer parameters, the smaller id."""
    return -rankable(m.quality), m.costs.flops, m.costs.parameters, m.architecture.id


def winners_flops(stages: Iterable[StageRecord], winners: Iterable[Architecture]) -> float:
    """FLOPs of stages that serve any of these architectures; those of other ones are left out."""
    winners = list(winners)

    def counts(stage: str) -> bool:
        answers = [serves(stage, architecture) for architecture in winners]
        return not answers or answers[0] is None or any(answers)

    return sum(stage.flops for stage in stages if counts(stage.stage))
