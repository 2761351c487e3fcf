"""How a method trains its supernet and finishes a chosen sub-network: named stages, each resumable."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from methods.space import Architecture, SearchSpace

if TYPE_CHECKING:
    from torch import nn
    from transformers.utils.generic import ModelOutput

    from methods.backbone import Backbone, BackboneConfig
    from methods.budget import Budget
    from methods.corpus.corpus import Corpus
    from methods.costs import Costs
    from methods.latency import LatencyTable
    from methods.network import Network
    from methods.supernet import Batch, Supernet
    from methods.tasks.head import Head
    from methods.tasks.spec import TaskSpec
    from methods.tasks.task import Task
    from methods.training.augmentation.soft_labels import SoftLabels

Scope = Literal["task", "corpus"]
Per = Literal["seed", "budget", "network"]


@dataclass(frozen=True)
class StagePlan:
    """What a stage will do, known before anything is trained.

    `subnetworks`: so many are trained in each step; of a stage that trains networks one after the other, or only evaluates them, so many
    in all. `examples`: rows read over all steps; `flops`: 3 x forward of every trained sub-network plus 1 x forward of the teacher, at the
    planned length; `memory`: bytes of weights, gradients, optimiser state, the activations of the one graph that is alive, and states
    that are kept.
    """

    name: str
    steps: int
    examples: int
    flops: float
    memory: int
    subnetworks: int = 1
    note: str = ""
    scope: Scope = "task"
    """`corpus`: done once for all tasks."""
    per: Per = "seed"
    """What it is done anew for; a stage of `CorpusRecipe.shared_stages` serves all seeds."""


@dataclass(frozen=True)
class StageRecord:
    """What a stage did. `seconds` add up over restarts. `subnetwork_steps`: backward passes, one for each sub-network (or block of one)
    that a step trains, None where nobody counted them; `steps` are those of the optimiser."""

    stage: str
    steps: int
    examples: int
    flops: float
    seconds: float
    subnetwork_steps: int | None = None


@dataclass(frozen=True)
class Hardware:
    """Where and how numbers are computed; part of the resolved experiment.

    `checkpoint_seconds`: after so many seconds of training what is trained so far is saved; no number depends on it.
    """

    device: str = "cpu"
    precision: Literal["fp32", "bf16"] = "fp32"
    threads: int = 1
    checkpoint_seconds: float = 60.0


class Watch(Protocol):
    """Looks at what is trained while it is trained; no number of the training depends on it."""

    def wants(self, stage: str, step: int, total: int) -> bool:
        """Whether it looks when `step` of the stage's `total` steps are done."""

    def look(self, share: float, model: nn.Module, so_far: StageRecord) -> None:
        """At a copy, in eval mode, of what a stage trains (a supernet, or a network) after this share of its steps, all of which are in the
        stage's checkpoint."""


@dataclass(frozen=True)
class Context:
    """All that a recipe may touch. `task` opens `train`, `augmented` (where there are copies) and `search` alone; `folder` is the recipe's
    own."""

    folder: Path
    backbone: Backbone
    task: Task
    seed: int
    teacher: Network | None = None
    hardware: Hardware = field(default_factory=Hardware)
    record: Callable[[StageRecord], None] = lambda _: None
    max_length: int = 128
    soft_labels: SoftLabels | None = None
    """The teacher's logits of the rows of `augmented`, where the task has copies of its rows."""
    watch: Watch | None = None


@dataclass(frozen=True)
class CorpusContext:
    """What the corpus stages of a recipe may touch. `corpus` opens `train` and `search` alone; `folder` is the recipe's own, for this
    seed; `shared` is the recipe's own for all seeds (its teacher lies there)."""

    folder: Path
    shared: Path
    backbone: Backbone
    corpus: Corpus
    seed: int
    hardware: Hardware = field(default_factory=Hardware)
    record: Callable[[StageRecord], None] = lambda _: None
    record_shared: Callable[[StageRecord], None] = lambda _: None
    """Hears of stages that serve all seeds."""


def stage_of(name: str, architecture: Architecture) -> str:
    """The name of a stage that serves one architecture alone."""
    return f"{name}-{architecture.id[:12]}"


def serves(stage: str, architecture: Architecture) -> bool | None:
    """Whether a stage serves this architecture alone (True), another one alone (False), or is no stage of single ones (None)."""
    name, dash, short = stage.rpartition("-")
    if not (dash and name and len(short) == 12 and set(short) <= set("0123456789abcdef")):
        return None
    return short == architecture.id[:12]


