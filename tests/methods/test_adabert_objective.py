"""AdaBERT's loss: samplers and their gradients, distillation by depth."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from methods.adabert.cells import Mixing
from methods.adabert.expectation import kept_probabilities
from methods.adabert.mapping import teacher_layer
from methods.adabert.objective import Objective, distance, distillation_loss, label_loss, layer_weights
from methods.adabert.options import AdaBertOptions, LossOptions, SearchOptions, Temperature
from methods.adabert.relaxation import Relaxation, relaxed
from methods.adabert.sampling import SAMPLERS, means, temperature
from methods.adabert.search_model import SearchModel, SearchOutput
from methods.tasks.head import Head
from tests.methods.adabert_cases import PAIR, SMALL, batch_of, supernet_of

HARD = ("gumbel_st", "gdas", "reinmax")
CLASSES, VALUES = Head("classification", 3), Head("regression", 1)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- samplers ---


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_a_sampler_is_a_function_of_its_generator_and_trains_its_logits(name: str) -> None:
    logits = torch.randn(6, 5, generator=generator(1)).requires_grad_()
    before = torch.get_rng_state()
    weights = SAMPLERS[name](logits, 0.7, generator())
    assert torch.equal(torch.get_rng_state(), before), "the common generator is left alone"
    assert torch.equal(weights, SAMPLERS[name](logits, 0.7, generator()))
    drawn = name in HARD
    assert torch.equal(weights.sort(-1).values, torch.eye(5)[[4] * 6]) == drawn
    if name != "sigmoid":
        torch.testing.assert_close(weights.sum(-1), torch.ones(6))
    (weights * torch.randn(6, 5, generator=generator(2))).sum().backward()
    assert logits.grad is not None and (logits.grad != 0).all()


@pytest.mark.parametrize("name", [*HARD, "gumbel"])
def test_draws_follow_the_softmax(name: str) -> None:
    logits = torch.tensor([1.0, 0.0, -1.0])
    places = SAMPLERS[name](logits.expand(20_000, 3), 0.5, generator()).argmax(-1)
    torch.testing.assert_close(places.bincount() / 20_000, logits.softmax(0), atol=0.015, rtol=0)


def test_dirichlet_draws_have_their_mean() -> None:
    logits = torch.tensor([1.0, 0.0, -2.0])
    drawn = SAMPLERS["dirichlet"](logits.expand(20_000, 3), 1.0, generator()).mean(0)
    concentration = torch.tensor([2.0, 1.0, math.exp(-2.0)])
    torch.testing.assert_close(drawn, concentration / concentration.sum(), atol=0.01, rtol=0)
    torch.testing.assert_close(means(logits, "dirichlet"), concentration / concentration.sum())
    torch.testing.assert_close(means(logits, "sigmoid"), logits.sigmoid() / logits.sigmoid().sum())


def test_gdas_gives_a_gradient_through_the_drawn_operation_alone() -> None:
    found = {}
    for name in ("gumbel_st", "gdas"):
        logits = torch.randn(1, 4, generator=generator(1)).requires_grad_()
        weights = SAMPLERS[name](logits, 1.0, generator())
        drawn = int(weights.argmax())
        slopes = torch.arange(4.0)
        others = slopes.clone()
        others[drawn] = 0
        (found[name],) = torch.autograd.grad((weights * others).sum(), logits, retain_graph=True)
    assert found["gumbel_st"].abs().max() > 0 and not found["gdas"].any()


def test_reinmax_is_nearer_to_the_gradient_than_straight_through() -> None:
    """On a function of a one-hot that is not linear; the exact gradient is that of the expectation."""
    table = torch.tensor([[1.0, -2.0, 0.5], [0.3, 2.0, -1.0], [0.0, 1.0, 3.0]])

    def value(weights: Tensor) -> Tensor:
        return torch.einsum("...i,ij,...j->...", weights, table, weights)

    start = torch.tensor([0.4, -0.3, 0.1])
    exact = torch.autograd.functional.jacobian(lambda logits: (logits.softmax(0) * value(torch.eye(3))).sum(), start)
    errors = {}
    for name in ("reinmax", "gumbel_st"):
        logits = start.clone().requires_grad_()
        value(SAMPLERS[name](logits.expand(40_000, 3), 1.0, generator())).mean().backward()
        assert logits.grad is not None
        errors[name] = float((logits.grad - exact).norm())
    assert errors["reinmax"] < 0.02 and errors["gumbel_st"] > 0.1


def test_temperatures_by_hand() -> None:
    paper = Temperature()
    assert temperature(paper, 99, 10, 800) == pytest.approx(math.exp(-0.02 * 9)) and temperature(paper, 0, 10, 800) == 1.0
    assert temperature(paper, 799, 10, 800) == pytest.approx(math.exp(-0.02 * 79)) and temperature(paper, 5000, 10, 6000) == 0.2
    whole = Temperature(start=2.0, end=0.5, rate=None)
    assert [temperature(whole, step, 7, 5) for step in (0, 2, 4)] == pytest.approx([2.0, 1.0, 0.5])
    linear = Temperature(start=2.0, end=0.5, schedule="linear")
    assert [temperature(linear, step, 7, 5) for step in (0, 2, 4)] == pytest.approx([2.0, 1.25, 0.5])
    assert temperature(Temperature(start=3.0, schedule="constant"), 77, 7, 100) == 3.0


# --- running all operations, or the drawn one ---


@pytest.mark.parametrize("head", [PAIR, CLASSES], ids=["pair", "single"])
def test_running_the_chosen_operations_alone_gives_the_same_forward_and_the_gradient_of_gdas(head: Head) -> None:
    grads: dict[tuple[str, bool], Tensor] = {}
    logits: dict[tuple[str, bool], Tensor] = {}
    for sampler in ("gumbel_st", "gdas"):
        for chosen in (False, True):
            supernet, batch = supernet_of(SMALL.model_copy(update={"dropout": 0.0}), head).train(), batch_of(head)
            model = SearchModel(supernet, SearchOptions(sampler=sampler))
            weights = model.sample(1.0, generator(3))
            before = {name: buffer.clone() for name, buffer in supernet.named_buffers()}
            output = relaxed(supernet, batch, weights, Mixing(chosen=chosen))
            output.logits.square().sum().backward()
            assert supernet.edge_logits.grad is not None
            grads[sampler, chosen], logits[sampler, chosen] = supernet.edge_logits.grad, output.logits
            moved = {name.rsplit(".", 2)[0] for name, buffer in supernet.named_buffers() if not torch.equal(buffer, before[name])}
            drawn = {
                f"cells.{k}.nodes.{node}.{source}.{supernet.space.columns[int(row.argmax())]}"
                for k in range(3)
                for (node, source), row in zip(supernet.space.edges, weights.edges, strict=True)
                if "conv" in supernet.space.columns[int(row.argmax())]
            }
            assert (moved == drawn) == chosen
    for form in logits.values():
        torch.testing.assert_close(form, logits["gumbel_st", False])
    for form in (("gumbel_st", True), ("gdas", True)):
        torch.testing.assert_close(grads[form], grads["gdas", False])
    assert not torch.allclose(grads["gumbel_st", False], grads["gdas", False])


# --- labels and distillation ---


def outputs(head: Head, cells: int = 3, layers: int = 6, seed: int = 0) -> tuple[SearchOutput, dict[str, Tensor]]:
    """Random student logits of every layer, and a batch of five with a teacher's signals."""
    g = generator(seed)
    output = SearchOutput(torch.randn(cells, 5, head.labels, generator=g), torch.randn(cells, 5, head.labels, generator=g))
    labels = torch.randn(5, generator=g) if head.kind == "regression" else torch.randint(0, head.labels, (5,), generator=g)
    batch = {
        "labels": labels,
        "probe_logits": torch.randn(5, layers + 1, head.labels, generator=g),
        "probe_losses": torch.rand(5, layers + 1, generator=g) * 3,
        "teacher_logits": torch.randn(5, head.labels, generator=g),
    }
    return output, batch


