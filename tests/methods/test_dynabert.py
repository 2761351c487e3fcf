"""DynaBERT: sizes to the digit, rewiring against an independent computation, losses and steps against hand-made ones."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from transformers import BertConfig, BertForSequenceClassification

from methods.backbone import BERT_BASE, BackboneConfig
from methods.costs import costs
from methods.dynabert.rewiring import importance, rewire
from methods.dynabert.space import (
    DynaBertSpace,
    architecture_of,
    evenly_kept,
    exact,
    full_spec,
    kept_heads,
    kept_layers,
    kept_neurons,
)
from methods.dynabert.step import DistillationStep, TaskStep, teacher_of, whole_network
from methods.dynabert.supernet import DynaBertSupernet
from methods.errors import UserError
from methods.network import Network, task_loss
from methods.tasks.head import Head
from methods.training.distillation import hidden_loss, soft_cross_entropy
from methods.training.initialisation import load_backbone
from tests.conformance.cases import TINY, Case, randomise

TWO = Head("classification", 2)


def supernet(seed: int = 0, head: Head = TWO) -> DynaBertSupernet:
    net = DynaBertSupernet(DynaBertSpace(TINY), TINY, head)
    randomise(net, seed)
    return net.eval()


def batch(seed: int = 0, labels: int = 2) -> dict[str, Tensor]:
    made = Case("", "dynabert").batch(seed)
    return {**made, "labels": torch.tensor([0, 1, 1, 0]) % labels}


@pytest.mark.parametrize(
    ("width", "depth", "heads", "neurons", "layers", "parameters", "encoder", "gflops"),
    [
        (1, 1, 12, 3072, 12, 109_483_778, 85_054_464, 22.35),
        (0.75, 1, 9, 2304, 12, 88_233_986, 63_804_672, 16.76),
        (0.5, 1, 6, 1536, 12, 66_984_194, 42_554_880, 11.17),
        (0.25, 1, 3, 768, 12, 45_734_402, 21_305_088, 5.59),
        (1, 0.75, 12, 3072, 9, 88_220_162, 63_790_848, 16.76),
        (0.75, 0.75, 9, 2304, 9, 72_282_818, 47_853_504, 12.57),
        (0.5, 0.75, 6, 1536, 9, 56_345_474, 31_916_160, 8.38),
        (0.25, 0.75, 3, 768, 9, 40_408_130, 15_978_816, 4.19),
        (1, 0.5, 12, 3072, 6, 66_956_546, 42_527_232, 11.17),
        (0.75, 0.5, 9, 2304, 6, 56_331_650, 31_902_336, 8.38),
        (0.5, 0.5, 6, 1536, 6, 45_706_754, 21_277_440, 5.59),
        (0.25, 0.5, 3, 768, 6, 35_081_858, 10_652_544, 2.79),
    ],
)
def test_sizes_of_bert_base(
    width: float, depth: float, heads: int, neurons: int, layers: int, parameters: int, encoder: int, gflops: float
) -> None:
    space = DynaBertSpace(BERT_BASE)
    architecture = space.decode({"width": width, "depth": depth})
    assert architecture == architecture_of(kept_layers(12, depth, "floor"), [heads] * layers, [neurons] * layers)
    spec = space.spec(architecture, BERT_BASE, TWO)
    cost = costs(spec)
    assert (cost.parameters, spec.encoder.other_parameters()) == (parameters, encoder)
    assert round(cost.flops / 1e9, 2) == gflops


def test_rounding_of_heads_and_neurons() -> None:
    assert [kept_heads(12, w) for w in (1, 0.75, 0.5, 0.25)] == [12, 9, 6, 3]
    assert (kept_heads(6, 0.25), kept_heads(10, 0.25)) == (2, 2), "half goes to even"
    for heads in (22, 23, 26):
        for kept in range(1, heads + 1):
            backbone = BackboneConfig(vocabulary=9, positions=9, types=1, hidden=heads * 8, layers=1, heads=heads, intermediate=heads * 32)
            assert kept_neurons(backbone.intermediate, heads, kept) == 32 * kept, "no feature is lost to truncation"


@pytest.mark.parametrize(
    ("layers", "depth", "rule", "kept"),
    [
        (12, 0.75, "floor", (0, 1, 2, 4, 5, 6, 8, 9, 10)),
        (12, 0.5, "floor", (0, 2, 4, 6, 8, 10)),
        (12, 0.25, "floor", (0, 4, 8)),
        (6, 0.75, "floor", (0, 1, 2, 4)),
        (6, 0.5, "floor", (0, 2, 4)),
        (12, 0.75, "keep_top", (0, 1, 3, 4, 5, 7, 8, 9, 11)),
        (12, 0.5, "keep_top", (1, 3, 5, 7, 9, 11)),
    ],
)
def test_kept_layers(layers: int, depth: float, rule: str, kept: tuple[int, ...]) -> None:
    assert kept_layers(layers, depth, rule) == kept  # type: ignore[arg-type]


def test_dropped_layers_of_24() -> None:
    assert sorted(set(range(24)) - set(kept_layers(24, 0.75, "floor"))) == [3, 7, 11, 15, 19, 23]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"widths": (0.1, 1.0)}, "widths: 0.1 leaves no head of 4"),
        ({"depths": (0.05,)}, "depths: 0.05 leaves no layer of 6"),
        ({"widths": (1.5,)}, "widths: 1.5 is no multiplier"),
        ({"depths": (0.0,)}, "depths: 0.0 is no multiplier"),
    ],
)
def test_impossible_multipliers_are_refused(options: dict[str, tuple[float, ...]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        DynaBertSpace(TINY, **options)  # type: ignore[arg-type]


def test_the_network_is_the_transformers_model() -> None:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=50,
        hidden_size=24,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=40,
        max_position_embeddings=40,
        num_labels=3,
    )
    theirs = BertForSequenceClassification(config).eval()
    randomise(theirs, 4)
    ours = Network(full_spec(BackboneConfig.from_transformers(config), Head("classification", 3))).eval()
    load_backbone(ours, theirs.bert.state_dict())
    ours.head.classifier.load_state_dict(theirs.classifier.state_dict())
    x = Case("", "dynabert").batch()
    labels = torch.tensor([0, 2, 1, 0])
    with torch.no_grad():
        expected, found = theirs(**x, labels=labels, output_hidden_states=True), ours(**x, labels=labels)
    torch.testing.assert_close(found.logits, expected.logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.loss, expected.loss, rtol=1e-5, atol=1e-5)
    tokens = x["attention_mask"].bool()
    for a, b in zip(found.hidden_states, expected.hidden_states, strict=True):
        torch.testing.assert_close(a[tokens], b[tokens], rtol=1e-4, atol=1e-4)


def gate_gradients(net: DynaBertSupernet, x: dict[str, Tensor]) -> Tensor:
    """d loss / d gate, where a gate of one scales each head's values, which is the same as scaling its attention map."""
    gates = torch.ones(TINY.layers, TINY.heads, requires_grad=True)
    gated = {}
    for i, layer in enumerate(net.encoder):
        rows = gates[i].repeat_interleave(TINY.head_size)
        gated[f"encoder.{i}.attention.value.weight"] = layer.attention.value.weight.detach() * rows[:, None]
        gated[f"encoder.{i}.attention.value.bias"] = layer.attention.value.bias.detach() * rows
    output = torch.func.functional_call(net, gated, (x, whole_network(TINY)))
    (gradient,) = torch.autograd.grad(task_loss(net.head_kind, output["logits"], x["labels"]), gates)
    return gradient


