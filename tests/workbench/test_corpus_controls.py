"""Controls beside the networks of a corpus method: the hand-made one that uses most of a budget, random ones that use it up."""

from __future__ import annotations

import random

from methods.backbone import BERT_BASE
from methods.budget import Budget
from methods.nasbert.space import NasBertSpace
from methods.network import NetworkSpec
from methods.tasks.head import Head
from search.limits import CostFunction
from workbench.corpus_controls import hand_made_within, random_within


class Phone:
    """A device that takes a second for 100 GFLOPs."""

    def network(self, spec: NetworkSpec) -> float:
        return sum(part.flops(128) for part in spec.parts) / 1e11


def test_the_costliest_that_fits() -> None:
    space = NasBertSpace()
    winner = space.sample(random.Random(0))
    cost_of = CostFunction(space, BERT_BASE, Head("classification", 2))
    budget = Budget(max_params=30e6, max_flops=3e9)
    found = hand_made_within(space, budget, cost_of, winner)
    assert found is not None and budget.met_by(cost_of(found))
    fitting = [a for a in space.hand_made(winner) if budget.met_by(cost_of(a))]
    assert cost_of(found).flops == max(cost_of(a).flops for a in fitting) and len(fitting) > 1
    assert hand_made_within(space, Budget(max_flops=10), cost_of, winner) is None


def test_random_ones_use_up_a_limit_on_latency() -> None:
    space = NasBertSpace()
    cost_of = CostFunction(space, BERT_BASE, Head("classification", 2), devices={"phone": Phone()})  # type: ignore[dict-item]
    budget = Budget(max_latency={"phone": 0.03})
    found = random_within(space, budget, cost_of, 3, seed=0)
    assert len(set(found)) == 3 and all(0.027 <= cost_of(a).latency["phone"] <= 0.03 for a in found)
    assert random_within(space, budget, cost_of, 0, seed=0) == []
