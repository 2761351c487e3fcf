"""From architecture parameters to architectures: exact under a budget, by draws, by masking; and their batch-norm statistics."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from methods import UserError
from methods.adabert.budgeted import CostTable, budgeted, pareto
from methods.adabert.derivation import AlphaModel, derive
from methods.adabert.masking import project, relaxed_loss, strengths, tuner, without
from methods.adabert.options import Optimiser, SpaceOptions
from methods.adabert.relaxation import Relaxation, one_hot
from methods.adabert.space import AdaBertSpace
from methods.adabert.statistics import Statistician, norms_of, reestimate
from methods.budget import LIMITS, Budget
from methods.costs import Costs, costs
from methods.space import Architecture
from methods.supernet import inputs
from tests.conformance.cases import TINY
from tests.methods.adabert_cases import FEW, PAIR, SINGLE, SMALL, batch_of, supernet_of

MIXED = SpaceOptions(cells=3, nodes=2, width=6, operations=("identity", "conv_3", "dilated_conv_3", "conv_7"))
SPACE = AdaBertSpace(MIXED)
EVERY = list(SPACE.enumerate())
COSTS = {a: costs(SPACE.spec(a, TINY, SINGLE), length=10) for a in EVERY}
SECONDS = {"identity": 0.0, "conv_3": 3e-4, "dilated_conv_3": 7e-4, "conv_7": 5e-4}


def timed(architecture: Architecture) -> Costs:
    genes = architecture.choices
    cell = sum(SECONDS[name] for node in genes["nodes"] for _, name in node)
    return replace(COSTS[architecture], latency={"clock": 1e-3 + genes["K"] * (cell + 1e-5)})


COLUMNS = [*LIMITS, "max_latency.clock"]
USED = np.array([[timed(a).measured_against()[name] for name in COLUMNS] for a in EVERY])


def logits_of(space: AdaBertSpace, seed: int, scale: float = 2.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    edges = torch.randn(len(space.edges), len(space.columns), generator=generator)
    return scale * edges, scale * torch.randn(space.options.cells, generator=generator)


@pytest.mark.parametrize("in_edges", [2, 3])
def test_the_probabilities_of_all_architectures_add_up_to_one(in_edges: int) -> None:
    space = AdaBertSpace(MIXED.model_copy(update={"in_edges": in_edges, "cells": 2}))
    edges, depth = logits_of(space, 1)
    model = AlphaModel.of(space, edges, depth)
    assert sum(np.exp(model.log_probability(a)) for a in space.enumerate()) == pytest.approx(1)
    # by the definition: products of p(e, o), normalised over the sets of node 1, which has three sources
    p = edges.double().softmax(1)
    architecture = space.sample(random.Random(0))
    wanted = float(depth.double().softmax(0)[architecture.choices["K"] - 1])
    for node, kept in enumerate(architecture.choices["nodes"]):
        rows = [row for row, (n, _) in enumerate(space.edges) if n == node]
        for source, name in kept:
            wanted *= float(p[rows[source], space.columns.index(name)])
        sets = itertools.combinations(rows, space.kept(node))
        wanted /= sum(float(p[list(members), :-1].sum(1).prod()) for members in sets)
    assert np.exp(model.log_probability(architecture)) == pytest.approx(wanted)


@given(seed=st.integers(0, 10_000), share=st.lists(st.floats(0, 1), min_size=4, max_size=4), which=st.sets(st.integers(0, 3)))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_budgeted_derivation_is_brute_force(seed: int, share: list[float], which: set[int]) -> None:
    model = AlphaModel.of(SPACE, *logits_of(SPACE, seed))
    low, high = USED.min(0), USED.max(0)
    limits = {COLUMNS[k]: float(low[k] + share[k] * (high[k] - low[k])) * (1 + 1e-6) for k in which}
    inside = (np.array([limits.get(name, np.inf) for name in COLUMNS]) >= USED).all(1)
    seconds = limits.pop("max_latency.clock", None)
    budget = Budget(**limits, max_latency={} if seconds is None else {"clock": seconds})  # type: ignore[arg-type]
    fitting = sorted(-model.log_probability(EVERY[i]) for i in np.flatnonzero(inside))[:7]
    if not fitting:
        with pytest.raises(UserError, match="no architecture of adabert meets it"):
            budgeted(model, budget, timed, 7)
        return
    found = budgeted(model, budget, timed, 7)
    assert [-one.log_probability for one in found] == pytest.approx(fitting, abs=1e-9)
    assert all(budget.met_by(timed(one.architecture)) for one in found)
    assert [one.log_probability for one in found] == pytest.approx([model.log_probability(one.architecture) for one in found], abs=1e-9)


@given(seed=st.integers(0, 10_000), name=st.sampled_from(COLUMNS))
@settings(max_examples=15, deadline=None, derandomize=True)
def test_the_pareto_set_is_brute_force(seed: int, name: str) -> None:
    model = AlphaModel.of(SPACE, *logits_of(SPACE, seed))
    points = sorted(zip(USED[:, COLUMNS.index(name)].tolist(), (-model.log_probability(a) for a in EVERY), strict=True))
    wanted, best = [], np.inf
    for cost, score in points:
        if score < best - 1e-9 and not (wanted and np.isclose(wanted[-1][0], cost, rtol=1e-9, atol=0)):
            wanted.append((cost, score))
            best = score
    found = pareto(model, timed, name)
    distinct = [one for k, one in enumerate(found) if not k or not np.isclose(found[k - 1][1], one[1], rtol=1e-9, atol=0)]
    assert [cost for _, cost in distinct] == pytest.approx([cost for cost, _ in wanted])
    if name != "max_latency.clock":
        assert [-one.log_probability for one, _ in found] == pytest.approx([score for _, score in wanted])
        assert [timed(one.architecture).measured_against()[name] for one, _ in found] == [cost for _, cost in found]
    thin = pareto(model, timed, name, count=2)
    assert thin == list(dict.fromkeys([found[0], found[-1]]))


@pytest.mark.parametrize("seed", range(5))
def test_without_a_limit_the_base_rule_is_the_most_probable(seed: int) -> None:
    for options in (MIXED, SMALL.model_copy(update={"in_edges": 3, "nodes": 3})):
        space = AdaBertSpace(options)
        edges, depth = logits_of(space, seed)

        def cost_of(architecture: Architecture, space: AdaBertSpace = space) -> Costs:
            return costs(space.spec(architecture, TINY, SINGLE))

        assert budgeted(AlphaModel.of(space, edges, depth), Budget(), cost_of)[0].architecture == derive(space, edges, depth)


def test_an_impossible_budget_names_the_smallest_and_the_tables() -> None:
    model = AlphaModel.of(SPACE, *logits_of(SPACE, 0))
    least = min(c.parameters for c in COSTS.values())
    with pytest.raises(UserError, match=rf"max_params is 500 and the smallest achievable {least:,}; its embedding tables alone hold 540"):
        budgeted(model, Budget(max_params=500), timed)
    with pytest.raises(UserError, match=r"no cost is known for max_latency\.phone"):
        budgeted(model, Budget(max_latency={"phone": 1.0}), timed)
    exact = budgeted(model, Budget(max_params=least), timed)
    assert COSTS[exact[0].architecture].parameters == least


def test_the_cost_table_gives_every_architecture_its_costs() -> None:
    table = CostTable.of(SPACE, timed)
    for architecture in random.Random(0).sample(EVERY, 50):
        genes = architecture.choices
        steps = sum(table.steps[genes["K"] - 1, MIXED.operations.index(name)] for node in genes["nodes"] for _, name in node)
        wanted = timed(architecture).measured_against()
        found = dict(zip(table.names, table.base[genes["K"] - 1] + steps, strict=True))
        assert found == pytest.approx(wanted) and all(found[name] == wanted[name] for name in LIMITS)


def test_draws_follow_the_model() -> None:
    space = AdaBertSpace(FEW)
    model, rng = AlphaModel.of(space, *logits_of(space, 3, 1.0)), np.random.default_rng(0)
    drawn = [model.draw(rng) for _ in range(6000)]
    for architecture in space.enumerate():
        share = np.exp(model.log_probability(architecture))
        assert drawn.count(architecture) / 6000 == pytest.approx(share, abs=5 * (share / 6000) ** 0.5)


def labelled(count: int = 3) -> list[dict[str, Tensor]]:
    return [batch_of(length=7 + i, seed=i) | {"labels": torch.tensor([0, 1, 2, i])} for i in range(count)]


def test_statistics_are_the_mean_over_batches_and_the_supernet_stays() -> None:
    supernet = supernet_of(SMALL.model_copy(update={"dropout": 0.5}))
    before = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
    architecture = supernet.space.architecture(1, [[(0, "conv_3"), (1, "identity")], [(0, "max_pool_3"), (1, "conv_5")]])
    batches = labelled()
    network = supernet.extract(architecture)
    reestimate(network, iter(batches))
    name, norm = next(iter(norms_of(network).items()))
    assert not network.training and norm.momentum == 0.1
    convolution = network.get_submodule(name.replace(".norm", ".convolution"))
    means, variances = [], []
    with torch.no_grad():
        for batch in batches:
            hidden, mask = supernet.texts(batch)[0]
            output = convolution(torch.relu(hidden).transpose(1, 2)).transpose(1, 2)[mask.bool()]
            means.append(output.mean(0))
            variances.append(output.var(0))
    torch.testing.assert_close(norm.running_mean, torch.stack(means).mean(0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(norm.running_var, torch.stack(variances).mean(0), rtol=1e-4, atol=1e-5)
    assert all(torch.equal(tensor, before[key]) for key, tensor in supernet.state_dict().items())


def test_a_statistician_estimates_each_architecture_of_a_supernet_once() -> None:
    asked: list[int] = []

    def sample() -> list[dict[str, Tensor]]:
        asked.append(1)
        return labelled()

    supernet, other, statistician = supernet_of(), supernet_of(seed=1), Statistician(sample)
    largest = supernet.space.largest()
    first, again = statistician.extract(supernet, largest), statistician.extract(supernet, largest)
    elsewhere = statistician.extract(other, largest)
    batch = inputs(batch_of())
    with torch.no_grad():
        assert torch.equal(first(**batch)["logits"], again(**batch)["logits"])
        fresh = other.extract(largest)
        reestimate(fresh, labelled())
        assert torch.equal(elsewhere(**batch)["logits"], fresh(**batch)["logits"])
        assert not torch.equal(first(**batch)["logits"], supernet(batch_of(), largest)["logits"])
    assert len(asked) == 1


def test_masking_an_operation_scales_the_others_and_its_worth_is_the_rise_of_the_loss() -> None:
    edges = torch.tensor([[0.2, 0.3, 0.5], [0.6, 0.1, 0.3]])
    torch.testing.assert_close(without(edges, 1, 0), torch.tensor([[0.2, 0.3, 0.5], [0.0, 0.25, 0.75]]))
    supernet = supernet_of(FEW)
    weights, loss = supernet.probabilities(), relaxed_loss(supernet, labelled())
    with torch.no_grad():
        whole = loss(weights)
        masked = loss(Relaxation(without(weights.edges, 3, 1), weights.depth))
    assert strengths(weights, loss)[3, 1] == pytest.approx(masked - whole, abs=1e-9)
    with torch.no_grad():
        by_hand = [
            float(torch.nn.functional.cross_entropy(supernet(b, a)["logits"], b["labels"]))
            for a in [supernet.space.smallest()]
            for b in labelled()
        ]
    assert loss(one_hot(supernet.space, supernet.space.smallest())) == pytest.approx(np.mean(by_hand), rel=1e-5)


def test_projection_keeps_what_the_loss_wants() -> None:
    """A loss that is additive in the weights: the wanted operations and edges are known."""
    space = AdaBertSpace(MIXED)
    generator = torch.Generator().manual_seed(0)
    worth = torch.rand(len(space.edges), len(space.columns), generator=generator)
    worth[:, -1] = 0
    worth[[0, 1, 3, 4], :-1] += 2  # node 0 keeps both, node 1 keeps sources 1 and 2
    worth[2, :-1] += 1
    depth = torch.tensor([0.1, 0.7, 0.2])

    def loss(weights: Relaxation) -> float:
        return -float((weights.edges * worth).sum() + (weights.depth * depth).sum())

    uniform = Relaxation(torch.full((5, 5), 0.2), torch.full((3,), 1 / 3))
    found = project(space, uniform, loss, seed=3)
    best = [MIXED.operations[int(row[:-1].argmax())] for row in worth]
    assert found == space.architecture(2, [[(0, best[0]), (1, best[1])], [(1, best[3]), (2, best[4])]])


def test_tuning_between_projections_trains_weights_alone() -> None:
    supernet = supernet_of(FEW)
    before = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
    endless = itertools.cycle(labelled())
    tune = tuner(supernet, endless, 2, Optimiser(learning_rate=0.5), seed=0)
    architecture = project(supernet.space, supernet.probabilities(), relaxed_loss(supernet, labelled(1)), 0, tune)
    assert supernet.space.contains(architecture) and not supernet.training
    changed = {name for name, tensor in supernet.state_dict().items() if not torch.equal(tensor, before[name])}
    assert "stem.projection.weight" in changed and not changed & {"edge_logits", "depth_logits"}


def test_genotypes_go_round_with_inherited_weights() -> None:
    """Plain data, to a network whose logits are the supernet's at that one-hot (specification, 9.4)."""
    supernet, rng = supernet_of(head=PAIR), random.Random(9)
    batch = batch_of(PAIR)
    for architecture in (supernet.space.sample(rng) for _ in range(5)):
        again = Architecture.from_json(architecture.to_json())
        assert again == architecture and again.id == architecture.id and again.choices["schema"] == 1
        with torch.no_grad():
            network = supernet.extract(again)
            torch.testing.assert_close(network(**inputs(batch))["logits"], supernet(batch, architecture)["logits"], rtol=1e-5, atol=1e-5)
