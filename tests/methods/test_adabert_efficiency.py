"""AdaBERT's efficiency term, in both forms."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError

from methods.adabert.derivation import derive
from methods.adabert.efficiency import Efficiency, operation_costs
from methods.adabert.options import LossOptions, SearchOptions, SpaceOptions
from methods.adabert.relaxation import Relaxation, one_hot
from methods.adabert.search_model import SearchModel
from methods.adabert.space import AdaBertSpace
from methods.adabert.supernet import AdaBertSupernet
from methods.costs import costs
from methods.errors import UserError
from tests.conformance.cases import TINY
from tests.methods.adabert_cases import PAIR, SMALL, supernet_of


def test_the_published_cost_table() -> None:
    table = operation_costs(AdaBertSpace(SpaceOptions()), LossOptions(), 128)
    published = [0.09987, 0.10368, 0.10763] * 2 + [0.09442] * 2 + [0.09440]
    torch.testing.assert_close(table, torch.tensor(published, dtype=torch.float64), atol=5e-6, rtol=0)
    largest = operation_costs(AdaBertSpace(SpaceOptions()), LossOptions(normaliser="max"), 128)
    assert largest.tolist() == pytest.approx([0.430, 0.715, 1.0] * 2 + [0.002] * 2 + [0.0], abs=2e-3)


def test_shares_add_up_to_the_supernet_and_latencies_are_taken_over_the_largest() -> None:
    space = AdaBertSpace(SMALL)
    assert float(operation_costs(space, LossOptions(normaliser="share"), 16).sum()) * len(space.edges) == pytest.approx(1.0)
    few = AdaBertSpace(SMALL.model_copy(update={"operations": ("conv_3", "identity")}))
    options = LossOptions(normaliser="latency", operation_latency={"conv_3": 4.0, "identity": 0.5})
    assert operation_costs(few, options, 16).tolist() == [1.0, 0.125]
    with pytest.raises(UserError, match="lacks conv_5"):
        operation_costs(space, options, 16)


@pytest.mark.parametrize("change", [{"normaliser": "latency"}, {"efficiency": "budget"}, {"limits": {"max_params": "1M"}}])
def test_half_an_efficiency_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="needed with"):
        LossOptions(**change)
    with pytest.raises(ValidationError, match="is no quantity"):
        LossOptions(efficiency="budget", limits={"max_params": "1X"})


@pytest.mark.parametrize(("normaliser", "edges"), [("softmax", 4), ("share", 1)])
def test_the_price_of_a_certain_architecture_is_that_of_its_kept_edges(normaliser: str, edges: int) -> None:
    """Their mean; shares of the supernet add up."""
    supernet = supernet_of()
    efficiency = Efficiency(supernet, LossOptions.model_validate({"beta": 2.0, "normaliser": normaliser}), 16)
    architecture = supernet.space.architecture(2, [[(0, "conv_3"), (1, "identity")], [(0, "conv_7"), (2, "max_pool_3")]])
    table = dict(zip(supernet.space.options.operations, efficiency.costs.tolist(), strict=True))
    expected = 2.0 * 2 / 3 * sum(table[name] for name in ("conv_3", "identity", "conv_7", "max_pool_3"))
    assert float(efficiency.loss(one_hot(supernet.space, architecture))) == pytest.approx(expected / edges)


def test_the_dearest_network_of_the_paper_costs_less_than_half() -> None:
    """Reproduced scale of the TensorFlow re-release: beta = 4 prices all eight cells of the dearest operation at 0.43."""
    supernet = AdaBertSupernet(AdaBertSpace(SpaceOptions(width=128)), TINY, PAIR)
    efficiency = Efficiency(supernet, LossOptions(), 128)
    dearest = supernet.space.architecture(8, [[(0, "conv_7"), (1, "conv_7")]] * 3)
    assert float(efficiency.loss(one_hot(supernet.space, dearest))) == pytest.approx(4 * 0.10763, abs=1e-4)


@pytest.mark.parametrize(
    "change",
    [
        *({"normaliser": name} for name in ("softmax", "max", "share")),
        {"efficiency": "budget", "limits": {"max_flops": 2e5, "max_params": 3e3, "length": 16}},
    ],
)
@pytest.mark.parametrize("strengths", [False, True])
def test_the_efficiency_term_pulls_at_depth_and_operations(change: dict[str, Any], strengths: bool) -> None:
    """By finite differences in the logits; the authors' own code gives the depth none."""
    remedies = {"edge_normalisation": strengths}
    supernet = AdaBertSupernet(AdaBertSpace(SMALL), TINY, PAIR).double()
    model = SearchModel(supernet, SearchOptions(loss=change, remedies=remedies)).double()
    torch.manual_seed(0)
    for parameter in model.architecture_parameters():
        torch.nn.init.normal_(parameter)
    efficiency = Efficiency(supernet, model.options.loss, 16)
    efficiency.dual = 1.5
    parameters = model.architecture_parameters()
    found = torch.autograd.grad(efficiency.loss(model.probabilities()), parameters)
    for parameter, slope in zip(parameters, found, strict=True):
        assert (slope != 0).sum() >= slope.numel() - 2  # zero changes nothing on edges that are certainly kept
        for place in range(0, parameter.numel(), 5):
            values = []
            for shift in (1e-5, -1e-5):
                with torch.no_grad():
                    parameter.view(-1)[place] += shift
                    values.append(float(efficiency.loss(model.probabilities())))
                    parameter.view(-1)[place] -= shift
            assert float(slope.view(-1)[place]) == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-4, abs=1e-7)


