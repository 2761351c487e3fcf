"""What a run will do, from configurations alone: no weights, and no data where the task's size is known."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from methods.backbone import BackboneConfig
from methods.baselines.truncated import NAME, TruncatedOptions, deepest_that_fits, truncated_spec
from methods.budget import Budget
from methods.costs import costs
from methods.dynabert.space import full_spec
from methods.errors import UserError
from methods.recipe import Per, StagePlan
from methods.space import SearchSpace
from methods.tasks.head import Head
from methods.training.augmentation.plan import plan_augmentation
from methods.training.stage import training_flops, training_memory
from methods.training.teacher import plan_teacher
from search.limits import CostFunction, known_to_fit
from search.strategies.registry import AUTO, entry, make
from workbench.checking import check_corpus_recipes
from workbench.experiment import DATA_SEED, Experiment, TaskOptions
from workbench.session import Member, members_of, read_devices
from workbench.sizes import TaskSize, backbone_config, task_size
from workbench.tune_checks import check_tuning
from workbench.tune_options import TuneEntry
from workbench.tuned import STAGE as TUNE
from workbench.tuned import dearest, task_of

if TYPE_CHECKING:
    from methods.latency import LatencyTable

COUNTABLE = 5_000
SAMPLED = 1_000
DRAWN = "sampled"
"""What the table calls networks that are drawn from tables to show how well these rank; no method owes its winners to them."""


@dataclass(frozen=True)
class StageRow:
    """A stage of the plan. `times`: how often it is run (seeds, and where it is `per` network or budget, these). FLOPs and memory are
    those of one time. What serves all tasks has the corpus's name for its task."""

    task: str
    who: str
    stage: str
    times: int
    subnetworks: int
    steps: int
    examples: int
    flops: float
    memory: int
    note: str = ""
    per: Per = "seed"

    @property
    def all_flops(self) -> float:
        return self.times * self.flops


@dataclass(frozen=True)
class BudgetRow:
    """A budget against a space. `fitting` of `of` architectures meet it, of all where `counted`; `least`,
    `most`: of each limit."""

    task: str
    method: str
    budget: str
    limits: dict[str, float]
    least: dict[str, float]
    most: dict[str, float]
    size: int
    fitting: int
    of: int
    counted: bool

    @property
    def possible(self) -> bool:
        """Whether something meets it; where the space was not counted, only each limit alone is known to be met."""
        return all(self.least[name] <= limit for name, limit in self.limits.items()) and not (self.counted and self.fitting == 0)


@dataclass(frozen=True)
class Plan:
    """Stages in their order, budgets against spaces, and in words what the figures rest on."""

    stages: tuple[StageRow, ...]
    budgets: tuple[BudgetRow, ...]
    notes: tuple[str, ...]

    @property
    def flops(self) -> float:
        return sum(stage.all_flops for stage in self.stages)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        return {
            "stages": [asdict(stage) for stage in self.stages],
            "budgets": [{**asdict(budget), "possible": budget.possible} for budget in self.budgets],
            "notes": list(self.notes),
        }


def make_plan(experiment: Experiment, name: str, made: Path | None = None) -> Plan:
    """The plan of an experiment that is called `name` in messages. Raises UserError."""
    backbone, note = backbone_config(experiment.backbone, made)
    check_tuning(experiment, backbone, name)
    experiment = dearest(experiment, backbone, name)
    members = members_of(experiment, backbone, name)
    check_corpus_recipes(experiment, members, backbone, name)
    sizes = {options.name: task_size(options) for options in experiment.all_tasks}
    for member in members:
        if member.on_corpus:
            continue
        cost_of = CostFunction(member.space, backbone, experiment.all_tasks[0].spec.head)
        make(experiment.search.strategy, member.space, 0, Budget(), cost_of, 1)  # looked at for its errors
    return assemble(experiment, backbone, members, sizes, [note])


