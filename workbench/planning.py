"""What a run will do, from configurations alone: no weights, and no data where the task's size is known."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from methods.backbone import BackboneConfig
from methods.baselines.truncated import NAME, TruncatedOptions, deepest_that_fits, truncated_spec
from methods.budget import Budget
from methods.costs import costs
from methods.dynabert.space import full_spec
from methods.recipe import StagePlan
from methods.space import SearchSpace
from methods.tasks.head import Head
from methods.training.stage import training_flops, training_memory
from methods.training.teacher import plan_teacher
from search.limits import CostFunction
from search.strategies.registry import entry, make
from workbench.experiment import DATA_SEED, CostOptions, Experiment
from workbench.session import Member, member_of
from workbench.sizes import TaskSize, backbone_config, task_size

COUNTABLE = 5_000
SAMPLED = 1_000


@dataclass(frozen=True)
class StageRow:
    """A stage of the plan. `times`: how often it is run (seeds). FLOPs and memory are those of one time."""

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

    @property
    def all_flops(self) -> float:
        return self.times * self.flops


@dataclass(frozen=True)
class BudgetRow:
    """A budget against a space. `share`: the part of it that meets the budget, exact where `counted`; `least`, `most`: of each limit."""

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
    members = [member_of(entry, index, backbone, name) for index, entry in enumerate(experiment.methods)]
    sizes = {options.name: task_size(options) for options in experiment.all_tasks}
    for member in members:
        cost_of = CostFunction(member.space, backbone, experiment.all_tasks[0].spec.head)
        make(experiment.search.strategy, member.space, 0, Budget(), cost_of, 1)  # looked at for its errors
    return assemble(experiment, backbone, members, sizes, [note])


def assemble(
    experiment: Experiment, backbone: BackboneConfig, members: Sequence[Member], sizes: dict[str, TaskSize], notes: Sequence[str] = ()
) -> Plan:
    """The plan from what is known already."""
    stages: list[StageRow] = []
    budgets: list[BudgetRow] = []
    for options in experiment.all_tasks:
        planner = _Planner(experiment, backbone, options.name, sizes[options.name], options.spec.head)
        by_method = {member.name: planner.method(member) for member in members}
        stages.append(planner.teacher())
        for member in members:
            stages += [*by_method[member.name], planner.search(member)]
            budgets += _against(member.space, experiment.all_budgets(), backbone, options.spec.head, experiment.cost, options.name)
        stages += planner.truncated(by_method)
    said = [*notes, *(sizes[task].note for task in sizes)]
    return Plan(tuple(stages), tuple(budgets), tuple(note for note in said if note))


@dataclass(frozen=True)
class _Planner:
    """The stages of one task."""

    experiment: Experiment
    backbone: BackboneConfig
    task: str
    size: TaskSize
    head: Head

    def teacher(self) -> StageRow:
        def at(length: int) -> StagePlan:
            return plan_teacher(self.experiment.teacher, self.backbone, self.head, self.size.rows, length)

        return self._row("teacher", at(self.size.length), at(self.size.longest), 1)

    def method(self, member: Member) -> list[StageRow]:
        """FLOPs at the mean length, memory at the longest."""
        typical, longest = (
            member.recipe.plan(member.space, self.backbone, self.head, self.size.rows, length)
            for length in (self.size.length, self.size.longest)
        )
        return [self._row(member.name, a, b, len(self.experiment.seeds)) for a, b in zip(typical, longest, strict=True)]

    def search(self, member: Member) -> StageRow:
        """Evaluations of the search split, at the mean of what the smallest and the largest architecture cost."""
        options, strategy = self.experiment.search, entry(self.experiment.search.strategy)
        size = member.space.size()
        count = min(options.evaluations or strategy.evaluations or size, size)
        count *= len(self.experiment.budgets) if strategy.reads_budget else 1
        cost_of = CostFunction(member.space, self.backbone, self.head, self.size.length)
        mean = (cost_of(member.space.smallest()).flops + cost_of(member.space.largest()).flops) / 2
        examples = count * self.size.search
        memory = 4 * cost_of(member.space.largest()).parameters
        times = len(self.experiment.seeds)
        return StageRow(
            self.task, member.name, f"search ({options.strategy})", times, count, 0, examples, examples * mean, memory, "at most"
        )

    def truncated(self, by_method: Mapping[str, Sequence[StageRow]]) -> list[StageRow]:
        """As many FLOPs as the costliest method, or one training of its own length for each depth that the budgets ask for."""
        controls = self.experiment.controls
        if controls.truncated_kd is None:
            return []
        if not controls.equal_flops:
            return self._truncated_by_epochs(controls.truncated_kd)
        name, own = max(by_method.items(), key=lambda item: sum(stage.flops for stage in item[1]))
        flops, memory = sum(stage.flops for stage in own), max(stage.memory for stage in own)
        times = len(self.experiment.seeds)
        return [StageRow(self.task, "truncated-kd", "distil", times, 1, 0, 0, flops, memory, f"as many FLOPs as {name}")]

    def _truncated_by_epochs(self, options: TruncatedOptions) -> list[StageRow]:
        cost, shape, head = self.experiment.cost, self.backbone, self.head
        found = [deepest_that_fits(shape, head, budget.met_by, cost.length, cost.batch) for budget in self.experiment.all_budgets()]
        cuts = [truncated_spec(architecture, shape, head) for architecture in dict.fromkeys(found) if architecture is not None]
        if not cuts:
            return []
        full, times = full_spec(shape, head), len(self.experiment.seeds)
        steps = options.steps(self.size.rows)
        examples = steps * min(self.size.rows, options.batch_size * options.accumulation)
        flops = examples * sum(training_flops([cut], [full])(1, self.size.length) for cut in cuts)
        taught = costs(full).parameters
        memory = max(training_memory(cut, costs(cut).parameters, taught, options.batch_size, self.size.longest) for cut in cuts)
        count, note = len(cuts), "each depth by its own epochs"
        return [StageRow(self.task, NAME, "distil", times, count, count * steps, count * examples, flops, memory, note)]

    def _row(self, who: str, typical: StagePlan, longest: StagePlan, times: int) -> StageRow:
        p = typical
        return StageRow(self.task, who, p.name, times, p.subnetworks, p.steps, p.examples, p.flops, longest.memory, p.note)


def _against(
    space: SearchSpace, budgets: Sequence[Budget], backbone: BackboneConfig, head: Head, cost: CostOptions, task: str
) -> list[BudgetRow]:
    cost_of = CostFunction(space, backbone, head, cost.length, cost.batch)
    size = space.size()
    counted = size <= COUNTABLE
    rng = random.Random(DATA_SEED)
    spent = [cost_of(a) for a in (space.enumerate() if counted else [space.sample(rng) for _ in range(SAMPLED)])]
    ranges = space.cost_range(backbone, head, cost.length, cost.batch)
    rows = []
    for budget in budgets:
        least, most = ({name: ranges[name][end] for name in budget.limits()} for end in (0, 1))
        fitting = sum(map(budget.met_by, spent))
        rows.append(BudgetRow(task, space.method, budget.label(), budget.limits(), least, most, size, fitting, len(spent), counted))
    return rows
