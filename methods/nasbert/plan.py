"""What NAS-BERT's stages will cost, from the cost model alone."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, log

import numpy as np
import numpy.typing as npt

from methods.backbone import BackboneConfig
from methods.corpus.masked_words import word_flops
from methods.corpus.masking import SHARE
from methods.costs import costs
from methods.errors import UserError
from methods.layers.encoder import Link
from methods.layers.part import Part
from methods.nasbert.bins import PathClasses, Shrinking, bin_of_classes, foresee_shrinking, operation_costs, path_classes
from methods.nasbert.networks import operation, teacher_spec
from methods.nasbert.options import NasBertOptions
from methods.nasbert.space import NasBertSpace
from methods.network import make_stem
from methods.recipe import StagePlan
from methods.tasks.head import Head

MASKED_WORDS = Head("mlm")
SAMPLES = 256


@dataclass(frozen=True)
class BlockCosts:
    """Of one block: mean FLOPs of a text through a drawn path and its In and Out maps, and how its paths will shrink."""

    flops: float
    shrinking: Shrinking


def plan_stages(
    options: NasBertOptions, space: NasBertSpace, backbone: BackboneConfig, head: Head, rows: int, length: int, copies: int = 0
) -> list[StagePlan]:
    """The stages in their order; corpus stages have lengths of their own, `rows` (of each so many `copies`) and `length` are the task's.

    What is trained later is not known yet: networks are the mean of `SAMPLES` drawn from the space.
    """
    longest = max(options.supernet.length, options.retrain.length, length)
    if options.teacher.source == "pretrain":
        longest = max(longest, options.teacher.length)
    if longest > backbone.positions:
        raise UserError(f"nasbert: texts of {longest} tokens are planned, the backbone has {backbone.positions} positions; lower `length`")
    block = block_costs(options, space, backbone)
    made = copies if options.finetune.augmented else 0
    return [
        _teacher(options, backbone),
        _supernet(options, space, backbone, head, block),
        *_rankings(options, space, backbone, block),
        _retrain(options, space, backbone),
        _finetune(options, space, backbone, head, min(rows, options.finetune.rows or rows) * (1 + made), length),
    ]


def block_costs(options: NasBertOptions, space: NasBertSpace, backbone: BackboneConfig) -> BlockCosts:
    """Counts the paths of a block by cost, fills the bins and foresees their shrinking."""
    length, classes = options.supernet.length, path_classes(space)
    place = _bins(options, space, backbone, classes)
    occupancy = _trained(options, space, classes, place)
    flops = classes.costs(space.tables(backbone, MASKED_WORDS, length).operation[:, :-1, 2])
    maps = np.array([Link(backbone.hidden, h).flops(length) + Link(h, backbone.hidden).flops(length) for h in space.hidden_sizes])
    whole = flops + maps[classes.hidden]
    means = [float(np.average(whole[place == b], weights=classes.paths[place == b])) for b, n in enumerate(occupancy) if n]
    kept = place >= 0
    uniform = float(np.average(whole[kept], weights=classes.paths[kept]))
    mean = sum(means) / len(means) if options.supernet.sampler == "bins" else uniform
    return BlockCosts(mean, _shrinking(options, occupancy))


def occupancy_of(options: NasBertOptions, space: NasBertSpace, backbone: BackboneConfig) -> list[int]:
    """How many paths of a block each bin has at the start, those set apart as probes left out."""
    classes = path_classes(space)
    return _trained(options, space, classes, _bins(options, space, backbone, classes))


def _bins(options: NasBertOptions, space: NasBertSpace, backbone: BackboneConfig, classes: PathClasses) -> npt.NDArray[np.int64]:
    """The bin (m,) of each class, -1 for none."""
    o = options.shrinking
    parameters, latency = (classes.costs(table[:, :-1]) for table in operation_costs(o, space, backbone))
    return bin_of_classes(parameters, latency, classes.paths, o.bins, o.bin_policy, o.latency_bound)


def _trained(options: NasBertOptions, space: NasBertSpace, classes: PathClasses, place: npt.NDArray[np.int64]) -> list[int]:
    everything = [int(classes.paths[place == b].sum()) for b in range(options.shrinking.bins)]
    return [n - share for n, share in zip(everything, probe_shares(everything, options.supernet.probe_paths, space.blocks), strict=True)]


def probe_shares(occupancy: Sequence[int], probes: int, blocks: int) -> list[int]:
    """How many paths of each bin of a block are set apart, where all blocks together set `probes` apart: at most a tenth of a bin."""
    filled = sum(n >= 10 for n in occupancy)
    share = ceil(ceil(probes / blocks) / max(1, filled))
    return [min(share, n // 10) for n in occupancy]


def epochs_of(options: NasBertOptions, occupancy: list[int]) -> int:
    """Epochs of the block-wise training of a block whose bins hold so many paths at the start."""
    o = options.supernet
    return o.epochs if o.epochs is not None else o.warmup_epochs + _shrinking(options, occupancy).rounds


def _shrinking(options: NasBertOptions, occupancy: list[int]) -> Shrinking:
    o = options.shrinking
    if o.unit == "none":
        return Shrinking(0, 0, sum(min(o.kept, n) for n in occupancy))
    if o.unit == "path":
        return foresee_shrinking(occupancy, o.kept, o.sample, o.drop_fraction)
    left = sum(min(o.kept, n) for n in occupancy)
    rounds = 0 if o.operation_drop == 1 else max(0, ceil(log(left / sum(occupancy)) / log(1 - o.operation_drop)))
    ranked = sum(min(n, o.sample) if o.sample else n for n in occupancy)
    return Shrinking(rounds, rounds * ranked, left)


def _teacher(options: NasBertOptions, backbone: BackboneConfig) -> StagePlan:
    o, spec = options.teacher, teacher_spec(backbone, MASKED_WORDS)
    cost = costs(spec, o.length)
    activations = _activations(_layers_of(backbone), o.batch_size, o.length)
    if o.source == "pretrain":
        examples = o.steps * o.batch_size * o.accumulation
        memory = 16 * cost.parameters + activations
        return StagePlan(
            "teacher", o.steps, examples, 3.0 * examples * word_flops(spec, o.length), memory, 1, "from random weights", "corpus"
        )
    examples = o.head_steps * o.batch_size * o.accumulation
    flops = float(examples) * (word_flops(spec, o.length) + 2 * SHARE * spec.head.flops(o.length))
    memory = 4 * cost.parameters + 12 * spec.head.other_parameters() + 4 * o.batch_size * o.length * 3 * backbone.hidden
    return StagePlan(
        "teacher", o.head_steps, examples, flops, memory, 1, "output layer for masked words only, the backbone stays as it is", "corpus"
    )


def _supernet(options: NasBertOptions, space: NasBertSpace, backbone: BackboneConfig, head: Head, block: BlockCosts) -> StagePlan:
    o = options.supernet
    epochs = o.epochs if o.epochs is not None else o.warmup_epochs + block.shrinking.rounds
    later = epochs - o.warmup_epochs
    together = o.blocks_per_step == "all"
    steps = epochs * o.epoch_steps * (1 if together else space.blocks)
    examples = steps * o.batch_size * o.accumulation
    teacher = costs(teacher_spec(backbone, Head("none")), o.length)
    flops = float(examples) * (3 * block.flops * (space.blocks if together else 1) + teacher.flops)
    widest = [operation(name, max(space.hidden_sizes), backbone.layer_norm_eps, space.settings) for name in space.operations]
    path = max(_activations([part] * space.per_block, o.batch_size, o.length) for part in widest)
    states = _held_out_bytes(options, space, backbone) + 4 * o.batch_size * o.length * backbone.hidden * (space.blocks + 1)
    memory = 16 * supernet_parameters(space, backbone, head) + 4 * teacher.parameters + path + states
    note = f"{o.warmup_epochs} warm-up and {later} further epochs of {o.epoch_steps} steps; FLOPs of a mean path"
    return StagePlan("supernet", steps, examples, flops, memory, space.blocks if together else 1, note, "corpus")


def _rankings(options: NasBertOptions, space: NasBertSpace, backbone: BackboneConfig, block: BlockCosts) -> list[StagePlan]:
    """Forward passes alone: ranking paths while shrinking, the block loss tables, and the candidates as whole networks."""
    o, texts = options.supernet, _held_out_texts(options)
    stored = 4 * supernet_parameters(space, backbone, MASKED_WORDS)
    memory = stored + _held_out_bytes(options, space, backbone)
    teacher = float(costs(teacher_spec(backbone, Head("none")), o.length).flops)

    def stage(name: str, evaluated: int, passes: int, note: str) -> StagePlan:
        evaluated *= space.blocks
        flops = evaluated * texts * block.flops + passes * texts * teacher
        return StagePlan(name, evaluated * options.shrinking.dev_batches, evaluated * texts, flops, memory, evaluated, note, "corpus")

    found = block.shrinking
    chosen = options.selection
    dev = (chosen.dev_batches or options.shrinking.dev_batches) * (options.shrinking.dev_batch_size or o.batch_size)
    whole = block.flops * space.blocks + SHARE * teacher_spec(backbone, MASKED_WORDS).head.flops(o.length)
    kept = 4 * options.retrain.length * backbone.hidden
    note = f"per budget, on {dev} texts" + ("" if chosen.dev_batches else f"; the whole dev set in proportion, {kept:,} bytes a text")
    runs = chosen.candidates
    stages = 1 if o.blocks_per_step == "all" else space.blocks
    return [
        stage("shrinking", found.evaluations, stages, f"{found.rounds} rounds, teacher states computed once a training and kept"),
        stage("tables", found.kept, 1, "loss of every surviving path of every block"),
        StagePlan(
            "select",
            runs * dev // (options.shrinking.dev_batch_size or o.batch_size),
            runs * dev,
            float(runs) * dev * whole,
            stored + dev * kept,
            runs,
            note,
            "corpus",
            "budget",
        ),
    ]


def _held_out_texts(options: NasBertOptions) -> int:
    return options.shrinking.dev_batches * (options.shrinking.dev_batch_size or options.supernet.batch_size)


def _held_out_bytes(options: NasBertOptions, space: NasBertSpace, backbone: BackboneConfig) -> int:
    """Of the teacher's states on held-out text, which stay in the host's memory."""
    return 4 * _held_out_texts(options) * options.supernet.length * backbone.hidden * (space.blocks + 1)


def _retrain(options: NasBertOptions, space: NasBertSpace, backbone: BackboneConfig) -> StagePlan:
    o = options.retrain
    flops, memory = mean_student(space, backbone, MASKED_WORDS, o.length, o.batch_size)
    spec = teacher_spec(backbone, MASKED_WORDS)
    teacher = costs(spec, o.length)
    taught = o.distillation > 0
    examples = o.steps * o.batch_size * o.accumulation
    note = f"per selected network, from {'random weights' if o.start == 'scratch' else 'the supernet'}"
    total = float(examples) * (3 * flops + (word_flops(spec, o.length) if taught else 0))
    return StagePlan("retrain", o.steps, examples, total, memory + (4 * teacher.parameters if taught else 0), 1, note, "corpus", "network")


def _finetune(options: NasBertOptions, space: NasBertSpace, backbone: BackboneConfig, head: Head, rows: int, length: int) -> StagePlan:
    o = options.finetune
    flops, memory = mean_student(space, backbone, head, length, max(o.batch_sizes))
    teacher = costs(teacher_spec(backbone, head), length)
    taught = o.distillation > 0
    rates, epochs = len(o.learning_rates), sum(o.epochs)
    steps = rates * epochs * sum(max(1, ceil(rows / size)) for size in o.batch_sizes)
    examples = rates * epochs * len(o.batch_sizes) * rows
    total = float(examples) * (3 * flops + (teacher.flops if taught else 0))
    note = f"per selected network and task: {o.runs} runs of the grid"
    return StagePlan("finetune", steps, examples, total, memory + (4 * teacher.parameters if taught else 0), o.runs, note, per="network")


def mean_student(space: NasBertSpace, backbone: BackboneConfig, head: Head, length: int, batch: int) -> tuple[float, int]:
    """FLOPs of one text and bytes of training it: means over networks drawn from the space (deployed form)."""
    rng = random.Random(0)
    specs = [space.spec(space.sample(rng), backbone, head) for _ in range(SAMPLES)]
    found = [costs(spec, length) for spec in specs]
    activations = [_activations(getattr(spec.encoder, "layers", ()), batch, length) for spec in specs]
    flops = sum(word_flops(spec, length) if head == MASKED_WORDS else cost.flops for spec, cost in zip(specs, found, strict=True)) / SAMPLES
    memory = sum(16 * cost.parameters + kept for cost, kept in zip(found, activations, strict=True)) // SAMPLES
    return flops, memory


def supernet_parameters(space: NasBertSpace, backbone: BackboneConfig, head: Head) -> int:
    """All weights of the supernet: candidates at every sub-layer, In and Out maps, the teacher's stem and head."""
    eps, wide = backbone.layer_norm_eps, backbone.hidden
    candidates = sum(operation(name, h, eps, space.settings).other_parameters() for h in space.hidden_sizes for name in space.operations)
    maps = sum(Link(wide, h).other_parameters() + Link(h, wide).other_parameters() for h in space.hidden_sizes)
    stem, output = make_stem(backbone), teacher_spec(backbone, head).head
    return (
        space.blocks * (space.per_block * candidates + maps)
        + stem.embedding_parameters()
        + stem.other_parameters()
        + output.other_parameters()
    )


def _layers_of(backbone: BackboneConfig) -> list[Part]:
    layers = getattr(teacher_spec(backbone, Head("none")).encoder, "layers", ())
    return [part for layer in layers for part in (layer.attention, layer.feed_forward)]


def _activations(parts: Sequence[Part], batch: int, length: int) -> int:
    """Bytes of float32 states that a backward pass keeps: about 8 h per token for attention and its maps, 4 h and 2 inner widths for
    feed-forward, 12 h for a separable convolution."""
    floats = 0
    for part in parts:
        hidden, heads, neurons = (getattr(part, name, 0) for name in ("hidden", "heads", "neurons"))
        per_token = 8 * hidden + 3 * heads * length if heads else 4 * hidden + 2 * neurons if neurons else 12 * hidden
        floats += batch * length * per_token
    return 4 * floats
