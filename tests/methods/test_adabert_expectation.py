"""AdaBERT's expected costs (law 8): exact without doubt, the sum over all architectures, right gradients."""

from __future__ import annotations

import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from methods.adabert.derivation import derive
from methods.adabert.relaxation import Relaxation, one_hot
from methods.adabert.space import AdaBertSpace
from methods.adabert.supernet import AdaBertSupernet
from methods.costs import costs
from methods.space import Architecture
from tests.conformance.cases import TINY
from tests.methods.adabert_cases import FEW, PAIR, SMALL, supernet_of


@pytest.mark.parametrize("form", ["hosted", "deployed"])
@given(seed=st.integers(0, 10_000))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_expected_costs_at_a_one_hot_are_the_costs(form: str, seed: int) -> None:
    supernet = supernet_of()
    architecture = supernet.space.sample(random.Random(seed))
    found = supernet.expected_costs(one_hot(supernet.space, architecture), 17, 2, form)  # type: ignore[arg-type]
    exact = costs(supernet.spec(architecture, form), 17, 2)  # type: ignore[arg-type]
    assert found.flops.item() == exact.flops and found.parameters.item() == exact.parameters
    assert found.embedding_parameters.item() == exact.embedding_parameters


def probability(space: AdaBertSpace, architecture: Architecture, edges: Tensor, depth: Tensor) -> float:
    """Of an architecture before normalisation: depth times the operations of its kept edges."""
    genes, total = architecture.choices, float(depth[architecture.choices["K"] - 1])
    for node, kept in enumerate(genes["nodes"]):
        for source, name in kept:
            total *= float(edges[space.edges.index((node, source)), space.columns.index(name)])
    return total


def test_expected_costs_are_the_sum_over_all_architectures_and_the_derived_one_is_the_likeliest() -> None:
    supernet = supernet_of(FEW)
    space = supernet.space
    torch.manual_seed(7)
    edge_logits, depth_logits = torch.randn(5, 3, dtype=torch.float64) * 2, torch.randn(2, dtype=torch.float64)
    edges, depth = edge_logits.softmax(1), depth_logits.softmax(0)
    everything = list(space.enumerate())
    weights = [probability(space, a, edges, depth) for a in everything]
    exact = [costs(space.spec(a, TINY, PAIR), 11) for a in everything]
    found = supernet.expected_costs(Relaxation(edges, depth), 11)
    for name in ("flops", "parameters"):
        mean = math.fsum(w * getattr(cost, name) for w, cost in zip(weights, exact, strict=True)) / math.fsum(weights)
        assert getattr(found, name).item() == pytest.approx(mean, rel=1e-12)
    assert everything[weights.index(max(weights))] == derive(space, edge_logits, depth_logits)


@pytest.mark.parametrize("in_edges", [2, 3])
def test_gradient_of_expected_costs_is_that_of_finite_differences(in_edges: int) -> None:
    space = AdaBertSpace(SMALL.model_copy(update={"nodes": 3, "in_edges": in_edges}))
    supernet = AdaBertSupernet(space, TINY, PAIR)
    torch.manual_seed(0)
    edges = torch.randn(len(space.edges), len(space.columns), dtype=torch.float64, requires_grad=True)
    depth = torch.randn(3, dtype=torch.float64, requires_grad=True)

    def relative(edges: Tensor, depth: Tensor) -> Tensor:
        found = supernet.expected_costs(Relaxation(edges.softmax(1), depth.softmax(0)), 8)
        return torch.stack([found.flops / 1e5, found.parameters / 1e4])

    assert torch.autograd.gradcheck(relative, (edges, depth), eps=1e-6, atol=1e-6)
    relative(edges, depth).sum().backward()
    assert edges.grad is not None and depth.grad is not None
    # an edge that is kept for certain may still change its operation, but zero there changes nothing
    assert edges.grad[:, :-1].abs().min() > 0 and depth.grad.abs().min() > 0
    assert edges.grad[-4:, -1].abs().min() > 0


def test_gradient_is_finite_at_a_one_hot_and_where_a_node_is_all_zero() -> None:
    supernet = supernet_of()
    space = supernet.space
    certain = one_hot(space, space.uniform(2, "conv_3"))
    nothing = torch.zeros_like(certain.edges)
    nothing[:, -1] = 1.0
    for edges in (certain.edges, nothing):
        leaf = edges.clone().requires_grad_()
        found = supernet.expected_costs(Relaxation(leaf, certain.depth))
        found.flops.backward()
        assert leaf.grad is not None and leaf.grad.isfinite().all() and found.flops.isfinite()