def assemble(
    experiment: Experiment, backbone: BackboneConfig, members: Sequence[Member], sizes: dict[str, TaskSize], notes: Sequence[str] = ()
) -> Plan:
    """The plan from what is known already."""
    first = experiment.all_tasks[0]
    devices, lacking = _tables(experiment, backbone, members)
    on_corpus = {
        member.name: corpus_rows(experiment, member, backbone, first.spec.head, sizes[first.name]) for member in members if member.on_corpus
    }
    stages: list[StageRow] = [row for rows in on_corpus.values() for row in rows]
    budgets: list[BudgetRow] = []
    for options in experiment.all_tasks:
        planner = _Planner(experiment, backbone, options, sizes[options.name], options.spec.head, devices)
        own = [member for member in members if member.entry.runs(options.name)]
        by_method = {member.name: planner.method(member) for member in own}
        stages += [planner.teacher(), *planner.augmentation()]
        stages += [planner.tuning(tune, by_method[tune.label]) for tune in experiment.tune if task_of(experiment, tune) == options]
        for member in own:
            stages += [*by_method[member.name], *([] if member.on_corpus else [planner.search(member)])]
            budgets += _against(member.space, experiment, backbone, options, devices)
        stages += planner.truncated(by_method, on_corpus)
    said = [*notes, *lacking, *(sizes[task].note for task in sizes), *_strategies(experiment, members)]
    return Plan(tuple(stages), tuple(budgets), tuple(note for note in said if note))


def _strategies(experiment: Experiment, members: Sequence[Member]) -> list[str]:
    """What `auto` became, for each method that is searched by a strategy."""
    if experiment.search.strategy != AUTO:
        return []
    searched = [member for member in members if not member.on_corpus]
    return [
        f"search.strategy: auto is {experiment.search.strategy_for(member.space)} for {member.name} ({member.space.size():,} architectures)"
        for member in searched
    ]


