"""AdaBERT's diagnostics on numbers whose answer is known, alarms included."""

from __future__ import annotations

import random

import numpy as np
import pytest
from scipy import stats

from methods.adabert.diagnostics import (
    against_floors,
    against_random,
    agreement_over_seeds,
    discretisation_gap,
    rank_agreement,
    strength_against_rank,
)
from methods.adabert.space import AdaBertSpace
from tests.methods.adabert_cases import FEW


@pytest.mark.parametrize(("derived", "alarm"), [(0.80, False), (0.785, False), (0.77, True)])
def test_the_discretisation_gap_alarms_above_two_points(derived: float, alarm: bool) -> None:
    found = discretisation_gap(0.80, derived, finished=0.85)
    assert found.alarm == alarm and found.value == pytest.approx(
        {"sampled": 0.8, "derived": derived, "gap": 0.8 - derived, "finished": 0.85, "gap_finished": -0.05}
    )
    assert found.to_dict().keys() == {"value", "alarm", "why"}


def test_ranks_need_twenty_architectures_and_agreement() -> None:
    scores = np.linspace(0.5, 0.9, 20)
    assert not rank_agreement(scores.tolist(), (scores**2).tolist()).alarm
    reversed_ = rank_agreement(scores.tolist(), (-scores).tolist())
    assert reversed_.value == pytest.approx(-1) and reversed_.alarm
    few = rank_agreement([0.1, 0.2, 0.3, 0.4], [0.1, 0.3, 0.2, 0.4])
    assert few.value == pytest.approx(4 / 6) and few.alarm and "4 architectures only" in few.why
    assert rank_agreement([0.5] * 20, scores.tolist()).value is None
    with pytest.raises(ValueError, match="2 scores"):
        rank_agreement([1, 2], [1])


def test_agreement_over_seeds_is_set_against_chance() -> None:
    space, rng = AdaBertSpace(), random.Random(1)
    one = space.sample(rng)
    same = agreement_over_seeds(space, [one] * 3)
    assert not same.alarm and isinstance(same.value, dict)
    # chance: a node of s sources shares 4 / s edges with the same of 9 operations on average; six edges are kept
    assert same.value["edges"] == same.value["cells"] == 1.0
    assert same.value["edges_chance"] == pytest.approx((4 / 2 + 4 / 3 + 4 / 4) / 9 / 6, abs=0.005)
    assert same.value["cells_chance"] == pytest.approx(1 / 8, abs=0.02)
    assert agreement_over_seeds(space, [one] * 2).alarm  # two seeds are too few
    assert agreement_over_seeds(space, [one]).value is None
    alarms = [agreement_over_seeds(AdaBertSpace(FEW), [AdaBertSpace(FEW).sample(rng) for _ in range(3)]).alarm for _ in range(6)]
    assert sum(alarms) >= 5  # random architectures do not agree


def test_partial_agreement_by_hand() -> None:
    space = AdaBertSpace(FEW)
    first = space.architecture(1, [[(0, "conv_3"), (1, "conv_3")], [(0, "conv_3"), (1, "conv_3")]])
    second = space.architecture(1, [[(0, "conv_3"), (1, "max_pool_3")], [(0, "conv_3"), (2, "conv_3")]])
    found = agreement_over_seeds(space, [first, second])
    assert isinstance(found.value, dict) and (found.value["edges"], found.value["cells"]) == (0.5, 1.0)


def test_strength_is_correlated_with_probability_edge_by_edge() -> None:
    probabilities = [[0.1, 0.2, 0.7], [0.5, 0.3, 0.2]]
    good = strength_against_rank([[0.0, 0.1, 0.2], [0.3, 0.2, 0.1]], probabilities)
    assert good.value == pytest.approx(1) and not good.alarm
    mixed = strength_against_rank([[0.0, 0.1, 0.2], [0.1, 0.2, 0.3]], probabilities)
    assert mixed.value == pytest.approx(0) and mixed.alarm
    assert strength_against_rank([[0.0, 0.0, 0.0]], [[0.1, 0.2, 0.7]]).value is None


def test_the_z_score_has_an_interval_that_covers() -> None:
    found = against_random([0.9], [0.80, 0.82, 0.81, 0.83, 0.79])
    assert isinstance(found.value, dict)
    assert found.value["z"] == pytest.approx((0.9 - 0.81) / np.std([0.80, 0.82, 0.81, 0.83, 0.79], ddof=1))
    assert found.value["improvement"] == pytest.approx(0.09 / 0.81) and not found.alarm and "search helped" in found.why
    # against scipy's own distribution where that is sound
    scale = np.sqrt(1 + 1 / 5)
    for end, share in (("low", 0.975), ("high", 0.025)):
        assert stats.nct.cdf(found.value["z"] / scale, 4, found.value[end] / scale) == pytest.approx(share, abs=2e-3)
    rng, effect, inside = np.random.default_rng(0), 2.0, 0
    for _ in range(100):
        one = against_random(rng.normal(effect, 1, 3).tolist(), rng.normal(0, 1, 8).tolist())
        assert isinstance(one.value, dict)
        inside += one.value["low"] <= effect <= one.value["high"]
    assert inside == pytest.approx(95, abs=5)


def test_search_that_does_not_help_raises_an_alarm() -> None:
    same = against_random([0.81], [0.80, 0.82, 0.81, 0.83, 0.79])
    assert same.alarm and "no difference from random choice is shown" in same.why
    worse = against_random([0.2], [0.80, 0.82, 0.81, 0.83, 0.79])
    assert worse.alarm and "worse than random choice" in worse.why
    few = against_random([0.9], [0.8, 0.81, 0.805])
    assert few.alarm and "3 random networks only" in few.why
    assert against_random([0.9], [0.8] * 5).value is None
    assert against_random([0.99], [0.8, 0.8 + 1e-9, 0.8, 0.8, 0.8]).value is not None  # no overflow where random networks hardly differ


def test_floors_have_to_be_beaten_each() -> None:
    assert not against_floors(0.9, {"bag-of-embeddings": 0.85, "fixed-cnn": 0.88}).alarm
    beaten = against_floors(0.86, {"bag-of-embeddings": 0.85, "fixed-cnn": 0.88})
    assert beaten.alarm and "not above fixed-cnn" in beaten.why
    assert beaten.value == pytest.approx({"bag-of-embeddings": 0.01, "fixed-cnn": -0.02})
    assert against_floors(0.9, {}).alarm
