"""AdaBERT's knobs at the paper's values (arXiv 2001.04246); where it is silent, at those of its authors' public code.

What neither of them fixes says so: dilation, the cost normaliser, the length of the last fine-tuning.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from methods.budget import parse_quantity
from methods.errors import UserError
from methods.training.options import Fraction, MethodOptions, Options

OperationName = Literal[
    "conv_3", "conv_5", "conv_7", "dilated_conv_3", "dilated_conv_5", "dilated_conv_7", "max_pool_3", "average_pool_3", "identity"
]
OPERATIONS: tuple[OperationName, ...] = (
    "conv_3", "conv_5", "conv_7", "dilated_conv_3", "dilated_conv_5", "dilated_conv_7", "max_pool_3", "average_pool_3", "identity"
)  # fmt: skip
ONE_HOT_SAMPLERS = ("gumbel_st", "gdas", "reinmax")
Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]


class SpaceOptions(MethodOptions):
    """The paper's space. `cells`: K goes from 1 to this. `nodes`: inner nodes of a cell. `width`: d.

    `in_edges`: edges that a node keeps (a node with fewer sources keeps them all). `operations`: those that an edge may become;
    "zero" exists in the supernet alone. `dilation` is not in the paper. `pool_input: relu` is what the TensorFlow re-release does.
    `normalisation: layer` needs no re-estimated statistics, but can't be folded into the convolution. `shared_classifier`: one for
    all depths (re-release), else one for every K (authors' code).
    """

    cells: Annotated[int, Field(ge=1, le=64)] = 8
    nodes: Annotated[int, Field(ge=2, le=8)] = 3
    width: Count = 128
    in_edges: Annotated[int, Field(ge=2, le=4)] = 2
    operations: Annotated[tuple[OperationName, ...], Field(min_length=1)] = OPERATIONS
    dilation: Count = 2
    pool_input: Literal["raw", "relu"] = "raw"
    normalisation: Literal["batch", "layer"] = "batch"
    momentum: Annotated[float, Field(gt=0, le=1)] = 0.1
    dropout: Fraction = 0.3
    shared_classifier: bool = False
    initial_deviation: Weight = 1e-3

    @model_validator(mode="after")
    def _distinct(self) -> SpaceOptions:
        if len(set(self.operations)) != len(self.operations):
            raise ValueError(f"operations: each may be named once, got {', '.join(self.operations)}")
        return self


class Optimiser(Options):
    """How weights are trained: the rate falls from `learning_rate` to `final_learning_rate`; `beta1` is SGD's momentum too."""

    name: Literal["sgd", "adam", "adamw"] = "sgd"
    learning_rate: Rate = 2e-2
    final_learning_rate: Weight = 5e-4
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    beta1: Fraction = 0.9
    beta2: Fraction = 0.999
    weight_decay: Weight = 3e-4
    clip: Rate = 5.0


class ArchitectureOptimiser(Options):
    """Adam on the architecture parameters. `warm_up`: the share of the search during which they rest."""

    learning_rate: Rate = 3e-4
    beta1: Fraction = 0.5
    beta2: Fraction = 0.999
    weight_decay: Weight = 1e-3
    clip: Rate = 5.0
    warm_up: Fraction = 0.0


class ProbeOptions(Options):
    """One linear probe per teacher layer, from 0 (mean of the embedding) to J. `feature`: of layers 1 to J, the first token's vector,
    or what the teacher's pooler makes of it."""

    epochs: Rate = 5.0
    batch_size: Count = 64
    learning_rate: Rate = 2e-2
    clip: Rate = 5.0
    feature: Literal["first_token", "pooled"] = "first_token"


class Temperature(Options):
    """tau of the sampler: `exponential` max(end, start exp(-rate epoch)), `linear` from start to end, or `constant` start.

    `rate: null`: exponential from start to end over the whole search, however long it is.
    """

    start: Rate = 1.0
    end: Rate = 0.2
    schedule: Literal["exponential", "linear", "constant"] = "exponential"
    rate: Rate | None = 0.02


def _quantity(value: Any) -> Any:
    """`8M` as a number; None stays."""
    try:
        return value if value is None else parse_quantity(value)
    except UserError as error:
        raise ValueError(str(error)) from error


Quantity = Annotated[Rate, BeforeValidator(_quantity)]


class CostLimits(Options):
    """What the costs of the derived network are held under, at texts of `length`, when `efficiency` is `budget`.

    `of: expected`: its expected costs under the architecture parameters; `derived`: those of the network that would be derived at this
    step, with the gradient of the expected ones (straight through). While operations are undecided the two are far apart: the expected
    cost is that of an average network, and a slight preference for cheap operations makes the derived one much cheaper.
    `dual_rate`: by how much the hinge's weight grows per step and unit of relative overshoot.
    """

    max_params: Quantity | None = None
    max_params_non_embedding: Quantity | None = None
    max_flops: Quantity | None = None
    length: Count = 128
    of: Literal["expected", "derived"] = "expected"
    dual_rate: Rate = 0.01

    @model_validator(mode="after")
    def _something(self) -> CostLimits:
        if self.max_params is None and self.max_params_non_embedding is None and self.max_flops is None:
            raise ValueError("no limit: max_params, max_params_non_embedding or max_flops is needed")
        return self


class LossOptions(Options):
    """(1 - gamma) CE + gamma KD + beta L_E (paper).

    `distillation: probes` is the paper's pairing of student layer i with probe round(i J / K); `split` gives half of gamma to the
    teacher's final logits and half to the hidden layers (authors' code); `final` leaves the probes out (the paper's ablation).
    `teacher_entropy: subtracted` distils by Kullback-Leibler divergence in place of cross-entropy. Weights get the same gradient; the
    architecture's depth no longer hears how sure the probes are that a depth is paired with, which no student can change.
    `layer_weights`: softmax of the negative probe loss, per example or of the batch's mean. `efficiency: budget` puts a
    hinge on the relative overshoot over the budget, its weight by dual ascent, in place of beta.
    `limits`: that budget.
    `normaliser` makes costs comparable: softmax of parameters / `parameter_scale` and of multiply-adds / `flops_scale`, share of the
    largest operation, share of the supernet, or `operation_latency` (of each operation, in any unit) over the largest of them.
    The paper leaves it open; beta has meaning only with it.
    """

    gamma: Annotated[float, Field(ge=0, le=1)] = 0.8
    beta: Weight = 4.0
    temperature: Rate = 1.0
    temperature_squared: bool = True
    distillation: Literal["probes", "split", "final"] = "probes"
    teacher_entropy: Literal["kept", "subtracted"] = "kept"
    layer_weights: Literal["example", "batch"] = "example"
    efficiency: Literal["weighted", "budget", "off"] = "weighted"
    normaliser: Literal["softmax", "max", "share", "latency"] = "softmax"
    parameter_scale: Rate = 1e6
    flops_scale: Rate = 1e8
    operation_latency: dict[OperationName, Rate] | None = None
    limits: CostLimits | None = None

    @model_validator(mode="after")
    def _complete(self) -> LossOptions:
        if (self.efficiency == "budget") != (self.limits is not None):
            raise ValueError("limits: needed with efficiency: budget, and only there")
        if (self.normaliser == "latency") != (self.operation_latency is not None):
            raise ValueError("operation_latency: needed with normaliser: latency, and only there")
        return self


class EigenvalueStop(Options):
    """DARTS-ES: stop when the largest eigenvalue of the held-out loss's Hessian in the architecture parameters grows by `threshold`
    over `lag` evaluations (means of `window`), and return what was `lag` evaluations earlier. `adapt` (DARTS-ADA): go back there,
    multiply the weights' weight decay by `factor` and go on."""

    action: Literal["stop", "adapt"] = "stop"
    every_epochs: Count = 2
    window: Count = 5
    lag: Count = 4
    threshold: Rate = 1.3
    first_epoch: Annotated[int, Field(ge=0)] = 10
    factor: Rate = 3.0
    largest_weight_decay: Rate = 0.0243


class RemedyOptions(Options):
    """Known cures of differentiable search, all off in the paper. Weights and rates of 0, and null, are off.

    `parameter_free_cap`: stop when a cell has more such edges (DARTS+). `zero_one` (FairDARTS; sampler `sigmoid` only), `entropy`
    (its weight rises linearly): push towards decided parameters. `beta_decay`: weight of the mean logsumexp of the rows, rising
    linearly to this. `auxiliary_skip`: an identity beside every mixed edge, fading out (DARTS-). `operation_dropout`: drop path on
    parameter-free operations, fading out. `perturbation`: noise on the mixing weights of edges, growing to `perturbation_size`
    (SDARTS). `edge_normalisation`, `partial_channels`: of PC-DARTS (1: all channels). `operation_stop`: an operation whose train and
    held-out gradients have a mean cosine below this over `operation_stop_every` steps is frozen (OLES). `cell_alignment`: weight of
    one minus the mean cosine between the cells' gradients on the shared edges (Lambda-DARTS).
    """

    eigenvalue_stop: EigenvalueStop | None = None
    parameter_free_cap: Annotated[int, Field(ge=0)] | None = None
    zero_one: Weight = 0.0
    entropy: Weight = 0.0
    beta_decay: Weight = 0.0
    auxiliary_skip: bool = False
    operation_dropout: Fraction = 0.0
    perturbation: Literal["off", "random", "adversarial"] = "off"
    perturbation_size: Weight = 0.03
    edge_normalisation: bool = False
    partial_channels: Count = 1
    operation_stop: Annotated[float, Field(gt=-1, lt=1)] | None = None
    operation_stop_every: Count = 20
    cell_alignment: Weight = 0.0


class SearchOptions(Options):
    """One run that trains weights and architecture parameters. `steps` replaces `epochs` where it is set.

    `sampler`: `gumbel_st` is AdaBERT's; softmax (DARTS), gumbel (SNAS), gdas, dirichlet (DrNAS), sigmoid (FairDARTS), reinmax.
    `level`: both on the same batch, or the architecture on a part of train held out (`bilevel1`, `unrolled`: DARTS).
    `execution`: run every operation of an edge, or the sampled one alone (then it alone gives its edge a gradient).
    What needs held-out rows at level `single` (`eigenvalue_stop`, `operation_stop`) takes a tenth of train.
    `augmented`: the rows' copies are read too, where section `augmentation` makes any.
    """

    epochs: Rate = 80.0
    steps: Count | None = None
    batch_size: Count = 64
    sampler: Literal["softmax", "gumbel", "gumbel_st", "gdas", "dirichlet", "sigmoid", "reinmax"] = "gumbel_st"
    samples_per_step: Count = 1
    level: Literal["single", "bilevel1", "unrolled"] = "single"
    execution: Literal["all", "chosen"] = "all"
    temperature: Temperature = Field(default_factory=Temperature)
    weights: Optimiser = Field(default_factory=Optimiser)
    architecture: ArchitectureOptimiser = Field(default_factory=ArchitectureOptimiser)
    loss: LossOptions = Field(default_factory=LossOptions)
    remedies: RemedyOptions = Field(default_factory=RemedyOptions)
    augmented: bool = True

    @model_validator(mode="after")
    def _consistent(self) -> SearchOptions:
        if self.execution == "chosen" and self.sampler not in ONE_HOT_SAMPLERS:
            raise ValueError(f"execution: chosen needs a sampler of one-hots ({', '.join(ONE_HOT_SAMPLERS)}), got {self.sampler}")
        if self.execution == "chosen" and self.remedies.perturbation != "off":
            raise ValueError("remedies.perturbation: weights all operations of an edge; write execution: all")
        if self.remedies.zero_one and self.sampler != "sigmoid":
            raise ValueError("remedies.zero_one: pushes sigmoids to 0 or 1; write sampler: sigmoid, or use remedies.entropy")
        return self


class DerivationOptions(Options):
    """From architecture parameters to one architecture; a node keeps its `in_edges` strongest edges under every rule.

    `argmax`: the most probable depth, edges and operations (the paper's). `perturbation` (DARTS-PT): keep what hurts most when masked,
    by the loss on at most `masked_rows` rows of `search`, with `tuning_steps` steps of training after each choice; `blank`: from
    uniform weights, architecture parameters unused. `sample_best`: the best of `candidates` draws on `search`. `budget`: the most
    probable one within each budget of the experiment, exactly; without a budget that is `argmax`.
    An architecture that is scored with the supernet's weights has its batch norms re-estimated on `batch_norm_batches` of training
    (0: not at all). `diagnosed_draws` and `diagnosed_rows`: on how many draws and rows of `search` the derivation is diagnosed (D3, D9).
    """

    rule: Literal["argmax", "perturbation", "sample_best", "budget"] = "argmax"
    candidates: Count = 20
    masked_rows: Count = 512
    tuning_steps: Annotated[int, Field(ge=0)] = 0
    blank: bool = False
    batch_norm_batches: Annotated[int, Field(ge=0)] = 200
    diagnosed_draws: Count = 5
    diagnosed_rows: Count = 64


class FinishOptions(Options):
    """Training of the derived network, from the supernet's weights (paper) or from scratch. The paper names no length.

    `augmented`: the rows' copies are read too, where section `augmentation` makes any.
    """

    epochs: Rate = 10.0
    batch_size: Count = 64
    start: Literal["inherit", "scratch"] = "inherit"
    objective: Literal["labels_and_distillation", "labels"] = "labels_and_distillation"
    weights: Optimiser = Field(default_factory=Optimiser)
    augmented: bool = True


class AdaBertOptions(SpaceOptions):
    """The space's knobs, then those of the stages in their order."""

    probes: ProbeOptions = Field(default_factory=ProbeOptions)
    search: SearchOptions = Field(default_factory=SearchOptions)
    derivation: DerivationOptions = Field(default_factory=DerivationOptions)
    finish: FinishOptions = Field(default_factory=FinishOptions)