class Recipe(ABC):
    """The stages of a method. Every stage leaves its result in the context's folder; run again, what is finished is read, not repeated.

    `TaskRecipe` trains a supernet per task, `CorpusRecipe` one on unlabelled text that serves every task.
    """

    scope: Scope = "task"
    trainable: bool = True
    """Whether this version trains the method; a run refuses any other before it starts."""
    reads: tuple[str, ...] = ("train", "search")
    """The splits that its stages may open."""
    initial_name: str = "untrained"
    """What the table calls an architecture cut from `initial` weights."""
    variants: tuple[str, ...] = ()
    """Other ways to finish an architecture than the one of the options (`scratch`, `inherit`); control rows where asked for."""

    @abstractmethod
    def plan(self, space: SearchSpace, backbone: BackboneConfig, head: Head, rows: int, length: int, copies: int = 0) -> list[StagePlan]:
        """The stages for a task of `rows` training rows, of each so many `copies` with other words, and texts of `length` tokens."""


class TaskRecipe(Recipe):
    """The supernet is trained on the task, with its fine-tuned teacher."""

    scope: Scope = "task"
    derived_by: str = ""
    """What the table calls the choice of `derive`; empty where the method has no such rule."""
    floor_controls: tuple[str, ...] = ()
    """The names of what `floors` gives."""

    def check(self, backbone: BackboneConfig, task: TaskSpec) -> None:
        """Looks at what the options name before anything is trained. Raises UserError where it is missing or fits neither."""

    def about(self) -> dict[str, str]:
        """What a reader has to know of how this was trained and no table shows, by subject."""
        return {}

    @abstractmethod
    def train(self, context: Context) -> Supernet:
        """Runs all stages (or reads their results) and returns the trained supernet in eval mode."""

    @abstractmethod
    def initial(self, context: Context) -> Supernet:
        """The supernet before its first trained stage: a control that shows what training is worth."""

    @abstractmethod
    def finish(self, context: Context, supernet: Supernet, architecture: Architecture) -> Network:
        """From a trained supernet to the network that ships (deployed form), in eval mode."""

    def finish_variant(self, context: Context, supernet: Supernet, architecture: Architecture, variant: str) -> Network:  # noqa: ARG002
        """`finish` in another way, one of `variants`; its stages lie in a folder of that name beneath the context's, and are recorded
        through the context under the same names as `finish`'s."""
        raise ValueError(f"there is no variant {variant!r} to finish networks by; there are {', '.join(self.variants) or 'none'}")

    def score(self, context: Context, supernet: Supernet, architecture: Architecture) -> Callable[[Batch], ModelOutput]:  # noqa: ARG002
        """How an architecture of the trained supernet is evaluated with shared weights: from a batch to what a network answers."""
        return partial(supernet.forward_logits, architecture=architecture)

    def rows_before_score(self, context: Context) -> int:  # noqa: ARG002 (one signature)
        """So many rows of `train` are read through an architecture before `score` can evaluate it: part of what a search costs."""
        return 0

    def derive(
        self,
        context: Context,  # noqa: ARG002 (one signature)
        supernet: Supernet,  # noqa: ARG002
        budget: Budget,  # noqa: ARG002
        cost_of: Callable[[Architecture], Costs],  # noqa: ARG002
    ) -> Architecture | None:
        """What the method's own rule chooses from the trained supernet under a budget; None where it has none, or none that meets it.

        `cost_of`: costs of the deployed form, to which the budget's limits apply.
        """
        return None

    def floors(
        self,
        context: Context,  # noqa: ARG002
        supernet: Supernet,  # noqa: ARG002
        fits: Callable[[Architecture], bool],  # noqa: ARG002
    ) -> Iterator[Floor]:
        """Controls that the method has to beat, each trained with the same losses as its networks when it is asked for; none where it has
        no such idea. `fits`: whether an architecture of the space is within the budgets."""
        return iter(())


@dataclass(frozen=True)
class Floor:
    """A control below the method's networks: `name` as the table calls it, its architecture (not always of the method's space), and the
    network that ships."""

    name: str
    architecture: Architecture
    network: Network


@dataclass(frozen=True)
class Estimate:
    """An architecture as tables know it: `loss` is a sum of table entries, smaller being better; `costs` are exact."""

    architecture: Architecture
    loss: float
    costs: Costs


