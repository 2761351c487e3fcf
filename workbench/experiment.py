"""The experiment: backbone x tasks x methods x seeds x budgets. One YAML file holds it; what is written into the run folder is complete."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, model_validator

from methods.baselines.truncated import TruncatedOptions
from methods.budget import LIMITS, Budget, parse_quantity, parse_seconds
from methods.corpus.options import CorpusOptions
from methods.errors import UserError
from methods.registry import get
from methods.space import SearchSpace
from methods.tasks.questions.split import Windows
from methods.tasks.spec import KNOWN, METRICS, TaskSpec, resolve
from methods.tasks.task import Task, load_task
from methods.training.augmentation.options import AugmentationOptions
from methods.training.options import Options
from methods.training.teacher import TeacherOptions
from search.strategies import registry as strategies

DATA_SEED = 0
"""Row limits, teacher and demo backbone are the same whatever the run's seeds."""
RESERVED = (
    "teacher", "report", "predictions", "archive.db", "archive.db-wal", "archive.db-shm", "backbone", "corpus", "experiment.yaml",
    "environment.json", "augmented", ".", "..",
)  # fmt: skip
"""What lies in a run folder beside the tasks' folders."""
QUESTION_LENGTHS = {"max_length": 384, **vars(Windows())}
"""Of questions, where nothing else is said."""
Count = Annotated[int, Field(ge=1)]
Seeds = Annotated[tuple[Annotated[int, Field(ge=0, le=2**63 - 1)], ...], Field(min_length=1)]


def _quantity(value: Any) -> Any:
    try:
        return None if value is None else parse_quantity(value, "")
    except UserError as error:
        raise ValueError(str(error).removeprefix(": ")) from error


def _folder_name(name: str) -> str:
    """A task has a folder of its name in the run folder."""
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
        raise ValueError("a task's name is also a folder's; letters, digits, '_', '.' and '-' are allowed")
    if name.lower() in RESERVED:
        raise ValueError("the run folder has something else of that name; choose another")
    return name


def _whole(value: float | None) -> float | int | None:
    return int(value) if value is not None and value == int(value) else value


def _seconds(value: Any) -> Any:
    try:
        return parse_seconds(value, "")
    except UserError as error:
        raise ValueError(str(error).removeprefix(": ")) from error


Quantity = Annotated[float | None, BeforeValidator(_quantity), PlainSerializer(_whole)]
Latency = Annotated[float, BeforeValidator(_seconds)]
Device = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]


def asks_questions(name: Any, metric: Any) -> bool:
    """Whether a task of that name or metric is answered by spans."""
    if isinstance(metric, str):
        return METRICS.get(metric) == "span"
    return isinstance(name, str) and name in KNOWN and KNOWN[name].spec.kind == "span"