@pytest.mark.parametrize("mode", ["per_batch", "accumulate"])
def test_importance_is_the_gate_gradient(mode: str) -> None:
    net = supernet()
    batches = [batch(seed) for seed in range(3)]
    gates = torch.stack([gate_gradients(net, x) for x in batches])
    expected = gates.abs().sum(0) if mode == "per_batch" else gates.cumsum(0).abs().sum(0)
    scores = importance(net, batches, lambda x: task_loss(TWO, net(x, whole_network(TINY))["logits"], x["labels"]), mode)  # type: ignore[arg-type]
    torch.testing.assert_close(scores.heads, expected, rtol=1e-4, atol=1e-6)
    assert all(p.grad is None for p in net.parameters())


def test_neuron_importance_is_the_first_order_change() -> None:
    net, x = supernet(), batch()
    scores = importance(net, [x], lambda b: task_loss(TWO, net(b, whole_network(TINY))["logits"], b["labels"]))
    loss = task_loss(TWO, net(x, whole_network(TINY))["logits"], x["labels"])
    layer = net.encoder[2].feed_forward
    w1, b1, w2 = torch.autograd.grad(loss, [layer.intermediate.weight, layer.intermediate.bias, layer.output.weight])
    for j in (0, 7, 39):
        first = (layer.intermediate.weight[j] @ w1[j] + layer.intermediate.bias[j] * b1[j]).abs()
        expected = first + (layer.output.weight[:, j] @ w2[:, j]).abs()
        torch.testing.assert_close(scores.neurons[2, j], expected.detach(), rtol=1e-4, atol=1e-6)