@pytest.mark.parametrize("mode", ["example", "batch"])
@pytest.mark.parametrize("cells", [1, 2, 3, 8])
def test_layer_weights_add_up_to_one_for_every_depth_and_trust_the_better_probe(mode: str, cells: int) -> None:
    losses = torch.rand(4, cells + 1, generator=generator())
    losses[:, 0] = 0.0
    weights = layer_weights(losses, mode)
    torch.testing.assert_close(weights.sum(1), torch.ones(4))
    assert (weights.argmax(1) == 0).all() and (weights.std(0).max() < 1e-6) == (mode == "batch")


@pytest.mark.parametrize("kind", ["probes", "split"])
@pytest.mark.parametrize("head", [CLASSES, VALUES], ids=["classes", "values"])
@pytest.mark.parametrize("k", [1, 2, 3])
def test_distillation_by_hand(kind: str, head: Head, k: int) -> None:
    output, batch = outputs(head)
    o = LossOptions(distillation=kind, temperature=2.0)
    found = distilled(o, batch, output, k, head)
    assert output.hidden_logits is not None
    total = 0.0
    for row in range(5):
        students = [output.hidden_logits[i, row] for i in range(k)] + ([output.depth_logits[k - 1, row]] if kind == "probes" else [])
        taught = [teacher_layer(i, k, 6) for i in range(len(students))]
        weights = torch.exp(-batch["probe_losses"][row, taught])
        for weight, student, layer in zip(weights / weights.sum(), students, taught, strict=True):
            total += float(weight) * by_hand(head, student, batch["probe_logits"][row, layer])
    expected = total / 5
    if kind == "split":
        own = sum(by_hand(head, output.depth_logits[k - 1, row], batch["teacher_logits"][row]) for row in range(5)) / 5
        expected = (own + expected) / 2
    assert float(found) == pytest.approx(expected, rel=1e-5)