@dataclass(frozen=True)
class _Planner:
    """The stages of one task."""

    experiment: Experiment
    backbone: BackboneConfig
    options: TaskOptions
    size: TaskSize
    head: Head
    devices: Mapping[str, LatencyTable]

    @property
    def task(self) -> str:
        return self.options.name

    @property
    def times(self) -> int:
        return len(self.experiment.seeds_of(self.options))

    def times_of(self, member: Member) -> int:
        """With how many seeds a method is run."""
        return sum(member.entry.runs(self.task, seed) for seed in self.experiment.seeds_of(self.options))

    def teacher(self) -> StageRow:
        def at(length: int) -> StagePlan:
            return plan_teacher(self.experiment.teacher, self.backbone, self.head, self.size.rows, length)

        return self._row("teacher", at(self.size.length), at(self.size.longest), 1)

    @property
    def copies(self) -> int:
        """Rows that are made of each training row, at most."""
        return self.experiment.augmentation.copies_of_a_row(self.head.pair)

    def augmentation(self) -> list[StageRow]:
        """The copies of the training rows, where any are asked for."""
        if not self.copies:
            return []

        def at(length: int) -> StagePlan:
            return plan_augmentation(self.experiment.augmentation, self.backbone, self.head, self.size.rows, length)

        return [self._row("augmentation", at(self.size.length), at(self.size.longest), 1)]

    def method(self, member: Member) -> list[StageRow]:
        """FLOPs at the mean length, memory at the longest."""
        typical, longest = (
            member.recipe.plan(member.space, self.backbone, self.head, self.size.rows, length, self.copies)
            for length in (self.size.length, self.size.longest)
        )
        pairs = [(a, b) for a, b in zip(typical, longest, strict=True) if a.scope == "task"]
        return [self._row(member.name, a, b, self.times_of(member) * times_of(self.experiment, member, a)) for a, b in pairs]

    def tuning(self, tune: TuneEntry, tuned: Sequence[StageRow]) -> StageRow:
        """So many trials, each as long as it can get; what they are rated by is left out."""
        trained = [row for row in tuned if row.flops]
        steps, examples, flops = (tune.trials * sum(getattr(row, name) for row in trained) for name in ("steps", "examples", "flops"))
        note = f"at most: {tune.trials} trials with the costliest values, none stopped"
        return StageRow(self.task, tune.label, TUNE, 1, 0, steps, examples, flops, max(row.memory for row in trained), note)

    def search(self, member: Member) -> StageRow:
        """Evaluations of the search split, at the mean of what the smallest and the largest architecture cost."""
        options, size = self.experiment.search, member.space.size()
        name = options.strategy_for(member.space)
        strategy = entry(name)
        count = min(options.evaluations or strategy.evaluations or size, size)
        count *= len(self.experiment.budgets) if strategy.reads_budget and not options.objectives else 1
        cost_of = CostFunction(member.space, self.backbone, self.head, self.size.length)
        mean = (cost_of(member.space.smallest()).flops + cost_of(member.space.largest()).flops) / 2
        examples = count * self.size.search
        memory = 4 * cost_of(member.space.largest()).parameters
        times, work = self.times_of(member), (count, 0, examples, examples * mean, memory, "at most")
        return StageRow(self.task, member.name, f"search ({name})", times, *work)

    def truncated(self, by_method: Mapping[str, Sequence[StageRow]], on_corpus: Mapping[str, Sequence[StageRow]]) -> list[StageRow]:
        """As many FLOPs as the costliest method, or one training of its own length for each depth that the budgets ask for."""
        controls = self.experiment.controls
        if controls.truncated_kd is None:
            return []
        if not controls.equal_flops or not by_method:
            return self._truncated_by_epochs(controls.truncated_kd)
        budgets = len(self.experiment.budgets)
        served = {entry.label: len(self.experiment.tasks_of(entry)) for entry in self.experiment.methods}

        def winners(rows: Sequence[StageRow]) -> float:
            return sum(row.flops * (budgets if row.per != "seed" else 1) for row in rows if row.stage != DRAWN)

        spent = {name: winners(own) + winners(on_corpus.get(name, ())) / served[name] for name, own in by_method.items()}
        name = max(spent, key=lambda name: spent[name])
        if not spent[name]:
            return self._truncated_by_epochs(controls.truncated_kd)
        memory = max(stage.memory for stage in by_method[name])
        return [StageRow(self.task, NAME, "distil", self.times, 1, 0, 0, spent[name], memory, f"as many FLOPs as {name}")]

    def _truncated_by_epochs(self, options: TruncatedOptions) -> list[StageRow]:
        cost, shape, head, budgets = self.experiment.cost, self.backbone, self.head, self.experiment.all_budgets()
        found = [deepest_that_fits(shape, head, partial(known_to_fit, budget, self.devices, cost.length, cost.batch)) for budget in budgets]
        cuts = [truncated_spec(architecture, shape, head) for architecture in dict.fromkeys(found) if architecture is not None]
        if not cuts:
            return []
        full, times = full_spec(shape, head), self.times
        copies = self.copies if options.augmented else 0
        steps = options.steps(self.size.rows, copies)
        examples = steps * min(self.size.rows * (1 + copies), options.batch_size * options.accumulation)
        flops = examples * sum(training_flops([cut], [full])(1, self.size.length) for cut in cuts)
        taught = costs(full).parameters
        memory = max(training_memory(cut, costs(cut).parameters, taught, options.batch_size, self.size.longest) for cut in cuts)
        count, note = len(cuts), "each depth by its own epochs"
        return [StageRow(self.task, NAME, "distil", times, count, count * steps, count * examples, flops, memory, note)]

    def _row(self, who: str, typical: StagePlan, longest: StagePlan, times: int) -> StageRow:
        p = typical
        return StageRow(self.task, who, p.name, times, p.subnetworks, p.steps, p.examples, p.flops, longest.memory, p.note, p.per)


