"""What the verbs that compute share: the experiment with its backbone, tasks, spaces, recipes and hardware, opened once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from methods.backbone import Backbone, BackboneConfig
from methods.budget import Budget
from methods.errors import UserError
from methods.recipe import Context, Hardware, Recipe, StageRecord
from methods.registry import Method, get
from methods.space import SearchSpace
from methods.tasks.task import Task
from search.archive import Archive
from search.limits import CostFunction, check_budget
from search.strategies.registry import make
from workbench.experiment import DATA_SEED, Experiment, MethodEntry, TaskOptions
from workbench.folder import RunFolder, hardware
from workbench.sizes import backbone_config

if TYPE_CHECKING:
    from methods.network import Network
    from methods.tasks.batches import Collate
    from methods.tasks.head import Head
    from search.strategies.strategy import CostOf


@dataclass(frozen=True)
class Member:
    """A method as the experiment sets it up, and its entry's place in the file."""

    method: Method
    options: Any
    space: SearchSpace
    recipe: Recipe
    place: str

    @property
    def name(self) -> str:
        return self.method.name


@dataclass
class Session:
    """`name` is how messages call the experiment: its file."""

    experiment: Experiment
    folder: RunFolder
    name: str
    _tasks: dict[str, Task] = field(default_factory=dict)
    _collates: dict[tuple[str, str], Collate] = field(default_factory=dict)

    @cached_property
    def hardware(self) -> Hardware:
        return hardware(self.experiment.hardware)

    @cached_property
    def archive(self) -> Archive:
        return Archive(self.folder.archive)

    @cached_property
    def backbone(self) -> Backbone:
        """The demo's is made in the run folder where it is not there yet."""
        if self.experiment.backbone != "demo":
            return Backbone.load(self.experiment.backbone)
        if not (self.folder.backbone / "config.json").exists():
            from methods.tasks.demo_backbone import make_demo_backbone

            make_demo_backbone(self.folder.backbone, DATA_SEED)
        return Backbone.load(str(self.folder.backbone.resolve()))

    @cached_property
    def shape(self) -> BackboneConfig:
        """The backbone's; known before the demo's is made."""
        if self.experiment.backbone == "demo":
            return backbone_config("demo", self.folder.backbone)[0]
        return self.backbone.config

    @cached_property
    def members(self) -> list[Member]:
        """The methods with their spaces. Raises UserError, by its place, where a space can't be."""
        return [member_of(entry, index, self.shape, self.name) for index, entry in enumerate(self.experiment.methods)]

    def task(self, options: TaskOptions) -> Task:
        """The task with its data, its training rows limited; all splits open."""
        if options.name not in self._tasks:
            self._tasks[options.name] = options.load()
        return self._tasks[options.name]

    def collate(self, options: TaskOptions, method: str = "") -> Collate:
        """How batches are made for a method, or for teacher and truncated teacher; one object each, so that tokens are kept."""
        from methods.tasks.batches import joint

        key = (options.name, method)
        if key not in self._collates:
            maker = get(method).collate if method else joint
            self._collates[key] = maker(self.backbone.tokenizer, options.max_length)
        return self._collates[key]

    def cost_of(self, member: Member, head: Head) -> CostOf:
        """Costs of a method's architectures at the experiment's length and batch."""
        cost = self.experiment.cost
        return CostFunction(member.space, self.shape, head, cost.length, cost.batch)

    def possible(self, member: Member, head: Head) -> list[Budget]:
        """The budgets that the method's smallest architecture meets."""
        cost, found = self.experiment.cost, []
        for budget in self.experiment.all_budgets():
            try:
                check_budget(member.space, budget, self.shape, head, cost.length, cost.batch)
            except UserError:
                continue
            found.append(budget)
        return found

    def check(self) -> None:
        """Everything that would fail later, before anything is trained. Raises UserError."""
        for member in self.members:
            if not member.recipe.trainable:
                why = "can be planned and hosted, but this version does not train it yet; take it out"
                raise UserError(f"{self.name}: {member.place}: {member.name} {why}")
        for options in self.experiment.all_tasks:
            head = self.task(options).head
            if options.max_length > self.shape.positions:
                raise UserError(
                    f"{self.name}: task {options.name}: max_length: {options.max_length}, "
                    f"but the backbone has only {self.shape.positions} positions"
                )
            for member in self.members:
                make(self.experiment.search.strategy, member.space, 0, Budget(), self.cost_of(member, head), 1)
            self._check_budgets(head)

    def _check_budgets(self, head: Head) -> None:
        cost = self.experiment.cost
        for index, budget in enumerate(self.experiment.all_budgets()):
            refusals = []
            for member in self.members:
                try:
                    check_budget(member.space, budget, self.shape, head, cost.length, cost.batch)
                except UserError as error:
                    refusals.append(str(error))
            if len(refusals) == len(self.members):
                raise UserError(f"{self.name}: budgets[{index}]: no method can meet it. " + "; ".join(refusals))

    def context(
        self,
        options: TaskOptions,
        folder: Path,
        seed: int,
        who: str,
        teacher: Network | None = None,
        reads: tuple[str, ...] = ("train", "search"),
        heard: Callable[[StageRecord], None] | None = None,
    ) -> Context:
        """What a recipe may touch; its stages are recorded in the archive under `who`, then told to `heard`."""
        task = self.task(options)

        def record(stage: StageRecord) -> None:
            self.archive.record_stage(task.name, who, seed, stage)
            if heard:
                heard(stage)

        view = task.restricted(*reads)
        return Context(folder, self.backbone, view, seed, teacher, self.hardware, record, options.max_length)


def member_of(entry: MethodEntry, index: int, backbone: Any, name: str) -> Member:
    """A method of the experiment for a backbone. Raises UserError, by its place, where its space can't be."""
    method, options, place = get(entry.name), entry.options, f"methods[{index}]"
    try:
        return Member(method, options, method.space(options, backbone), method.recipe(options), place)
    except (UserError, ValueError) as error:
        key = str(error).partition(":")[0]
        raise UserError(f"{name}: {place}{'.' if key in method.options.model_fields else ': '}{error}") from error