def distilled(options: LossOptions, batch: dict[str, Tensor], output: SearchOutput, k: int, head: Head = CLASSES) -> Tensor:
    """Of the student of k cells."""
    hidden = None if output.hidden_logits is None else output.hidden_logits[:k]
    return distillation_loss(head, options, 6, batch, output.depth_logits[k - 1], hidden)


def by_hand(head: Head, student: Tensor, teacher: Tensor) -> float:
    """At T = 2, times 4; for regression the squared error."""
    if head.kind == "regression":
        return float((student - teacher) ** 2)
    p, q = (teacher / 2).exp(), (student / 2).exp()
    return -4 * float((p / p.sum() * (q / q.sum()).log()).sum())


def test_only_paired_probes_teach_and_the_last_layer_always_does() -> None:
    output, batch = outputs(CLASSES)
    for k in (1, 2, 3):
        logits = batch["probe_logits"].clone().requires_grad_()
        distilled(LossOptions(), {**batch, "probe_logits": logits}, output, k).backward()
        assert logits.grad is not None
        taught = {layer for layer in range(7) if logits.grad[:, layer].any()}
        assert taught == {teacher_layer(i, k, 6) for i in range(k + 1)} and 6 in taught


def test_the_ablation_reads_no_probe_and_depths_mix_losses() -> None:
    output, batch = outputs(CLASSES)
    o = LossOptions(distillation="final", gamma=0.25)
    bare = {name: batch[name] for name in ("labels", "teacher_logits")}
    weights = Relaxation(torch.zeros(1, 1), torch.tensor([0.2, 0.5, 0.3]))
    terms = Objective(o, CLASSES, 6)(bare, SearchOutput(output.depth_logits, None), weights)
    labels = [float(torch.nn.functional.cross_entropy(logits, batch["labels"])) for logits in output.depth_logits]
    taught = [float(distilled(o, bare, SearchOutput(output.depth_logits, None), k)) for k in (1, 2, 3)]
    assert float(terms.labels) == pytest.approx(0.75 * sum(w * x for w, x in zip((0.2, 0.5, 0.3), labels, strict=True)), rel=1e-5)
    assert float(terms.distillation) == pytest.approx(0.25 * sum(w * x for w, x in zip((0.2, 0.5, 0.3), taught, strict=True)), rel=1e-5)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_the_loss_of_a_depth_reads_its_cells_alone_and_every_depth_has_a_gradient(k: int) -> None:
    supernet, batch = supernet_of(), batch_of()
    model = SearchModel(supernet, SearchOptions())
    _, signals = outputs(PAIR)
    batch |= {name: tensor[:4] for name, tensor in signals.items()}
    depth = torch.eye(3)[k - 1].requires_grad_()
    weights = Relaxation(supernet.probabilities().edges, depth)
    Objective(LossOptions(), PAIR, 6)(batch, model(batch, weights), weights).total.backward()
    reached = {name.split(".")[1] for name, p in supernet.cells.named_parameters(prefix="cells") if p.grad is not None and p.grad.any()}
    assert reached == {str(i) for i in range(k)}
    heads = [i for i, head in enumerate(model.hidden_heads) if head.weight.grad is not None and head.weight.grad.any()]
    assert heads == list(range(k))
    assert depth.grad is not None and (depth.grad > 0).all(), "each depth's loss is its gradient"