def test_the_budget_is_of_the_derived_network_and_its_weight_rises_while_it_is_exceeded() -> None:
    supernet = supernet_of()
    architecture = supernet.space.uniform(2, "conv_5")
    certain, exact = one_hot(supernet.space, architecture), costs(supernet.spec(architecture, "deployed"), 16)
    limits = {"max_params": 1e9, "max_flops": exact.flops / 1.5, "length": 16, "dual_rate": 0.1}
    efficiency = Efficiency(supernet, LossOptions(efficiency="budget", limits=limits), 16)
    assert float(efficiency.overshoot(certain)) == pytest.approx(0.5) and float(efficiency.loss(certain)) == 0.0
    for weight in (0.05, 0.1, 0.15):
        efficiency.ascend(certain)
        assert efficiency.dual == pytest.approx(weight)
    assert float(efficiency.loss(certain)) == pytest.approx(0.15 * 0.5)
    small = one_hot(supernet.space, supernet.space.uniform(1, "identity"))
    assert float(efficiency.loss(small)) == 0.0
    for _ in range(3):
        efficiency.ascend(small)
    assert efficiency.dual == 0.0


def test_the_hinge_can_look_at_the_network_that_would_be_derived() -> None:
    """Undecided parameters with a slight preference for the cheapest network: its costs count, the expectation gives the slope."""
    supernet = supernet_of()
    edges = torch.zeros(len(supernet.space.edges), len(supernet.space.columns))
    edges[:, supernet.space.columns.index("identity")] = 0.1
    edges.requires_grad_()
    depth = torch.zeros(supernet.space.options.cells, requires_grad=True)

    def undecided() -> Relaxation:
        return Relaxation(edges.softmax(-1), depth.softmax(-1))

    exact = costs(supernet.spec(derive(supernet.space, edges, depth), "deployed"), 16).flops
    expected = float(supernet.expected_costs(undecided(), 16).flops.detach())
    assert exact < 0.5 * expected
    limits = {"max_flops": (exact + expected) / 2, "length": 16}
    average, shipped = (
        Efficiency(supernet, LossOptions(efficiency="budget", limits={**limits, "of": of}), 16) for of in ("expected", "derived")
    )
    assert float(average.overshoot(undecided()).detach()) > 0
    assert float(shipped.overshoot(undecided())) == pytest.approx(exact / limits["max_flops"] - 1)
    slopes = [torch.autograd.grad(one.overshoot(undecided()), (edges, depth)) for one in (average, shipped)]
    for ours, theirs in zip(*slopes, strict=True):
        torch.testing.assert_close(ours, theirs)
        assert ours.abs().max() > 0


def test_limits_that_nothing_meets_are_refused() -> None:
    supernet = supernet_of()
    tables = costs(supernet.spec(supernet.space.smallest(), "deployed")).embedding_parameters
    with pytest.raises(UserError, match="nothing meets max_params: the smallest network"):
        Efficiency(supernet, LossOptions(efficiency="budget", limits={"max_params": tables}), 16)