def corpus_rows(experiment: Experiment, member: Member, backbone: BackboneConfig, head: Head, size: TaskSize) -> list[StageRow]:
    """The stages on the corpus, once for all tasks; of what is done for every network, as many as there can be."""
    recipe, corpus = member.on_corpus, experiment.corpus
    if recipe is None or corpus is None:
        return []
    seeds, sampled, rows = len(experiment.corpus_seeds(member.entry)), experiment.search.sampled, []
    for p in recipe.plan(member.space, backbone, head, size.rows, size.longest):
        if p.scope != "corpus":
            continue
        times = 1 if p.name in recipe.shared_stages else seeds * times_of(experiment, member, p)
        rows.append(StageRow(corpus.name, member.name, p.name, times, p.subnetworks, p.steps, p.examples, p.flops, p.memory, p.note, p.per))
        if p.per == "budget" and sampled:
            share, note = sampled / recipe.candidates, f"{sampled} networks drawn from the tables, assembled too"
            steps, examples = round(p.steps * share), round(p.examples * share)
            rows.append(StageRow(corpus.name, member.name, DRAWN, seeds, sampled, steps, examples, p.flops * share, p.memory, note))
    return rows


def times_of(experiment: Experiment, member: Member, stage: StagePlan) -> int:
    """How often a stage is run for a seed: at most, where budgets have the same winner."""
    controls, budgets = experiment.controls_of(member.entry), len(experiment.budgets)
    if stage.per == "seed":
        return 1
    if stage.per == "budget":
        return budgets
    pair = 1 + controls.hand_made
    recipe = member.on_task
    beside = 0 if recipe is None else bool(recipe.derived_by) + controls.floors * len(recipe.floor_controls)
    return budgets * (pair + beside + controls.random) + len(controls.variants) * len(member.recipe.variants) * pair


def _tables(experiment: Experiment, backbone: BackboneConfig, members: Sequence[Member]) -> tuple[dict[str, LatencyTable], list[str]]:
    """The latency tables that are there and know the methods' networks; of the others why limits on them are left out."""
    known, notes = {}, []
    for device in experiment.devices:
        try:
            table = read_devices(experiment, [device])[device]
            for member in members:
                for options in experiment.tasks_of(member.entry):
                    table.network(member.space.spec(member.space.largest(), backbone, options.spec.head))
            known[device] = table
        except UserError as error:
            notes.append(f"devices.{device}: limits on its latency are left out of the budgets above; {error}")
    return known, notes


def _against(
    space: SearchSpace, experiment: Experiment, backbone: BackboneConfig, options: TaskOptions, devices: Mapping[str, LatencyTable]
) -> list[BudgetRow]:
    """Least and most of parameters and FLOPs are those of the space; of latency those of the networks that were looked at."""
    cost, head = experiment.cost, options.spec.head
    cost_of = CostFunction(space, backbone, head, cost.length, cost.batch, devices)
    size = space.size()
    counted = size <= COUNTABLE
    rng = random.Random(DATA_SEED)
    spent = [cost_of(a) for a in (space.enumerate() if counted else [space.sample(rng) for _ in range(SAMPLED)])]
    ranges = space.cost_range(backbone, head, cost.length, cost.batch)
    for device in devices:
        seconds = [cost_of(a).latency[device] for a in (space.smallest(), space.largest())] + [c.latency[device] for c in spent]
        ranges[f"max_latency.{device}"] = min(seconds), max(seconds)
    rows = []
    for budget in experiment.all_budgets():
        counts = replace(budget, max_latency={device: limit for device, limit in budget.max_latency.items() if device in devices})
        least, most = ({name: ranges[name][end] for name in counts.limits()} for end in (0, 1))
        fitting = sum(map(counts.met_by, spent))
        rows.append(BudgetRow(options.name, space.method, budget.label(), counts.limits(), least, most, size, fitting, len(spent), counted))
    return rows