@pytest.mark.parametrize("head", [PAIR, CLASSES], ids=["pair", "single"])
def test_no_head_sees_padding(head: Head) -> None:
    model = SearchModel(supernet_of(head=head), SearchOptions()).eval()
    batch, weights = batch_of(head), model.supernet.probabilities()
    longer = {name: torch.nn.functional.pad(tensor, (0, 7)) for name, tensor in batch.items()}
    with torch.no_grad():
        short, long = model(batch, weights), model(longer, weights)
    torch.testing.assert_close(long.depth_logits, short.depth_logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(long.hidden_logits, short.hidden_logits, rtol=1e-5, atol=1e-5)


def test_label_loss_of_values() -> None:
    logits = torch.tensor([[[1.0], [2.0]], [[0.0], [4.0]]])
    torch.testing.assert_close(label_loss(VALUES, logits, torch.tensor([0.0, 4.0])), torch.tensor([2.5, 0.0]))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), temperature=st.sampled_from([1.0, 2.0]))
def test_without_the_teachers_entropy_weights_learn_the_same_and_a_perfect_student_costs_nothing(seed: int, temperature: float) -> None:
    g = torch.Generator().manual_seed(seed)
    teacher, start = (torch.randn(5, 3, generator=g, dtype=torch.float64) for _ in range(2))
    found = []
    for kept in ("kept", "subtracted"):
        student = start.float().requires_grad_()
        options = LossOptions.model_validate({"temperature": temperature, "teacher_entropy": kept})
        distance(CLASSES, student, teacher.float(), options).sum().backward()
        found.append(student.grad)
        perfect = distance(CLASSES, teacher.float(), teacher.float(), options)
        assert (perfect.abs() < 1e-5).all() if kept == "subtracted" else (perfect > 0).all()
    torch.testing.assert_close(*found)


def test_edge_strengths_are_part_of_the_probabilities_and_are_published() -> None:
    supernet = supernet_of()
    model = SearchModel(supernet, SearchOptions(remedies={"edge_normalisation": True}))
    assert model.edge_strengths is not None
    torch.nn.init.normal_(model.edge_strengths)
    strengths, own = model.edge_strengths.detach(), supernet.edge_logits.detach().softmax(1)
    found = model.probabilities()
    torch.testing.assert_close(found.edges.sum(1), torch.ones(5))
    torch.testing.assert_close(found.edges[2, 0], own[2, 0] * strengths[2:].softmax(0)[0])
    drawn = model.sample(1.0, generator())
    torch.testing.assert_close(drawn.edges.sum(1), torch.cat([strengths[:2].softmax(0), strengths[2:].softmax(0)]))
    kept = kept_probabilities(supernet.space, found.edges)
    model.publish()
    torch.testing.assert_close(supernet.probabilities().edges, found.edges)
    torch.testing.assert_close(kept_probabilities(supernet.space, supernet.probabilities().edges), kept)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sampler": "softmax", "execution": "chosen"}, "one-hots"),
        ({"execution": "chosen", "remedies": {"perturbation": "random"}}, "execution: all"),
        ({"remedies": {"zero_one": 1.0}}, "sampler: sigmoid"),
    ],
)
def test_options_that_do_not_fit_together_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        AdaBertOptions(search=change)