class TaskOptions(Options):
    """`data`: `hub`, `hub:NAME`, `generated`, or a directory with train.tsv and validation.tsv; for questions train.json and
    validation.json in the layout of SQuAD v1.1.

    `text`, `label`, `labels`, `metric` describe a task that is not known by its name; for questions `metric` (answer_f1 or exact_match)
    is enough. `stride`, `question_length`: of questions alone, whose longer contexts are read in windows of `max_length` word pieces
    that share `stride` of them, and which are themselves cut at `question_length` (by default 384, 128 and 64).

    `rows` limits the training rows (None: all of them); texts are cut at `max_length` word pieces. `seeds`: those of the experiment's
    seeds that this task is run with (None: all).
    """

    name: Annotated[str, AfterValidator(_folder_name)]
    data: str = "hub"
    text: Annotated[tuple[str, ...], Field(min_length=1, max_length=2)] | None = None
    label: str | None = None
    labels: tuple[str, ...] | None = None
    metric: str | None = None
    rows: Count | None = None
    max_length: Annotated[int, Field(ge=4)] = 128
    stride: Annotated[int, Field(ge=0)] | None = None
    question_length: Count | None = None
    seeds: Seeds | None = None

    @model_validator(mode="before")
    @classmethod
    def _one_text(cls, data: Any) -> Any:
        """A single column may be written without brackets."""
        if isinstance(data, Mapping) and isinstance(data.get("text"), str):
            return {**data, "text": (data["text"],)}
        return data

    @model_validator(mode="before")
    @classmethod
    def _lengths_of_questions(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or not asks_questions(data.get("name"), data.get("metric")):
            return data
        return {**data, **{key: value for key, value in QUESTION_LENGTHS.items() if data.get(key) is None}}

    @property
    def spec(self) -> TaskSpec:
        """What the task is, without its data. Raises UserError where the description does not hold together."""
        spec = resolve(self.name, self.text, self.label, self.labels, self.metric)
        if self.windows is None and (self.stride, self.question_length) != (None, None):
            raise UserError(f"task {self.name}: stride and question_length are of questions (metric: answer_f1); take them out")
        if self.windows is not None:
            self.windows.check(self.max_length, f"task {self.name}")
        return spec

    @property
    def windows(self) -> Windows | None:
        """How contexts of questions are read; None of other tasks."""
        if self.stride is None or self.question_length is None or not asks_questions(self.name, self.metric):
            return None
        return Windows(self.stride, self.question_length)

    def load(self) -> Task:
        """The task with its data, its training rows limited; all splits open. Raises UserError."""
        described = {"text": self.text, "label": self.label, "labels": self.labels, "metric": self.metric}
        task = load_task(self.name, self.data, **described, windows=self.windows)  # type: ignore[arg-type]
        return task.limited(self.rows, DATA_SEED)


class Resources(Options):
    """What a stage takes of a Ray cluster (`run --ray`); no number depends on it.

    `cpus` (None: `hardware.threads`), `gpus` (None: one where `hardware.device` is cuda; 0.25: four stages share one), `memory` (bytes,
    with K, M or G behind the number) that a node must have free. `workers`: so many processes at most evaluate for one search (None: as
    many as `search.generation`).
    """

    cpus: Annotated[float, Field(ge=0)] | None = None
    gpus: Annotated[float, Field(ge=0)] | None = None
    memory: Quantity = None
    workers: Count | None = None


class MethodEntry(BaseModel):
    """A method's name with its options, as the method's own model.

    `label` among the options: what the entry is called where one method is there several times. `tasks`, `seeds`: those of the
    experiment's that it is run on (None: all). `controls: false`: it gets no control rows. `resources`: other ones than the experiment's.
    """

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str
    tasks: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    seeds: Seeds | None = None
    controls: bool = True
    resources: Resources | None = None

    @property
    def label(self) -> str:
        """What tables, folders and the archive call it."""
        return str((self.model_extra or {}).get("label") or self.name)

    def runs(self, task: str, seed: int | None = None) -> bool:
        """Whether it is run on a task (with a seed)."""
        return (self.tasks is None or task in self.tasks) and (seed is None or self.seeds is None or seed in self.seeds)

    @property
    def options(self) -> BaseModel:
        """The options, checked. Raises pydantic's ValidationError."""
        return get(self.name).options.model_validate(self.model_extra or {})

    def resolved(self) -> dict[str, Any]:
        """Name and every option; a label, tasks, seeds and controls where they say something."""
        options = self.options.model_dump(mode="json")
        if not options.get("label", True):
            del options["label"]
        limits = self.model_dump(mode="json", include={"tasks", "seeds", "controls", "resources"}, exclude_defaults=True)
        return {"name": self.name, **options, **limits}


class BudgetEntry(Options):
    """Upper limits, with K, M, G or T behind the number; at least one. `max_latency`: {DEVICE: 12ms}, of a device under `devices`."""

    name: str = ""
    max_params: Quantity = None
    max_params_non_embedding: Quantity = None
    max_flops: Quantity = None
    max_latency: dict[str, Latency] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _limited(self) -> BudgetEntry:
        if not self.budget().limits():
            raise ValueError("no limit; set max_params, max_params_non_embedding, max_flops or max_latency")
        return self

    def budget(self) -> Budget:
        return Budget(self.max_params, self.max_params_non_embedding, self.max_flops, self.max_latency, self.name)


def _switched(value: Any) -> Any:
    """`true` for the defaults, `false` for none."""
    return {} if value is True else None if value is False else value


def _strategy(name: str) -> str:
    known = (strategies.AUTO, *strategies.names())
    if name not in known:
        raise ValueError(f"there is no such strategy; there are {', '.join(known)}")
    return name


class Controls(Options):
    """Rows that show what a method is worth; the teacher is always there.

    `random`: so many random architectures in 90-100 % of each budget, finished as the winner is; 20 or more of a method with a rule of
    derivation (AdaBERT) are scored with shared weights too and compete. `untrained`: the winner's shape cut from untrained weights.
    `floors`: what a method names as the least that it has to beat (AdaBERT: bag of embeddings, fixed CNN). `truncated_kd`: the teacher
    cut evenly to fewer layers and distilled; `true` or its options. `equal_flops`: truncated-kd gets as many training FLOPs as the
    costliest method on that task, shared by the depths that the budgets ask for; else its own `epochs` hold. A method that is trained
    on the corpus counts with its stages on the task and its stages on the corpus divided by the number of tasks, controls left out.

    `hand_made` sets beside each budget's winner the hand-made network of the same budget, finished the same way, where the method has
    such networks; `variants` are names of budgets under which both are also finished in the method's other ways (NAS-BERT, AdaBERT:
    from the supernet's weights, or from scratch). `int8`: each budget's winner with weights of 8 bit (onnxruntime's dynamic quantisation),
    run in batches of `cost.batch`.
    """

    random: Annotated[int, Field(ge=0)] = 5
    untrained: bool = True
    truncated_kd: Annotated[TruncatedOptions | None, BeforeValidator(_switched)] = Field(default_factory=TruncatedOptions)
    equal_flops: bool = True
    floors: bool = True
    hand_made: bool = False
    variants: tuple[str, ...] = ()
    int8: bool = False


class SearchOptions(Options):
    """`strategy: auto` is exhaustive in a space of no more architectures than would be measured, else `predictor`. `evaluations`: how many
    architectures each search may measure (None: the strategy's own number; exhaustive: all). `generation`: so many are proposed before
    any of them is measured, which is also how many workers can measure at once.

    `objectives`: costs, by the names of their limits (`max_flops`). With them one search looks for the front of quality and these costs,
    within the widest of the limits that all budgets have, and serves every budget; without, there is a search per budget.

    `report_all`: every architecture of an exhaustively searched space is also measured on `validation`; printed, never ranked by.
    Methods trained on the corpus are searched by their tables, whatever the strategy; `sampled`: so many networks drawn from the
    tables are estimated and assembled too, to show how well the estimates rank.
    """

    strategy: Annotated[str, AfterValidator(_strategy)] = strategies.AUTO
    evaluations: Count | None = None
    generation: Count = 8
    objectives: tuple[str, ...] = ()
    report_all: bool = False
    sampled: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _listed(self) -> SearchOptions:
        if self.report_all and self.strategy not in ("exhaustive", strategies.AUTO):
            raise ValueError("report_all goes with strategy: exhaustive")
        return self

    @model_validator(mode="after")
    def _known_costs(self) -> SearchOptions:
        for index, name in enumerate(self.objectives):
            if name not in LIMITS and not name.startswith("max_latency."):
                raise ValueError(f"objectives[{index}]: {name!r} is no cost; there are {', '.join(LIMITS)} and max_latency.<device>")
        if len(set(self.objectives)) < len(self.objectives):
            raise ValueError(f"objectives must be distinct, got {', '.join(self.objectives)}")
        return self

    def strategy_for(self, space: SearchSpace) -> str:
        """The strategy's name, which `auto` becomes for a space."""
        return strategies.resolve(self.strategy, space.size(), self.evaluations)


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

    @model_validator(mode="after")
    def _consistent(self) -> Experiment:
        if (self.task is None) == (not self.tasks):
            raise ValueError("name either one task under `task` or several under `tasks`")
        for place, names in (
            ("tasks", [task.name for task in self.all_tasks]),
            ("methods", [entry.label for entry in self.methods]),
            ("seeds", [str(seed) for seed in self.seeds]),
            ("budgets", [budget.budget().label() for budget in self.budgets]),
        ):
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ValueError(f"{place} must be distinct; {', '.join(twice)} is there twice")
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
