"""The cures of differentiable search: each does what its paper says, and nothing where it is off."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from methods.adabert.cells import Mixing
from methods.adabert.options import EigenvalueStop, RemedyOptions, SearchOptions
from methods.adabert.relaxation import Relaxation, one_hot, relaxed
from methods.adabert.remedies.alignment import each_cell, mean_cosine
from methods.adabert.remedies.cap import ParameterFreeCap
from methods.adabert.remedies.eigenvalue import EigenvalueWatch, dominant_eigenvalue
from methods.adabert.remedies.mixing import mixing_at
from methods.adabert.remedies.operation_stop import OperationStop, operations
from methods.adabert.remedies.penalties import beta_decay, entropy, penalty, zero_one
from methods.adabert.remedies.perturbation import adversarial_perturbation, random_perturbation
from methods.adabert.search_companion import SearchCompanion
from methods.adabert.search_data import search_rows
from methods.adabert.search_model import SearchModel
from methods.adabert.search_stage import _step
from methods.adabert.search_step import SearchStep
from methods.adabert.space import AdaBertSpace
from methods.adabert.supernet import AdaBertSupernet
from methods.adabert.teacher_signals import Signals
from methods.backbone import Backbone
from methods.tasks.batches import separate
from tests.conformance.cases import randomise
from tests.methods.adabert_cases import PAIR, SINGLE, SMALL, batch_of, supernet_of
from tests.methods.adabert_search_cases import context_of, options_of, searched, signals_of

DEVICE = torch.device("cpu")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- how edges mix ---


def mixing(progress: float, **remedies: Any) -> Mixing:
    return mixing_at(SearchOptions(remedies=remedies), progress, 12, generator(), DEVICE)


def test_the_remedies_of_mixing_are_off_and_fade() -> None:
    assert mixing(0.3) == Mixing()
    assert [mixing(p, auxiliary_skip=True).auxiliary_skip for p in (0.0, 0.25, 1.0)] == [1.0, 0.75, 0.0]
    assert [mixing(p, operation_dropout=0.4).dropped for p in (0.0, 0.5, 1.0)] == [0.4, 0.2, 0.0]
    channels = mixing(0.5, partial_channels=4).channels
    assert channels is not None and channels.sum() == 3 and set(channels.tolist()) == {0.0, 1.0}


def test_the_auxiliary_skip_is_an_identity_beside_every_edge() -> None:
    supernet, batch = supernet_of(SMALL.model_copy(update={"cells": 1})), batch_of()
    space = supernet.space
    nothing = torch.zeros(len(space.edges), len(space.columns))
    nothing[:, -1] = 1.0
    half, skips = torch.zeros_like(nothing), nothing.clone()
    half[:, space.columns.index("identity")] = 0.5
    depth = torch.ones(1)
    with torch.no_grad():
        expected = relaxed(supernet, batch, Relaxation(half, depth))
        found = relaxed(supernet, batch, Relaxation(skips, depth), Mixing(auxiliary_skip=0.5))
    torch.testing.assert_close(found.depth_logits, expected.depth_logits)


def test_operation_dropout_leaves_out_parameter_free_operations_of_whole_rows() -> None:
    supernet = supernet_of(head=SINGLE)
    batch = {name: tensor.repeat(16, 1) for name, tensor in batch_of(SINGLE).items()}
    space = supernet.space
    dropped = Mixing(dropped=0.5)
    with torch.no_grad():
        for name, touched in (("identity", True), ("average_pool_3", True), ("conv_3", False)):
            # one edge alone is alive, so what is left of the first node is that edge's output
            weights = one_hot(space, space.uniform(1, "identity"))
            weights.edges.zero_()
            weights.edges[0, space.columns.index(name)] = 1.0
            plain = relaxed(supernet, batch, weights).states[1]
            torch.manual_seed(0)
            found = relaxed(supernet, batch, weights, dropped).states[1]
            if not touched:
                assert torch.equal(found, plain)
                continue
            gone = (found == 0).flatten(1).all(1)
            assert 0.2 < gone.float().mean() < 0.8
            torch.testing.assert_close(found[~gone], 2 * plain[~gone])


def test_partial_channels_pass_by_the_operations() -> None:
    supernet, batch = supernet_of(head=SINGLE), batch_of(SINGLE)
    space, channels = supernet.space, torch.zeros(12)
    channels[:4] = 1.0
    nothing = torch.zeros(len(space.edges), len(space.columns))
    nothing[0, space.columns.index("conv_3")] = 1.0
    with torch.no_grad():
        (hidden, mask), *_ = supernet.texts(batch)
        cell = supernet.cells[0].mixed(nothing, Mixing(channels=channels))
        valid = mask.bool()[..., None]
        output = cell((hidden, valid), (hidden, valid), valid)
        conv = supernet.cells[0].operation(0, 0, "conv_3")(hidden * channels, valid)
        first = conv * channels + 2 * hidden * (1 - channels)  # the other edge of the node only passes by
        shares = supernet.cells[0].weights.softmax(0)
        second = 2 * hidden * (1 - channels) + first * (1 - channels)
        torch.testing.assert_close(output, shares[0] * first + shares[1] * second)


# --- penalties ---


def test_penalties_by_hand() -> None:
    logits = torch.tensor([[0.0, 0.0], [50.0, -50.0]])
    assert float(zero_one(logits)) == pytest.approx(-0.125)
    assert entropy(logits.softmax(1)).tolist() == pytest.approx([0.6931472, 0.0])
    assert float(beta_decay(logits)) == pytest.approx((0.6931472 + 50.0) / 2)
    probabilities = Relaxation(logits.softmax(1), torch.tensor([0.5, 0.5]))
    o = RemedyOptions(entropy=2.0, beta_decay=0.1)
    expected = 0.25 * (2.0 * (0.6931472 / 2 + 0.6931472) + 0.1 * 25.3465736)
    assert float(penalty(o, logits, probabilities, 0.25)) == pytest.approx(expected)
    assert float(penalty(o, logits, probabilities, 0.0)) == 0.0 == float(penalty(RemedyOptions(), logits, probabilities, 1.0))
    assert float(penalty(RemedyOptions(zero_one=8.0), logits, probabilities, 0.0)) == pytest.approx(-1.0)


@pytest.mark.parametrize(
    ("remedy", "further"),
    [({"entropy": 1.0}, True), ({"beta_decay": 1.0}, False), ({"zero_one": 1.0}, True)],
    ids=["entropy", "beta", "zero-one"],
)
def test_penalties_push_where_they_should(remedy: dict[str, float], further: bool) -> None:
    """Entropy and zero-one drive apart what differs, beta-decay pulls the largest logit down."""
    logits = torch.tensor([[0.6, -0.4, -0.5]], requires_grad=True)
    penalty(RemedyOptions(**remedy), logits, Relaxation(logits.softmax(1), torch.ones(1)), 1.0).backward()
    assert logits.grad is not None
    moved = (logits - logits.grad).detach()
    assert bool(moved[0].max() - moved[0].min() > 1.1) == further


# --- perturbation ---


def test_perturbations_stay_in_their_box_and_the_adversarial_one_is_the_worst() -> None:
    edges, slope = torch.zeros(4, 3), torch.randn(4, 3, generator=generator(1))
    uniform = random_perturbation(edges, 0.03, generator())
    assert uniform.abs().max() <= 0.03 and uniform.unique().numel() == 12

    def loss(weights: Tensor) -> Tensor:
        return (slope * weights).sum()

    worst = adversarial_perturbation(loss, edges, 0.03)
    torch.testing.assert_close(worst, 0.03 * slope.sign())
    assert not worst.requires_grad and loss(worst) > loss(uniform)


# --- agreement of cells ---


def test_the_gradients_of_cells_are_told_apart() -> None:
    shared = torch.tensor([[1.0, 0.0]], requires_grad=True)
    edges = each_cell(shared, 3)
    pulls = torch.tensor([[[3.0, 0.0]], [[0.0, 2.0]], [[-5.0, 0.0]]])
    loss = (edges * pulls).sum()
    assert float(mean_cosine(loss, edges)) == pytest.approx(-1 / 3)
    loss.backward()
    assert shared.grad is not None and torch.equal(shared.grad, pulls.sum(0))
    one = each_cell(shared, 1)
    assert float(mean_cosine(one.sum(), one)) == 1.0
    assert float(mean_cosine((edges * pulls)[:2].sum() + 0 * edges.sum(), edges)) == 0.0, "the third cell was not reached"


def test_alignment_brings_cells_together() -> None:
    """Its gradient in the weights, followed, raises the cosine."""
    supernet, batch = supernet_of(SMALL.model_copy(update={"dropout": 0.0, "operations": ("conv_3", "conv_5")}), PAIR), batch_of()
    depth, logits = torch.tensor([0.0, 0.0, 1.0]), supernet.edge_logits.detach()

    def cosine(create_graph: bool) -> Tensor:
        edges = each_cell(logits.softmax(1), 3)
        output = relaxed(supernet, batch, Relaxation(edges, depth))
        return mean_cosine(output.logits.square().sum(), edges, create_graph)

    weights = [parameter for name, parameter in supernet.named_parameters() if "convolution" in name]
    before = cosine(True)
    slopes = torch.autograd.grad(before, weights)
    norm = float(torch.stack([slope.norm() for slope in slopes]).norm())
    with torch.no_grad():
        for parameter, slope in zip(weights, slopes, strict=True):
            parameter.add_(slope, alpha=0.02 / norm)
    assert (cosine(False) - before).item() > 0.01 * norm


# --- early stops ---


def test_the_dominant_eigenvalue_is_exact() -> None:
    torch.manual_seed(0)
    a, b = nn.Parameter(torch.randn(4, dtype=torch.float64)), nn.Parameter(torch.randn(2, 2, dtype=torch.float64))
    matrix = torch.randn(8, 8, dtype=torch.float64)

    def loss(flat: Tensor) -> Tensor:
        return (flat @ (matrix + matrix.T) @ flat) / 2 + flat.pow(4).sum()

    hessian = torch.autograd.functional.hessian(loss, torch.cat([a, b.flatten()]).detach())
    exact = torch.linalg.eigvalsh(hessian)
    found = dominant_eigenvalue(loss(torch.cat([a, b.flatten()])), [a, b])
    assert found == pytest.approx(float(exact[exact.abs().argmax()]), rel=1e-3)
    assert dominant_eigenvalue(a.sum(), [a, b]) == 0.0


def watch(values: list[float], **options: Any) -> tuple[EigenvalueWatch, dict[str, Any]]:
    """On a clock of one evaluation per step; `seen` holds what it was brought back to and the weight decay."""
    seen: dict[str, Any] = {"now": 0, "back": [], "decay": []}
    o = EigenvalueStop(every_epochs=1, window=2, lag=2, first_epoch=0, **options)
    made = EigenvalueWatch(
        o,
        per_epoch=1,
        measure=lambda: values[seen["now"] - 1],
        snapshot=lambda: {"alpha": torch.tensor(float(seen["now"]))},
        go_back=lambda kept: seen["back"].append(kept["alpha"].item()),
        decay=lambda factor, largest: seen["decay"].append((factor, largest)),
    )
    return made, seen


def run(made: EigenvalueWatch, seen: dict[str, Any], steps: int) -> int | None:
    for step in range(1, steps + 1):
        seen["now"] = step
        if made.after(step):
            return step
    return None


def test_darts_es_stops_at_a_sharp_rise_and_returns_what_was_before_it() -> None:
    values = [1.0, 1.2, 1.0, 1.1, 1.2, 2.0]  # means of two: 1, 1.1, 1.1, 1.05, 1.15, 1.6; the last over the third before: 1.52
    made, seen = watch(values)
    assert run(made, seen, 6) == 6 and seen["back"] == [4.0] and made.fired == 1
    calm, seen = watch([1.0] * 6)
    assert run(calm, seen, 6) is None and seen["back"] == []
    early, seen = watch(values)
    early.options = early.options.model_copy(update={"first_epoch": 7})
    assert run(early, seen, 6) is None
    rare, seen = watch(values)
    rare.per_epoch = 3
    assert run(rare, seen, 6) is None and rare.values == [1.0, 2.0]


def test_darts_ada_goes_back_raises_the_decay_and_goes_on() -> None:
    values = [1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 4.0]
    made, seen = watch(values, action="adapt")
    assert run(made, seen, 7) is None
    assert seen["back"] == [2.0, 5.0] and seen["decay"] == [(3.0, 0.0243)] * 2 and made.fired == 2
    again, seen_again = watch(values, action="adapt")
    run(again, seen_again, 5)
    third, seen_third = watch(values, action="adapt")
    third.restore(again.state())
    for step in (6, 7):
        seen_third["now"] = step
        third.after(step)
    assert seen_third["back"] == [5.0] and third.values == values


def test_the_cap_ends_the_search_at_the_last_cell_that_met_it() -> None:
    counts, back = iter([4, 3, 2, 1, 2, 3]), list[float]()
    now = [0.0]
    cap = ParameterFreeCap(2, lambda: next(counts), lambda: {"alpha": torch.tensor(now[0])}, lambda kept: back.append(kept["alpha"].item()))
    ended = []
    for step in range(6):
        now[0] = float(step)
        ended.append(cap.after(step))
    assert ended == [False, False, False, False, False, True] and back == [4.0], "a cell that never met it goes on"


def test_operations_whose_gradients_disagree_are_frozen() -> None:
    supernet = supernet_of()
    stop = OperationStop(supernet, threshold=0.4, every=2)
    every = operations(supernet)
    assert len(every) == 3 * 5 * 6, "convolutions of three cells of five edges"
    torch.manual_seed(0)
    for step in (1, 2):
        held_out = {}
        for number, (place, own) in enumerate(every.items()):
            for parameter in own:
                parameter.grad = torch.randn_like(parameter)
            flat = torch.cat([parameter.grad.flatten() for parameter in own if parameter.grad is not None])
            held_out[place] = flat if number % 2 else -flat if step == 1 else 0.5 * flat  # odd ones agree, even ones do once
        stop.compare(held_out)
        assert stop.frozen == []
        assert not stop.after(step)
    assert stop.frozen == list(every)[::2]
    assert all(p.requires_grad == (place not in stop.frozen) for place, own in every.items() for p in own) and not stop.sums
    other = OperationStop(supernet_of(), 0.4, 2)
    other.restore(stop.state())
    assert [place for place, own in operations(other.supernet).items() if not own[0].requires_grad] == stop.frozen


# --- in the search ---


def companion_of(backbone: Backbone, folder: Path, **search: Any) -> SearchCompanion:
    context, options = context_of(backbone, folder), options_of(**search)
    collate = Signals(separate(backbone.tokenizer, 16), signals_of(context, options))
    torch.manual_seed(0)
    model = SearchModel(AdaBertSupernet(AdaBertSpace(options), backbone.config, context.task.head), options.search)
    randomise(model, 5)
    nn.init.constant_(model.supernet.depth_logits.data[1:], 5.0)
    step = _step(context, model, *search_rows(context.task.split("train"), collate, options.search, 0))
    step.make_stepper(model, step.total)
    return SearchCompanion(step)


def test_the_curvature_is_that_of_the_held_out_loss(tiny_backbone: Backbone, tmp_path: Path) -> None:
    companion = companion_of(tiny_backbone, tmp_path, remedies={"eigenvalue_stop": {"action": "adapt"}})
    step = companion.step
    model, batch = step.model, step.batch_of(step.held_out, 0)
    found = companion._measure_eigenvalue()
    assert model.training
    shapes = [parameter.shape for parameter in model.architecture_parameters()]
    start = torch.cat([parameter.detach().flatten() for parameter in model.architecture_parameters()])

    def loss(flat: Tensor) -> Tensor:
        edges, depth = (part.view(shape) for part, shape in zip(flat.split([shape.numel() for shape in shapes]), shapes, strict=True))
        weights = Relaxation(edges.softmax(1), depth.softmax(0))
        terms = step.objective(batch, model.eval()(batch, weights), weights)
        return terms.labels + terms.distillation

    exact = torch.linalg.eigvalsh(torch.autograd.functional.hessian(loss, start))
    assert found == pytest.approx(float(exact[exact.abs().argmax()]), rel=0.02)
    kept = companion._everything()
    for parameter in model.parameters():
        nn.init.ones_(parameter.data) if parameter.ndim < 2 else nn.init.zeros_(parameter.data)
    companion._go_back(kept)
    assert all(torch.equal(tensor, kept[name]) for name, tensor in model.state_dict().items())
    assert step.stepper is not None
    companion._decay(3.0, 0.0243)
    assert step.stepper.weights.weight_decay == pytest.approx(9e-4)
    companion._decay(100.0, 0.0243)
    assert step.stepper.weights.weight_decay == pytest.approx(0.0243)


def test_a_stopped_search_has_the_earlier_parameters(tiny_backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = context_of(tiny_backbone, tmp_path)
    stop = {"every_epochs": 1, "window": 1, "lag": 1, "first_epoch": 0}
    options = options_of(steps=12, remedies={"eigenvalue_stop": stop})
    values = iter([1.0, 1.0, 5.0])
    monkeypatch.setattr(SearchCompanion, "_measure_eigenvalue", lambda self: next(values))
    searched(context, options)
    rows = list(csv.DictReader((tmp_path / "search/alpha.csv").open()))
    assert float(rows[-1]["step"]) == 9.0, "three epochs of three batches"
    logits = [[value for name, value in row.items() if name.startswith(("K=", "node"))] for row in rows]
    assert logits[-1] == logits[6] != logits[7]
    found = json.loads((tmp_path / "search/diagnostics.json").read_text())["D5"]
    assert found["value"] == [1.0, 1.0, 5.0] and found["alarm"]


@pytest.mark.parametrize(
    "remedies",
    [
        {"perturbation": "adversarial", "perturbation_size": 0.3},
        {"perturbation": "random", "perturbation_size": 0.3},
        {"cell_alignment": 1.0},
        {"entropy": 5.0},
        {"beta_decay": 50.0},
        {"auxiliary_skip": True},
        {"operation_dropout": 0.5},
        {"edge_normalisation": True},
        {"partial_channels": 4},
    ],
    ids=lambda remedies: next(iter(remedies)),
)
def test_every_remedy_changes_the_gradients_of_a_step(tiny_backbone: Backbone, tmp_path: Path, remedies: dict[str, Any]) -> None:
    gradients = []
    for own in ({}, remedies):
        step = companion_of(tiny_backbone, tmp_path, remedies=own, steps=10).step
        step.step = 5
        torch.manual_seed(1)
        step(step.batch_of(step.trained, 0), Tensor.backward)
        gradients.append(of_edges(step))
    assert not torch.allclose(gradients[0], gradients[1], rtol=1e-3, atol=0)


def of_edges(step: SearchStep) -> Tensor:
    found = step.model.supernet.edge_logits.grad
    assert found is not None
    return found
