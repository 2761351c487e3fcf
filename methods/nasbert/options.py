"""NAS-BERT's knobs. Defaults are the paper's; where it gives none, the comment `ours` stands beside the value."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from methods.nasbert.encoding import PAPER_EMBEDDING_SIZES, PAPER_HIDDEN_SIZES, PAPER_OPERATIONS, check_sizes
from methods.training.options import Fraction, MethodOptions, Optimiser, Options

BinPolicy = Literal["equal_width", "quantile"]
LatencyBound = Literal["upper", "both", "none"]

Count = Annotated[int, Field(ge=1)]
CountOrZero = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(gt=0, le=1)]
Weight = Annotated[float, Field(ge=0, le=1)]


class CorpusTeacher(Options):
    """`pretrain`: masked language modelling from random weights (section 4.1); `backbone`: the backbone as it is. Where its files hold
    no output layer for masked words, one is trained on its frozen features, `head_steps` long (decoder tied to the word table)."""

    source: Literal["pretrain", "backbone"] = "pretrain"
    steps: Count = 125_000
    head_steps: Count = 1_000  # ours
    batch_size: Count = 2_048
    accumulation: Count = 1
    length: Count = 512
    optimiser: Optimiser = Field(default_factory=Optimiser)


class BlockTraining(Options):
    """Block-wise training (section 3.2): mean squared error to the teacher's state after each block, one random path per step.

    `epochs`: null trains until every bin is down to `shrinking.kept`. `sampler`: `bins` draws a bin, then a path in it (ours: almost
    all paths are small ones); `paths` draws uniformly; `gradual` changes `gradual_changes` operations from step to step.
    `blocks_per_step`: `all` trains every block on one pass of the teacher, `one` a block at a time. `normalise: variance` divides a
    block's loss by the variance of the teacher's state. `accumulation`: batches per step. `probe_paths`: so many paths, stratified
    by bin, are set apart (never trained or ranked) and their held-out loss is logged at the end of each epoch.
    """

    warmup_epochs: CountOrZero = 3
    epoch_steps: Count = 1_000  # ours: the paper does not say what an epoch is
    epochs: Count | None = None
    batch_size: Count = 1_024
    accumulation: Count = 1
    length: Count = 512
    probe_paths: CountOrZero = 0  # ours
    sampler: Literal["bins", "paths", "gradual"] = "bins"
    gradual_changes: Count = 1
    blocks_per_step: Literal["all", "one"] = "all"
    normalise: Literal["none", "variance"] = "none"
    optimiser: Optimiser = Field(default_factory=Optimiser)


class ShrinkingOptions(Options):
    """Progressive shrinking (section 3.3): after the warm-up, at the end of each epoch, the worst paths of each bin are dropped.

    `unit: operation` drops operations by their mean loss until `operation_drop` of the paths are gone (the paper's ablation),
    `none` does not shrink. `bin_policy: equal_width` parts the parameters of the largest path evenly (the paper), `quantile` the paths
    (ours). `sample`: paths ranked per bin, 0 for all. `latency_bound: upper` drops paths whose latency is beyond the same share of the
    slowest path's (`quantile`: of the paths), `both` those short of it too (the paper, literally). `latency`: the file of a device's
    latency table; null: FLOPs stand for latency. `dev_batch_size`: null: that of the training.
    """

    unit: Literal["path", "operation", "none"] = "path"
    bins: Count = 10
    bin_policy: BinPolicy = "equal_width"
    latency_bound: LatencyBound = "upper"
    kept: Count = 10
    sample: CountOrZero = 2_000
    drop_fraction: Share = 0.5
    latency: str | None = None
    operation_drop: Share = 0.3
    dev_batches: Count = 5
    dev_batch_size: Count | None = None


class SelectionOptions(Options):
    """The `candidates` with the least sum of block losses are evaluated whole (section 3.4). `dev_batches`: 0 for the whole dev set.

    `criterion`: which of them is best on held-out text: by the log-likelihood of masked words, or by the last state's mean squared error
    to the teacher's, for teachers whose output layer for masked words is poor (the paper's "validation loss" leaves it open).

    The tables cannot tell embedding widths apart. `embedding: paper` takes the width that the paper's found networks of that size
    have (table 10; without a limit on all parameters the widest), `searched` the widest that the budget allows.
    """

    candidates: Count = 100
    dev_batches: CountOrZero = 0
    criterion: Literal["log_likelihood", "state_error"] = "log_likelihood"
    embedding: Literal["paper", "searched"] = "paper"


class Retraining(Options):
    """`scratch`: random weights (the paper); `inherit`: the supernet's blocks with In and Out composed (ours).

    Loss: (1 - distillation) x masked words + distillation x KL to the teacher at `temperature` (section 3.5). `objective: hidden`
    (ours) puts the mean squared error of the last states, through a linear map and over the variance of the teacher's, in the place of
    the KL, for teachers whose output layer for masked words is poor.
    """

    start: Literal["scratch", "inherit"] = "scratch"
    objective: Literal["logits", "hidden"] = "logits"
    steps: Count = 125_000
    batch_size: Count = 2_048
    accumulation: Count = 1
    length: Count = 512
    distillation: Weight = 0.5
    temperature: Positive = 1.0
    optimiser: Optimiser = Field(default_factory=Optimiser)


class Finetuning(Options):
    """On the task, with the fine-tuned teacher: (1 - distillation) x task loss + distillation x KL (regression: squared error of outputs).

    The grid is ours, the paper gives none; the run that is best on `search` stays. `init_from`: for a task the one whose network it
    starts from ({rte: mnli, mrpc: mnli, stsb: mnli} in the paper). `rows`: at most so many training rows. `augmented`: their copies are
    read too, where section `augmentation` makes any; the teacher's logits are then computed once.
    """

    rows: Count | None = None

    learning_rates: Annotated[tuple[Positive, ...], Field(min_length=1)] = (1e-5, 2e-5, 3e-5, 5e-5, 1e-4)
    batch_sizes: Annotated[tuple[Count, ...], Field(min_length=1)] = (16, 32)
    epochs: Annotated[tuple[Count, ...], Field(min_length=1)] = (3, 5, 10)
    warmup: Fraction = 0.06
    weight_decay: NotNegative = 0.0
    clip: NotNegative = 5.0
    distillation: Weight = 0.5
    temperature: Positive = 1.0
    init_from: dict[str, str] = Field(default_factory=dict)
    augmented: bool = True

    @property
    def runs(self) -> int:
        return len(self.learning_rates) * len(self.batch_sizes) * len(self.epochs)


class NasBertOptions(MethodOptions):
    """The space (`sublayers` in `blocks`, `hidden_sizes`, `operations`, `embedding_sizes`, `head_size` of attention; dropout of
    hidden states, attention and convolutions, scaled by h / largest h where `dynamic_dropout`), and the stages in their order."""

    sublayers: Count = 24
    blocks: Count = 4
    hidden_sizes: Annotated[tuple[Count, ...], Field(min_length=1)] = PAPER_HIDDEN_SIZES
    operations: Annotated[tuple[str, ...], Field(min_length=1)] = PAPER_OPERATIONS
    embedding_sizes: Annotated[tuple[Count, ...], Field(min_length=1)] = PAPER_EMBEDDING_SIZES
    head_size: Count = 64
    dropout: Fraction = 0.1
    attention_dropout: Fraction = 0.1
    convolution_dropout: Fraction = 0.0
    dynamic_dropout: bool = False
    teacher: CorpusTeacher = Field(default_factory=CorpusTeacher)
    supernet: BlockTraining = Field(default_factory=BlockTraining)
    shrinking: ShrinkingOptions = Field(default_factory=ShrinkingOptions)
    selection: SelectionOptions = Field(default_factory=SelectionOptions)
    retrain: Retraining = Field(default_factory=Retraining)
    finetune: Finetuning = Field(default_factory=Finetuning)

    @model_validator(mode="after")
    def _fit_together(self) -> NasBertOptions:
        check_sizes(self.sublayers, self.blocks, self.hidden_sizes, self.operations, self.embedding_sizes, self.head_size)
        epochs = self.supernet.epochs
        if self.shrinking.unit == "none" and epochs is None:
            raise ValueError("supernet.epochs: needs a number where shrinking.unit is none, for nothing else ends the training")
        if epochs is not None and epochs < self.supernet.warmup_epochs:
            raise ValueError(f"supernet.epochs: {epochs} is less than supernet.warmup_epochs {self.supernet.warmup_epochs}")
        return self

    def sizes(self) -> dict[str, Any]:
        """What `NasBertSpace` takes."""
        names = ("sublayers", "blocks", "hidden_sizes", "operations", "embedding_sizes", "head_size")
        dropouts = ("dropout", "attention_dropout", "convolution_dropout", "dynamic_dropout")
        return {name: getattr(self, name) for name in (*names, *dropouts)}
