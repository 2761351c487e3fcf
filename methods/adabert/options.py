"""AdaBERT's knobs at the paper's values (arXiv 2001.04246); where it is silent, at those of its authors' public code.

What neither of them fixes says so: dilation, the cost normaliser, augmentation, the length of the last fine-tuning.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from methods.training.options import Fraction, Options

OperationName = Literal[
    "conv_3", "conv_5", "conv_7", "dilated_conv_3", "dilated_conv_5", "dilated_conv_7", "max_pool_3", "average_pool_3", "identity"
]
OPERATIONS: tuple[OperationName, ...] = (
    "conv_3", "conv_5", "conv_7", "dilated_conv_3", "dilated_conv_5", "dilated_conv_7", "max_pool_3", "average_pool_3", "identity"
)  # fmt: skip
Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]


class SpaceOptions(Options):
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


class AugmentationOptions(Options):
    """Word replacement in training texts. The paper names no multiplicity; `copies` and the rest are TinyBERT's. 0: none."""

    copies: Annotated[int, Field(ge=0)] = 20
    replaced: Fraction = 0.4
    candidates: Count = 15


class Temperature(Options):
    """tau of the sampler: `exponential` max(end, start exp(-rate epoch)), `linear` from start to end, or `constant` start."""

    start: Rate = 1.0
    end: Rate = 0.2
    schedule: Literal["exponential", "linear", "constant"] = "exponential"
    rate: Rate = 0.02


class LossOptions(Options):
    """(1 - gamma) CE + gamma KD + beta L_E (paper).

    `distillation: probes` is the paper's pairing of student layer i with probe round(i J / K); `split` gives half of gamma to the
    teacher's final logits and half to the hidden layers (authors' code); `final` leaves the probes out (the paper's ablation).
    `layer_weights`: softmax of the negative probe loss, per example or of the batch's mean. `efficiency: budget` puts a
    hinge on the relative overshoot over the budget, its weight by dual ascent, in place of beta.
    `normaliser` makes costs comparable: softmax of parameters / `parameter_scale` and of FLOPs / `flops_scale`, share of the
    largest operation, share of the supernet, or measured latency. The paper leaves it open; beta has meaning only with it.
    """

    gamma: Annotated[float, Field(ge=0, le=1)] = 0.8
    beta: Weight = 4.0
    temperature: Rate = 1.0
    temperature_squared: bool = True
    distillation: Literal["probes", "split", "final"] = "probes"
    layer_weights: Literal["example", "batch"] = "example"
    efficiency: Literal["weighted", "budget", "off"] = "weighted"
    normaliser: Literal["softmax", "max", "share", "latency"] = "softmax"
    parameter_scale: Rate = 1e6
    flops_scale: Rate = 1e8


class EigenvalueStop(Options):
    """DARTS-ES: stop when the largest eigenvalue of the loss's Hessian in the architecture parameters grows by `threshold` over
    `lag` evaluations (means of `window`). `adapt` (DARTS-ADA): go back and multiply their weight decay by `factor` instead."""

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

    `parameter_free_cap`: stop when a cell has more such edges. `zero_one`, `entropy`: push towards decided parameters.
    `beta_decay`: largest weight of the mean logsumexp. `auxiliary_skip`: an identity beside every mixed edge, fading out.
    `operation_dropout`: drop path on parameter-free operations. `perturbation`: noise on the mixing weights up to
    `perturbation_size`. `edge_normalisation`, `partial_channels`: of PC-DARTS (1: all channels). `operation_stop`: threshold below
    which train and validation gradients disagree and an operation is frozen (OLES). `cell_alignment`: weight of Lambda-DARTS.
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
    operation_stop: Rate | None = None
    operation_stop_every: Count = 20
    cell_alignment: Weight = 0.0


class SearchOptions(Options):
    """One run that trains weights and architecture parameters. `steps` replaces `epochs` where it is set.

    `sampler`: `gumbel_st` is AdaBERT's; softmax (DARTS), gumbel (SNAS), gdas, dirichlet (DrNAS), sigmoid (FairDARTS), reinmax.
    `level`: both on the same batch, or the architecture on a part of train held out (`bilevel1`, `unrolled`: DARTS).
    `execution`: run every operation of an edge, or the sampled one alone (then it alone gives its edge a gradient).
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


class DerivationOptions(Options):
    """From architecture parameters to one architecture. `argmax`: the most probable depth, edges and operations (the paper's);
    `perturbation` (DARTS-PT): keep what hurts most when masked; `sample_best`: the best of `candidates` draws on the search split,
    batch norms re-estimated on `batch_norm_batches`; `budget`: the most probable one under a limit, exactly."""

    rule: Literal["argmax", "perturbation", "sample_best", "budget"] = "argmax"
    candidates: Count = 20
    batch_norm_batches: Annotated[int, Field(ge=0)] = 200


class FinishOptions(Options):
    """Training of the derived network, from the supernet's weights (paper) or from scratch. The paper names no length."""

    epochs: Rate = 10.0
    batch_size: Count = 64
    start: Literal["inherit", "scratch"] = "inherit"
    objective: Literal["labels_and_distillation", "labels"] = "labels_and_distillation"
    weights: Optimiser = Field(default_factory=Optimiser)


class AdaBertOptions(SpaceOptions):
    """The space's knobs, then those of the stages in their order."""

    probes: ProbeOptions = Field(default_factory=ProbeOptions)
    augmentation: AugmentationOptions = Field(default_factory=AugmentationOptions)
    search: SearchOptions = Field(default_factory=SearchOptions)
    derivation: DerivationOptions = Field(default_factory=DerivationOptions)
    finish: FinishOptions = Field(default_factory=FinishOptions)