def test_rewiring_keeps_the_function_and_sorts_by_importance() -> None:
    net, batches = supernet(), [batch(seed) for seed in range(2)]

    def scored(net: DynaBertSupernet) -> tuple[Tensor, Tensor]:
        found = importance(net, batches, lambda x: task_loss(TWO, net(x, whole_network(TINY))["logits"], x["labels"]))
        return found.heads, found.neurons

    original = copy.deepcopy(net)
    rewire(net, importance(net, batches, lambda x: task_loss(TWO, net(x, whole_network(TINY))["logits"], x["labels"])))
    with torch.no_grad():
        for x in batches:
            whole = whole_network(TINY)
            torch.testing.assert_close(net(x, whole)["logits"], original(x, whole)["logits"], rtol=1e-5, atol=2e-6)
    assert any(not torch.equal(a, b) for a, b in zip(net.state_dict().values(), original.state_dict().values(), strict=True))
    for scores in scored(net):
        assert (scores[:, :-1] >= scores[:, 1:] - 1e-6).all()


def test_losses_by_hand() -> None:
    student, teacher = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[0.0, 1.0], [0.0, 2.0]])
    p, q = teacher.softmax(-1), student.log_softmax(-1)
    assert soft_cross_entropy(student, teacher).item() == pytest.approx(-(p * q).sum().item() / 2)
    entropy = -(p * p.log()).sum().item() / 2
    assert soft_cross_entropy(teacher, teacher).item() == pytest.approx(entropy), "the teacher's entropy is not taken off"
    mask = torch.tensor([[1, 1], [1, 0]])
    a, b = torch.zeros(2, 2, 3), torch.ones(2, 2, 3)
    b[1, 1] = 10.0
    assert hidden_loss([a], [b], mask).item() == pytest.approx(1.0), "padding does not count"
    assert hidden_loss([a, a], [b, b], mask, padded=True).item() == pytest.approx(2 * (3 + 100) / 4)


def test_a_step_sums_the_gradients_of_all_sub_networks() -> None:
    net, teacher, x = supernet(1), supernet(2), batch()
    every = tuple(net.space.enumerate())

    def gradient(architectures: tuple[object, ...]) -> dict[str, Tensor]:
        net.zero_grad()
        step = DistillationStep(net, teacher, architectures, 1.0, 0.1)  # type: ignore[arg-type]
        figures = step(x, lambda loss: loss.backward())
        assert set(figures) == {"logits", "hidden"}
        return {name: torch.zeros_like(p) if p.grad is None else p.grad.clone() for name, p in net.named_parameters()}

    together = gradient(every)
    apart = [gradient((a,)) for a in every]
    for name, value in together.items():
        torch.testing.assert_close(value, sum(g[name] for g in apart), rtol=1e-4, atol=1e-5)
    assert all(p.grad is None for p in teacher.parameters())