class Estimates(Protocol):
    """What tables alone say of a space, exactly; no weights are needed. Costs are those of the deployed form."""

    def best(self, budget: Budget, count: int = 1) -> list[Estimate]:
        """The `count` (or all there are) architectures of the least loss that meet every limit, best first.

        Raises UserError that names the smallest achievable values where none does.
        """

    def front(self, cost: str = "max_flops", count: int | None = None) -> list[Estimate]:
        """The whole Pareto front of loss and the cost that this limit speaks of, cost ascending."""

    def loss(self, architecture: Architecture) -> float | None:
        """The estimate of one architecture; None where the tables lack a part of it."""

    @property
    def space(self) -> SearchSpace:
        """The architectures that the tables know, as a space that any strategy can search."""


class CorpusRecipe(Recipe):
    """The supernet is trained on unlabelled text; what is chosen from it is pre-trained there, then fine-tuned on each task."""

    scope: Scope = "corpus"
    shared_stages: tuple[str, ...] = ()
    """Names of the stages that serve all seeds."""
    inner_stages: tuple[str, ...] = ()
    """Names of what is recorded as a stage but has no folder of its own."""
    candidates: int = 1
    """So many estimates per budget are assembled and measured before one is chosen."""
    criterion: str = "log_likelihood"
    """What of `assemble` chooses; larger is better."""
    lengths: tuple[int, ...] = (128,)
    """Tokens of the texts that the corpus stages read; the last is that of `assemble` and `measure`."""
    assembled_texts: int = 0
    """So many texts of `search` are read by `assemble`, at most; 0: all of them."""

    def check(self, space: SearchSpace, backbone: BackboneConfig, variants: Sequence[str]) -> None:
        """Looks at what the options ask for before anything is trained; `variants`: those that the experiment asks for. Needs no weights
        and no text. Raises UserError where it cannot work out."""

    parts: int = 0
    """So many parts of the supernet can be trained by themselves, each in any process, before `train` reads them."""

    def prepare(self, context: CorpusContext) -> None:
        """Runs the stages that serve all seeds, or reads their results."""

    def train_part(self, context: CorpusContext, part: int) -> None:  # noqa: ARG002 (one signature)
        """Trains one of `parts` (from 0) and nothing else."""
        raise ValueError(f"there is no part {part} to train by itself")

    @abstractmethod
    def train(self, context: CorpusContext) -> Supernet:
        """Runs the corpus stages up to the tables (or reads their results) and returns the trained supernet in eval mode."""

    @abstractmethod
    def estimates(
        self,
        folder: Path,
        space: SearchSpace,
        backbone: BackboneConfig,
        heads: Sequence[Head],
        length: int,
        batch: int,
        devices: Mapping[str, LatencyTable],
    ) -> Estimates:
        """The tables that `train` left in `folder`, with costs under the dearest of `heads`, latency on `devices` among them.

        Needs neither weights nor corpus. Raises UserError where there are none yet.
        """

    @abstractmethod
    def assemble(self, context: CorpusContext, supernet: Supernet, architecture: Architecture) -> Mapping[str, float]:
        """The whole network with the supernet's weights on the corpus's `search`: `log_likelihood` of masked words (nats a word,
        larger is better), `masked_accuracy`, `negative_state_error` (less the mean squared error to the teacher's last state)."""

    @abstractmethod
    def pretrain(self, context: CorpusContext, supernet: Supernet, architecture: Architecture, variant: str = "") -> Network:
        """The deployed network with a masked-language-model head, pre-trained on the corpus; `variant`: '' or one of `variants`."""

    @abstractmethod
    def measure(self, context: CorpusContext, network: Network, split: str) -> Mapping[str, float]:
        """What `assemble` says, of a pre-trained network on any split of the corpus."""

    @abstractmethod
    def finish(self, context: Context, pretrained: Network, architecture: Architecture, start: Network | None = None) -> Network:
        """The pre-trained network fine-tuned on the task, in eval mode; `start`: the same architecture's network of another task,
        whose encoder is taken instead (`init_from`)."""

    def about(self, context: CorpusContext) -> dict[str, str]:  # noqa: ARG002 (one signature)
        """What a reader has to know of how this was trained and no table shows, by subject; asked for after `train`."""
        return {}

    def starts_from(self, task: str) -> str | None:  # noqa: ARG002 (one signature)
        """The task whose finished network this one starts from."""
        return None
