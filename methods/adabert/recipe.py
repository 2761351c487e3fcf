"""AdaBERT's stages (paper, sections 3.3 and 3.4): probe the teacher, search, derive, fine-tune. This version plans them."""

from __future__ import annotations

from math import ceil
from typing import cast

from methods.adabert.options import AdaBertOptions, Optimiser
from methods.adabert.space import AdaBertSpace, check_head, operation_part
from methods.backbone import BackboneConfig
from methods.costs import costs
from methods.dynabert.space import full_spec
from methods.errors import UserError
from methods.network import Network
from methods.recipe import Context, Recipe, StagePlan
from methods.space import Architecture, SearchSpace
from methods.supernet import Supernet
from methods.tasks.head import Head

PROBES, SEARCH, DERIVE, FINISH = "probes", "search", "derive", "finish"
_FLOAT = 4
_KEPT = {"cell_convolution": 3, "cell_pool": 2, "cell_identity": 0}
"""Tensors (B, L, d) that an operation keeps for its backward pass: ReLU, convolution and norm, or pooling's input and indices."""


class AdaBertRecipe(Recipe):
    """Per task. The stages are planned from the cost model; training them is refused."""

    scope = "task"
    initial_name = "untrained"

    def __init__(self, options: AdaBertOptions) -> None:
        self.options = options

    def plan(self, space: SearchSpace, backbone: BackboneConfig, head: Head, rows: int, length: int) -> list[StagePlan]:
        """Teacher features, logits and probe logits are computed once per (augmented) row and kept; FLOPs of the search are those
        of all operations that run; the last stage is planned for the largest architecture, so it is an upper bound."""
        check_head(head)
        if length > backbone.positions:
            raise UserError(f"adabert: texts of {length} tokens are planned, the backbone has {backbone.positions} positions")
        plan = _Plan(self.options, cast(AdaBertSpace, space), backbone, head, rows, length)
        return [plan.probes(), plan.search(), plan.derive(), plan.finish()]

    def train(self, context: Context) -> Supernet:  # noqa: ARG002
        raise _untrained()

    def initial(self, context: Context) -> Supernet:  # noqa: ARG002
        raise _untrained()

    def finish(self, context: Context, supernet: Supernet, architecture: Architecture) -> Network:  # noqa: ARG002
        raise _untrained()


def _untrained() -> UserError:
    return UserError(
        "methods: adabert is planned and hosted by this version (its space, costs and a randomly initialised supernet), "
        "but not trained yet; dynabert is trained: name it instead"
    )


class _Plan:
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
        flops = float(self.augmented * self.teacher_flops + 3 * o.samples_per_step * examples * self._supernet_flops())
        memory = self._supernet_parameters() * _bytes_per_parameter(o.weights) + self._supernet_activations(o.batch_size)
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
        memory = self._supernet_parameters() * _FLOAT
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
        parts = [operation_part(name, self.space.options) for name in self.space.options.operations]
        return [(part.other_parameters(), part.flops(self.length), _KEPT[part.kind]) for part in parts]

    def _places(self) -> int:
        return self.space.options.cells * len(self.space.edges)

    def _supernet_flops(self) -> float:
        """Forward of one text through all cells, and all depths' heads; `chosen`: the mean over operations, zero among them."""
        stem, output = self.space.ends(self.backbone, self.head, 1)
        edge = sum(flops for _, flops, _ in self._operations())
        share = 1.0 if self.options.search.execution == "all" else 1 / len(self.space.columns)
        heads = self.space.options.cells * output.flops(self.length)
        return stem.flops(self.length) + self._places() * edge * share + heads

    def _supernet_parameters(self) -> int:
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