def test_states_face_the_teachers_input_to_the_same_layer() -> None:
    net, teacher, x = supernet(1), supernet(2), batch()
    small = net.space.decode({"width": 0.5, "depth": 0.5})
    assert small.choices["layers"] == [0, 2, 4]
    with torch.no_grad():
        s, t = net(x, small)["hidden_states"], teacher(x, whole_network(TINY))["hidden_states"]
        expected = sum(F.mse_loss(s[i][x["attention_mask"].bool()], t[j][x["attention_mask"].bool()]) for i, j in enumerate([0, 2, 4, 6]))
    figures = DistillationStep(net, teacher, (small,), 0.0, 1.0)(x, lambda loss: None)
    assert figures["hidden"] == pytest.approx(float(expected), rel=1e-5)


def test_matched_teacher_has_the_students_width() -> None:
    space = DynaBertSpace(TINY)
    small = space.decode({"width": 0.5, "depth": 0.5})
    assert teacher_of(small, TINY, "matched") == space.decode({"width": 0.5, "depth": 1.0})
    assert teacher_of(small, TINY, "full") == space.largest()


def test_distilling_a_regression_leaves_pooler_and_classifier_alone() -> None:
    head = Head("regression", 1)
    x = batch()
    for regression_loss, touched in (("none", False), ("mse", True)):
        net, teacher = supernet(1, head), supernet(2, head)
        step = DistillationStep(net, teacher, tuple(net.space.enumerate()), 1.0, 1.0, regression_loss=regression_loss)  # type: ignore[arg-type]
        step(x, lambda loss: loss.backward())
        assert any(p.grad is not None and p.grad.any() for p in net.head.parameters()) == touched


def test_momentum_moves_inactive_slices_and_plain_descent_does_not() -> None:
    """As in the released code: Adam's moments of earlier steps move the slice; the gradient there is zero. Unused layers stay."""
    x = batch()
    for optimizer_class, moves in ((torch.optim.SGD, False), (torch.optim.AdamW, True)):
        net = supernet(3)
        optimizer = optimizer_class(net.parameters(), lr=0.01, weight_decay=0.0)
        for architecture in (net.space.largest(), net.space.smallest()):
            inactive = net.encoder[4].attention.query.weight.detach()[TINY.head_size :].clone()
            dropped = net.encoder[5].attention.query.weight.detach().clone()
            optimizer.zero_grad(set_to_none=True)
            TaskStep(net, (architecture,))(x, lambda loss: loss.backward())
            optimizer.step()
        assert torch.equal(inactive, net.encoder[4].attention.query.weight[TINY.head_size :]) != moves
        assert torch.equal(dropped, net.encoder[5].attention.query.weight)


@given(layers=st.integers(1, 30), depth=st.integers(1, 40).map(lambda n: n / 40), rule=st.sampled_from(["floor", "keep_top"]))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_kept_layers_exist_and_rise(layers: int, depth: float, rule: str) -> None:
    kept = kept_layers(layers, depth, rule)  # type: ignore[arg-type]
    assert list(kept) == sorted(set(kept)) and all(0 <= layer < layers for layer in kept)
    assert len(kept) == round(layers * exact(depth))


def test_evenly_kept_is_the_floor_rule_in_integers() -> None:
    assert evenly_kept(12, 9) == kept_layers(12, 0.75, "floor")
    assert evenly_kept(12, 10) == (0, 1, 2, 3, 4, 6, 7, 8, 9, 10)
