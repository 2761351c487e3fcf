"""The experiment: backbone x tasks x methods x seeds x budgets. One YAML file holds it; what is written into the run folder is complete."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from methods.baselines.truncated import NAME as TRUNCATED
from methods.budget import LIMITS, Budget
from methods.corpus.options import CorpusOptions
from methods.training.augmentation.options import AugmentationOptions
from methods.training.options import Options
from methods.training.teacher import TeacherOptions
from workbench.fields import Count, Device, Plugins, Seeds
from workbench.method_entry import MethodEntry, Resources
from workbench.search_options import BudgetEntry, Controls, SearchOptions
from workbench.task_options import DATA_SEED, TaskOptions, asks_questions
from workbench.tune_options import TuneEntry

__all__ = [
    "DATA_SEED", "BudgetEntry", "Controls", "CostOptions", "Experiment", "HardwareOptions", "MethodEntry", "Resources", "SearchOptions",
    "TaskOptions", "asks_questions",
]  # fmt: skip


TAKEN_LABELS = ("teacher", "augmentation", TRUNCATED, "text")
"""What folders and the archive call what is no method: the last is the folder of a corpus's tokens."""


class CostOptions(Options):
    """FLOPs are those of `batch` texts of `length` tokens."""

    length: Count = 128
    batch: Count = 1


