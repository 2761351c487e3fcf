"""What AdaBERT's stages will cost, from the cost model alone."""

from __future__ import annotations

from math import ceil

from methods.adabert.options import AdaBertOptions, Optimiser, SearchOptions
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

    def __init__(
        self, options: AdaBertOptions, space: AdaBertSpace, backbone: BackboneConfig, head: Head, rows: int, length: int, copies: int = 0
    ) -> None:
        self.options, self.space, self.backbone, self.head = options, space, backbone, head
        self.rows, self.length = rows, length
        self.copies = copies
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
        rows = self._rows(o.augmented)
        steps = o.steps or _steps(rows, o.epochs, o.batch_size)
        examples = steps * min(rows, o.batch_size)
        flops = float(rows * self.teacher_flops + 3 * o.samples_per_step * passes(o) * examples * self.supernet_flops())
        memory = self.supernet_parameters() * _bytes_per_parameter(o.weights) + self._supernet_activations(o.batch_size)
        note = f"{self.copies if o.augmented else 0} augmented copies of each row; {o.execution} operations run"
        return StagePlan(SEARCH, steps, examples, flops, memory, o.samples_per_step, note)

    def derive(self) -> StagePlan:
        o = self.options.derivation
        forward = costs(self.space.spec(self.space.largest(), self.backbone, self.head, "hosted"), self.length).flops
        held_out, size = min(2000, ceil(self.rows / 9)), self.options.search.batch_size
        scored, steps, flops, note = 0, 0, 0.0, "nothing is trained"
        if o.rule == "sample_best":
            scored = o.candidates * (held_out + o.batch_norm_batches * size)
            flops = float(scored * forward)
        elif o.rule == "perturbation":
            edges, nodes = len(self.space.edges), self.space.options.nodes
            scored = min(held_out, o.masked_rows) * edges * len(self.space.columns)
            steps = (edges + nodes) * o.tuning_steps
            flops = (scored + 3 * steps * size) * self.supernet_flops()
            note = f"{o.tuning_steps} steps after each choice" if steps else note
        memory = self.supernet_parameters() * _FLOAT
        return StagePlan(DERIVE, steps, scored + steps * size, flops, memory, note=f"rule {o.rule}; {note}")

    def finish(self) -> StagePlan:
        o = self.options.finish
        spec = self.space.spec(self.space.largest(), self.backbone, self.head, "hosted")
        cost = costs(spec, self.length)
        rows = self._rows(o.augmented)
        steps = _steps(rows, o.epochs, o.batch_size)
        examples = steps * min(rows, o.batch_size)
        cells, edges = self.space.options.cells, sum(self.space.kept(n) for n in range(self.space.options.nodes))
        state = o.batch_size * self.length * self.space.options.width * _FLOAT
        memory = cost.parameters * _bytes_per_parameter(o.weights) + 3 * cells * edges * state
        note = "upper bound: the largest architecture"
        return StagePlan(FINISH, steps, examples, 3.0 * examples * cost.flops, memory, note=note, per="network")

    def _rows(self, augmented: bool) -> int:
        return self.rows * (1 + self.copies) if augmented else self.rows

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


def passes(options: SearchOptions) -> int:
    """How often a step runs the supernet per sample, forward and backward: unrolled looks ahead, back, and at both sides of where it is."""
    o = options
    own = {"single": 1, "bilevel1": 2, "unrolled": 5}[o.level]
    return own * (8 if o.remedies.perturbation == "adversarial" else 1) + (0 if o.remedies.operation_stop is None else 1)


def _bytes_per_parameter(optimiser: Optimiser) -> int:
    """Weight, gradient, and one moment (SGD) or two (Adam), in float32."""
    return _FLOAT * (3 if optimiser.name == "sgd" else 4)
