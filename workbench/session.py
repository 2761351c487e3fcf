"""What the verbs that compute share: the experiment with its backbone, tasks, spaces, recipes and hardware, opened once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from methods.backbone import Backbone, BackboneConfig
from methods.budget import Budget
from methods.errors import UserError
from methods.recipe import Context, CorpusContext, CorpusRecipe, Hardware, Recipe, StageRecord, TaskRecipe
from methods.registry import Method, get
from methods.space import SearchSpace
from methods.tasks.task import Task
from search.archive import Archive
from search.limits import CostFunction, refuse_impossible
from workbench.experiment import DATA_SEED, Experiment, MethodEntry, Resources, TaskOptions
from workbench.folder import RunFolder, hardware
from workbench.sizes import backbone_config

if TYPE_CHECKING:
    from methods.corpus.corpus import Corpus
    from methods.latency import LatencyTable
    from methods.network import Network
    from methods.tasks.batches import Collate
    from methods.tasks.head import Head
    from workbench.augmenting import AugmentedTask


@dataclass(frozen=True)
class Member:
    """A method as the experiment sets it up, and its entry's place in the file."""

    method: Method
    entry: MethodEntry
    options: Any
    space: SearchSpace
    recipe: Recipe
    place: str

    @property
    def name(self) -> str:
        """What tables, folders and the archive call it."""
        return self.entry.label

    @property
    def on_task(self) -> TaskRecipe | None:
        """The recipe, where its supernet is trained on the task."""
        return self.recipe if isinstance(self.recipe, TaskRecipe) else None

    @property
    def on_corpus(self) -> CorpusRecipe | None:
        """The recipe, where its supernet is trained on a corpus."""
        return self.recipe if isinstance(self.recipe, CorpusRecipe) else None


@dataclass
class Session:
    """`name` is how messages call the experiment: its file."""

    experiment: Experiment
    folder: RunFolder
    name: str
    _tasks: dict[str, Task] = field(default_factory=dict)
    _collates: dict[tuple[str, str], Collate] = field(default_factory=dict)
    _augmented: dict[str, AugmentedTask] = field(default_factory=dict)

    @cached_property
    def hardware(self) -> Hardware:
        return hardware(self.experiment.hardware)

    @cached_property
    def archive(self) -> Archive:
        from workbench.archive_of_main import archive_of_main

        return archive_of_main(self.experiment.archive or self.folder.archive, self.folder.path)

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
    def corpus(self) -> Corpus:
        """The unlabelled text, all splits open. Raises UserError where the experiment has none or it can't be read."""
        options = self.experiment.corpus
        if options is None:
            raise UserError(f"{self.name}: corpus: missing")
        return options.load(self.backbone.tokenizer, self.folder.text(options.name))

    @cached_property
    def devices(self) -> dict[str, LatencyTable]:
        """The latency tables that budgets may speak of. Raises UserError where one can't be read."""
        return read_devices(self.experiment)

    @cached_property
    def members(self) -> list[Member]:
        """The methods with their spaces. Raises UserError, by its place, where a space can't be."""
        return members_of(self.experiment, self.shape, self.name)

    def take(self, experiment: Experiment) -> None:
        """Goes on with the same experiment that has more methods."""
        self.experiment = experiment
        self.__dict__.pop("members", None)

    def resources_of(self, member: Member | None = None) -> Resources:
        """What a stage takes of a cluster: the method's own, where it has some."""
        return (member and member.entry.resources) or self.experiment.resources

    def task(self, options: TaskOptions) -> Task:
        """The task with its data, its training rows limited; all splits open."""
        if options.name not in self._tasks:
            self._tasks[options.name] = options.load()
        return self._tasks[options.name]

    def collate(self, options: TaskOptions, method: Method | None = None) -> Collate:
        """How batches are made for a method, or for teacher and truncated teacher; one object each, so that tokens are kept."""
        from methods.tasks.batches import joint

        key = (options.name, method.name if method else "")
        if key not in self._collates:
            maker = method.collate if method else joint
            self._collates[key] = maker(self.backbone.tokenizer, options.max_length)
        return self._collates[key]

    def cost_of(self, member: Member, head: Head) -> CostFunction:
        """Costs of a method's architectures at the experiment's length and batch."""
        cost = self.experiment.cost
        return CostFunction(member.space, self.shape, head, cost.length, cost.batch, self.devices)

    def possible(self, member: Member, head: Head) -> list[Budget]:
        """The budgets whose limits an architecture of the method meets, each by itself, as far as that can be said beforehand."""
        cost_of, found = self.cost_of(member, head), []
        for budget in self.experiment.all_budgets():
            try:
                refuse_impossible(member.space, budget, cost_of)
            except UserError:
                continue
            found.append(budget)
        return found

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

        common = (seed, teacher, self.hardware, record, options.max_length)
        found = None if teacher is None else self.augmented(options, teacher)
        if found is None:
            return Context(folder, self.backbone, task.restricted(*reads), *common)
        return Context(folder, self.backbone, found.task.restricted(*reads, "augmented"), *common, found.soft_labels)

    def augmented(self, options: TaskOptions, teacher: Network) -> AugmentedTask | None:
        """The task with copies of its training rows, made or read back once; None where the experiment asks for none."""
        from workbench.augmenting import augmented_task

        if not self.experiment.augmentation.copies:
            return None
        if options.name not in self._augmented:
            self._augmented[options.name] = augmented_task(self, options, teacher)
        return self._augmented[options.name]

    def corpus_context(self, method: str, seed: int, heard: Callable[[StageRecord], None]) -> CorpusContext:
        """What the corpus stages of a recipe may touch; they are recorded as those of a task that has the corpus's name, and stages
        that serve all seeds under `DATA_SEED`."""
        corpus = self.corpus.restricted("train", "search")

        def record(under: int, stage: StageRecord) -> None:
            self.archive.record_stage(corpus.name, method, under, stage)
            heard(stage)

        folder, shared = (self.folder.corpus(corpus.name, method, each) for each in (seed, None))
        hears = partial(record, seed), partial(record, DATA_SEED)
        return CorpusContext(folder, shared, self.backbone, corpus, seed, self.hardware, *hears)


def members_of(experiment: Experiment, backbone: BackboneConfig, name: str) -> list[Member]:
    """The methods of an experiment for a backbone. Raises UserError, by its place, where a space can't be."""
    return [member_of(entry, index, backbone, name) for index, entry in enumerate(experiment.methods)]


def read_devices(experiment: Experiment, only: Iterable[str] | None = None) -> dict[str, LatencyTable]:
    """The latency tables of an experiment (or those of `only` these devices), by device. Raises UserError where one can't be read."""
    if not experiment.devices:
        return {}
    from methods.latency import LatencyTable

    wanted = experiment.devices if only is None else only
    return {device: LatencyTable.load(Path(experiment.devices[device])) for device in wanted}


def member_of(entry: MethodEntry, index: int, backbone: Any, name: str) -> Member:
    """A method of the experiment for a backbone. Raises UserError, by its place, where its space can't be."""
    method, options, place = get(entry.name), entry.options, f"methods[{index}]"
    try:
        return Member(method, entry, options, method.space(options, backbone), method.recipe(options), place)
    except (UserError, ValueError) as error:
        key = str(error).partition(":")[0]
        raise UserError(f"{name}: {place}{'.' if key in method.options.model_fields else ': '}{error}") from error