class HardwareOptions(Options):
    """`auto` and None are settled when a run starts and stand in its folder from then on.

    `precision`: `bf16` runs forward and backward passes of all training and evaluation in bfloat16, by autocast; weights, gradients and
    optimiser stay float32. `checkpoint_seconds`: after so many seconds of training, at the end of a step, a checkpoint is saved: so much,
    and a step, is what a killed run can lose of it; 0: every step.
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["fp32", "bf16"] = "fp32"
    threads: Count | None = None
    checkpoint_seconds: Annotated[float, Field(ge=0)] = 60.0


class Experiment(Options):
    """Everything that a run depends on. `backbone`: a hub id, a directory, or `demo`. `task` or `tasks`, one of the two.

    `corpus`: the unlabelled text of methods that are trained on it. `devices`: latency tables (files) of the devices that budgets name.
    `archive`: the URL, without a password, of a PostgreSQL database in which the run gets a schema of its own (None: `archive.db` in the
    run folder). `tune`: methods whose options are searched first; each gets a row of its own with what is found. `plugins`: modules that
    register methods of one's own, imported by every process that reads the experiment.
    """

    backbone: Annotated[str, Field(min_length=1)]
    task: TaskOptions | None = None
    tasks: tuple[TaskOptions, ...] = ()
    methods: Annotated[tuple[MethodEntry, ...], Field(min_length=1)]
    budgets: Annotated[tuple[BudgetEntry, ...], Field(min_length=1)]
    seeds: Seeds = (0,)
    corpus: CorpusOptions | None = None
    devices: dict[Device, str] = Field(default_factory=dict)
    teacher: TeacherOptions = Field(default_factory=TeacherOptions)
    augmentation: AugmentationOptions = Field(default_factory=AugmentationOptions)
    search: SearchOptions = Field(default_factory=SearchOptions)
    controls: Controls = Field(default_factory=Controls)
    cost: CostOptions = Field(default_factory=CostOptions)
    hardware: HardwareOptions = Field(default_factory=HardwareOptions)
    resources: Resources = Field(default_factory=Resources)
    plugins: Plugins = ()
    tune: tuple[TuneEntry, ...] = ()
    archive: Annotated[str, Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Experiment:
        if (self.task is None) == (not self.tasks):
            raise ValueError("name either one task under `task` or several under `tasks`")
        for place, names in (
            ("tasks", [task.name for task in self.all_tasks]),
            ("methods", [entry.label for entry in self.methods]),
            ("seeds", [str(seed) for seed in self.seeds]),
            ("budgets", [budget.budget().label() for budget in self.budgets]),
            ("tune", [entry.method for entry in self.tune]),
        ):
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                hint = "; give one a label" if place == "methods" else ""
                raise ValueError(f"{place} must be distinct; {', '.join(twice)} is there twice{hint}")
        limits = [budget.limits() for budget in self.all_budgets()]
        same = next(((limits.index(limit), i) for i, limit in enumerate(limits) if limits.index(limit) < i), None)
        if same is not None:
            raise ValueError(f"budgets must be distinct; budgets[{same[0]}] and budgets[{same[1]}] have the same limits")
        return self

    @model_validator(mode="after")
    def _named_what_is_there(self) -> Experiment:
        """Seeds of tasks, devices of budgets, budgets of variants, and the corpus's own name."""
        for task in self.all_tasks:
            strange = [seed for seed in task.seeds or () if seed not in self.seeds]
            if strange:
                raise ValueError(f"task {task.name}: seeds: {strange[0]} is none of the experiment's seeds {list(self.seeds)}")
        for index, entry in enumerate(self.methods):
            if entry.label in TAKEN_LABELS:
                raise ValueError(f"methods[{index}].label: {entry.label} is what a run calls something of its own; choose another")
            named = [task.name for task in self.all_tasks]
            for key, wanted, known in (("tasks", entry.tasks, named), ("seeds", entry.seeds, list(self.seeds))):
                other = [value for value in wanted or () if value not in known]
                if other:
                    raise ValueError(f"methods[{index}].{key}: {other[0]} is none of the experiment's: {', '.join(map(str, known))}")
        for index, budget in enumerate(self.budgets):
            unknown = [device for device in budget.max_latency if device not in self.devices]
            if unknown:
                raise ValueError(f"budgets[{index}].max_latency: there is no device {unknown[0]!r}; name its table under `devices`")
        timed = [name.removeprefix("max_latency.") for name in self.search.objectives if name not in LIMITS]
        unknown = [device for device in timed if device not in self.devices]
        if unknown:
            raise ValueError(f"search.objectives: there is no device {unknown[0]!r}; name its table under `devices`")
        labels = [budget.label() for budget in self.all_budgets()]
        missing = [name for name in self.controls.variants if name not in labels]
        if missing:
            raise ValueError(f"controls.variants: there is no budget {missing[0]!r}; there are {', '.join(labels)}")
        if self.corpus and self.corpus.name in [task.name for task in self.all_tasks]:
            raise ValueError(f"corpus.name: {self.corpus.name} is also a task's name; choose another")
        return self

    @model_validator(mode="after")
    def _tunes_what_is_there(self) -> Experiment:
        for index, tuned in enumerate(self.tune):
            entries = {entry.label: entry for entry in self.methods}
            if tuned.method not in entries:
                raise ValueError(f"tune[{index}].method: there is no method {tuned.method!r}; there are {', '.join(entries)}")
            own = [task.name for task in self.tasks_of(entries[tuned.method])]
            if tuned.task is None and len(own) > 1:
                raise ValueError(f"tune[{index}].task: missing; {tuned.method} is run on {', '.join(own)}")
            if tuned.task is not None and tuned.task not in own:
                raise ValueError(f"tune[{index}].task: {tuned.method} is not run on {tuned.task!r}; it is run on {', '.join(own)}")
        return self

    @property
    def all_tasks(self) -> tuple[TaskOptions, ...]:
        """The tasks, however many there are."""
        return (self.task,) if self.task else self.tasks

    def seeds_of(self, task: TaskOptions) -> tuple[int, ...]:
        """The seeds that a task is run with, in the order of the experiment's."""
        return self.seeds if task.seeds is None else tuple(seed for seed in self.seeds if seed in task.seeds)

    def tasks_of(self, entry: MethodEntry) -> tuple[TaskOptions, ...]:
        """The tasks that a method is run on."""
        return tuple(task for task in self.all_tasks if entry.runs(task.name))

    def controls_of(self, entry: MethodEntry) -> Controls:
        """The control rows that a method gets."""
        none = Controls(random=0, untrained=False, truncated_kd=None, floors=False)
        return self.controls if entry.controls else none

    def corpus_seed(self, seed: int) -> int:
        """The seed of the supernet that serves a seed."""
        return seed if self.corpus is None or self.corpus.seed is None else self.corpus.seed

    def corpus_seeds(self, entry: MethodEntry) -> tuple[int, ...]:
        """The seeds of all supernets of a method on the corpus, each once."""
        runs = [(seed, task) for task in self.all_tasks for seed in self.seeds_of(task) if entry.runs(task.name, seed)]
        used = [seed for seed in self.seeds if any(seed == other for other, _ in runs)]
        return tuple(dict.fromkeys(self.corpus_seed(seed) for seed in used))

    def all_budgets(self) -> list[Budget]:
        return [entry.budget() for entry in self.budgets]

    def resolved(self) -> dict[str, Any]:
        """The whole experiment as plain data, every default written out."""
        data = self.model_dump(mode="json", exclude={"methods", "task" if self.task is None else "tasks"})
        return {"methods": [entry.resolved() for entry in self.methods], **data}
