"""What AdaBERT's stages will cost, from the cost model alone."""

from __future__ import annotations

from math import ceil

from methods.adabert.options import AdaBertOptions, Optimiser
from methods.adabert.space import AdaBertSpace
from methods.backbone import BackboneConfig
from methods.costs import costs
from methods.dynabert.space import full_spec
from methods.recipe import StagePlan
from methods.tasks.head import Head

PROBES, SEARCH, DERIVE, FINISH = "probes", "search", "derive", "finish"
_FLOAT = 4
_KEPT = {"cell_convolution": 3, "cell_pool": 2, "cell_identity": 0}
"""Tensors (B, L, d) that an operation keeps for its backward pass: ReLU, convolution and norm, or pooling's input and indices."""


class Plan:
    """The figures of the four stages, for texts of one length."""

    def __init__(self, options: AdaBertOptions, space: AdaBertSpace, backbone: BackboneConfig, head: Head, rows: int, length: int) -> None:
        self.options, self.space, self.backbone, self.head = options, space, backbone, head
        self.rows, self.length = rows, length
        self.augmented = rows * (1 + options.augmentation.copies)
        teacher = costs(full_spec(backbone, head), length)
        self.teacher_flops, self.teacher_bytes = teacher.flops, _FLOAT * teacher.parameters

    def probes(self) -> StagePlan:
        o = self.options.probes
        steps = _steps(self.rows, o.epochs, o.batch_size)
        heads = (self.backbone.layers + 1) * self.head.labels
        probe = heads * 2 * self.backbone.hidden
        examples = steps * min(self.rows, o.batch_size)
        features = _FLOAT * self.rows * (self.backbone.layers + 1) * self.backbone.hidden
        memory = self.teacher_bytes + features + 4 * _FLOAT * heads * (self.backbone.hidden + 1)
        flops = float(self.rows * self.teacher_flops + 3 * examples * probe)
        return StagePlan(PROBES, steps, examples, flops, memory, note=f"{self.backbone.layers + 1} linear probes on the frozen teacher")

    def search(self) -> StagePlan:
        o = self.options.search
        steps = o.steps or _steps(self.augmented, o.epochs, o.batch_size)
        examples = steps * min(self.augmented, o.batch_size)
        flops = float(self.augmented * self.teacher_flops + 3 * o.samples_per_step * examples * self.supernet_flops())
        memory = self.supernet_parameters() * _bytes_per_parameter(o.weights) + self._supernet_activations(o.batch_size)
        note = f"{self.options.augmentation.copies} augmented copies of each row; {o.execution} operations run"
        return StagePlan(SEARCH, steps, examples, flops, memory, o.samples_per_step, note)

    def derive(self) -> StagePlan:
        o = self.options.derivation
        largest = self.space.largest()
        forward = costs(self.space.spec(largest, self.backbone, self.head, "hosted"), self.length).flops
        held_out = min(2000, ceil(self.rows / 9))
        scored = 0
        if o.rule == "sample_best":
            scored = o.candidates * (held_out + o.batch_norm_batches * self.options.search.batch_size)
        elif o.rule == "perturbation":
            scored = held_out * len(self.space.edges) * len(self.space.columns)
        memory = self.supernet_parameters() * _FLOAT
        return StagePlan(DERIVE, 0, scored, float(scored * forward), memory, note=f"rule {o.rule}; nothing is trained")

    def finish(self) -> StagePlan:
        o = self.options.finish
        spec = self.space.spec(self.space.largest(), self.backbone, self.head, "hosted")
        cost = costs(spec, self.length)
        steps = _steps(self.augmented, o.epochs, o.batch_size)
        examples = steps * min(self.augmented, o.batch_size)
        cells, edges = self.space.options.cells, sum(self.space.kept(n) for n in range(self.space.options.nodes))
        state = o.batch_size * self.length * self.space.options.width * _FLOAT
        memory = cost.parameters * _bytes_per_parameter(o.weights) + 3 * cells * edges * state
        return StagePlan(FINISH, steps, examples, 3.0 * examples * cost.flops, memory, note="upper bound: the largest architecture")

    def _operations(self) -> list[tuple[int, int, int]]:
        """Per operation of an edge but zero: parameters, FLOPs of a text, tensors kept."""
        parts = self.space.parts["hosted"].values()
        return [(part.other_parameters(), part.flops(self.length), _KEPT[part.kind]) for part in parts]

    def _places(self) -> int:
        return self.space.options.cells * len(self.space.edges)

    def supernet_flops(self) -> float:
        """Forward of one text through all cells, and all depths' heads; `chosen`: the mean over operations, zero among them."""
        stem, output = self.space.ends(self.backbone, self.head, 1)
        edge = sum(flops for _, flops, _ in self._operations())
        share = 1.0 if self.options.search.execution == "all" else 1 / len(self.space.columns)
        heads = self.space.options.cells * output.flops(self.length)
        return stem.flops(self.length) + self._places() * edge * share + heads

    def supernet_parameters(self) -> int:
        o = self.space.options
        stem, _ = self.space.ends(self.backbone, self.head, 1)
        heads = sum(k + 1 for k in range(1, o.cells + 1))
        classifiers = (1 if o.shared_classifier else o.cells) * self.head.labels * (o.width + 1)
        architecture = len(self.space.edges) * len(self.space.columns) + o.cells
        operations = self._places() * sum(parameters for parameters, _, _ in self._operations())
        fixed = stem.embedding_parameters() + stem.other_parameters() + o.cells * o.nodes
        return fixed + operations + heads + classifiers + architecture

    def _supernet_activations(self, batch: int) -> int:
        state = batch * self.length * self.space.options.width * _FLOAT
        tensors = [kept for _, _, kept in self._operations()]
        # mixing keeps every operation's output for the gradient of its weight
        edge = sum(tensors) + len(tensors) if self.options.search.execution == "all" else max(tensors) + 1
        return self._places() * edge * state


def _steps(rows: int, epochs: float, batch: int) -> int:
    return max(1, round(ceil(rows / batch) * epochs))


def _bytes_per_parameter(optimiser: Optimiser) -> int:
    """Weight, gradient, and one moment (SGD) or two (Adam), in float32."""
    return _FLOAT * (3 if optimiser.name == "sgd" else 4)
