"""Paths as numbers, bins of survivors, and what shrinking drops."""

from __future__ import annotations

import random
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from methods.backbone import BackboneConfig
from methods.errors import UserError
from methods.nasbert.bins import foresee_shrinking
from methods.nasbert.options import NasBertOptions, ShrinkingOptions
from methods.nasbert.paths import Paths
from methods.nasbert.plan import epochs_of
from methods.nasbert.shrinking import drop_operations, sampled, shrink, shrunk, without_worst
from methods.nasbert.space import NasBertSpace
from methods.nasbert.survivors import Survivors, bins_of, draw

BACKBONE = BackboneConfig(vocabulary=50, positions=40, types=2, hidden=24, layers=6, heads=4, intermediate=40)
SPACE = NasBertSpace(9, 3, (8, 16), ("M", "F", "S3"), (8,), head_size=8, backbone=BACKBONE)
PATHS = Paths(SPACE)
SMALL = ShrinkingOptions(bins=4, kept=3, sample=0)


def survivors(options: ShrinkingOptions = SMALL, probes: int = 0) -> Survivors:
    return Survivors(PATHS, bins_of(options, SPACE, BACKBONE, PATHS), options.bins, SPACE.blocks, probes)


def options_of(**parts: object) -> NasBertOptions:
    sizes = {"sublayers": 9, "blocks": 3, "hidden_sizes": (8, 16), "operations": ("M", "F", "S3"), "embedding_sizes": (8,), "head_size": 8}
    return NasBertOptions.model_validate({**sizes, **parts})


def test_numbers_and_paths_are_one_to_one() -> None:
    assert len(PATHS) == SPACE.paths_per_block() == 2 * (3 + 9 + 27)
    everything = [PATHS[i] for i in range(len(PATHS))]
    assert len(set(everything)) == len(PATHS)
    assert [PATHS.number(*path) for path in everything] == list(range(len(PATHS)))
    assert set(everything) == {(b[0][0], tuple(b[0][1])) for a in _one_block() for b in [a]}


def _one_block() -> list[list[tuple[int, list[str]]]]:
    one = NasBertSpace(3, 1, (8, 16), ("M", "F", "S3"), (8,), head_size=8, backbone=BACKBONE)
    return [[(block["hidden"], block["ops"]) for block in a.choices["blocks"]] for a in one.enumerate()]


def test_costs_of_paths_are_those_of_their_operations() -> None:
    table = SPACE.tables(BACKBONE, _head(), 16).operation
    place = {name: i for i, name in enumerate(SPACE.operations)}
    costs = PATHS.costs(table[..., 2])
    for i in range(0, len(PATHS), 7):
        hidden, names = PATHS[i]
        assert costs[i] == sum(table[SPACE.hidden_sizes.index(hidden), place[name], 2] for name in names)


def _head() -> object:
    from methods.tasks.head import Head

    return Head("mlm")


def test_a_block_of_too_many_paths_is_refused() -> None:
    with pytest.raises(UserError, match="choose more blocks"):
        Paths(NasBertSpace(24, 1, backbone=BACKBONE))


def test_probes_are_stratified_and_never_alive() -> None:
    found = survivors(probes=12)
    plain = survivors()
    for block in range(3):
        assert len(found.probes[block]) == sum(min(2, n // 10) for n in plain.count(block))
        assert not set(found.probes[block]) & set(found.all_of(block))
        assert len(found.all_of(block)) + len(found.probes[block]) == len(plain.all_of(block))
        assert found.at_start(block) == found.count(block)
    assert [p.tolist() for p in survivors(probes=12).probes] == [p.tolist() for p in found.probes]


@given(st.integers(0, 40), st.integers(1, 8), st.floats(0.1, 1.0), st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_the_worst_of_the_ranked_go_and_never_too_many(alive: int, kept: int, fraction: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    numbers = np.sort(rng.choice(len(PATHS), alive, replace=False)).astype(np.int64)
    losses = rng.integers(0, 5, alive).astype(float)
    options = ShrinkingOptions(bins=4, kept=kept, sample=0, drop_fraction=fraction)
    ranked = sampled(numbers, options, "s")
    left = without_worst(numbers, ranked, losses[: len(ranked)], options)
    assert set(left) <= set(numbers) and len(left) >= min(kept, alive)
    if alive <= kept:
        assert len(left) == alive
        return
    assert len(left) < alive
    loss = dict(zip(numbers.tolist(), losses.tolist(), strict=True))
    gone = sorted(set(numbers.tolist()) - set(left.tolist()))
    assert max((loss[i], i) for i in left.tolist()) < min((loss[i], i) for i in gone)


def test_shrinking_takes_as_many_rounds_as_foreseen_and_keeps_every_bin_filled() -> None:
    found = survivors()
    start = found.count(0)
    rng = np.random.default_rng(0)
    worth = rng.random(len(PATHS))
    rounds, sets = 0, [set(found.all_of(0).tolist())]
    while not shrunk([found.count(0)], SMALL.kept):
        shrink(found, 0, SMALL, lambda numbers: worth[numbers], f"{rounds}")
        rounds += 1
        sets.append(set(found.all_of(0).tolist()))
    assert rounds == foresee_shrinking(start, 3, 0, 0.5).rounds == epochs_of(options_of(shrinking=SMALL.model_dump()), start) - 3
    assert all(after < before for before, after in pairwise(sets))
    assert [min(3, n) for n in start] == found.count(0)
    for b, numbers in enumerate(found.alive[0]):
        everyone = np.flatnonzero(found.bin_of == b)
        assert set(numbers) == set(everyone[np.argsort(worth[everyone])][: len(numbers)])
    assert found.count(1) == survivors().count(1)


def test_a_sample_is_the_seed_s() -> None:
    options = ShrinkingOptions(bins=4, kept=3, sample=5)
    alive = np.arange(20)
    assert sampled(alive, options, "a").tolist() == sampled(alive, options, "a").tolist() != sampled(alive, options, "b").tolist()
    assert len(sampled(alive, options, "a")) == 5


def test_rounds_say_what_was_ranked() -> None:
    found = survivors()
    before = found.count(0)
    rounds = shrink(found, 0, SMALL, lambda numbers: numbers.astype(float), "x")
    for entry, count in zip(rounds, before, strict=True):
        assert entry.ranked == (count if count > 3 else 0)
        assert entry.alive == found.count(0)[entry.bin]
        assert entry.ranked == 0 or entry.best <= entry.mean <= entry.worst


def test_operations_with_the_largest_mean_loss_go() -> None:
    options = ShrinkingOptions(unit="operation", bins=1, kept=3, sample=0, operation_drop=0.3)
    found = survivors(options)
    everyone = found.all_of(0)
    convolution = 2
    losses = (PATHS.operations[everyone, 0] == convolution).astype(float) + 0.1 * (PATHS.hidden[everyone] == 1)
    drop_operations(found, 0, options, everyone, losses)
    left = found.all_of(0)
    gone = np.setdiff1d(everyone, left)
    assert 0.3 * len(everyone) <= len(gone) < 0.5 * len(everyone)
    assert (PATHS.operations[gone, 0] == convolution).mean() > 0.9


def test_none_drops_nothing() -> None:
    found = survivors()
    assert shrink(found, 0, ShrinkingOptions(unit="none", bins=4, kept=3), lambda n: n.astype(float), "x") == []
    assert found.count(0) == survivors().count(0)


def test_bins_are_drawn_uniformly_and_paths_too() -> None:
    found, by_bins, by_paths = survivors(), options_of(), options_of(supernet={"sampler": "paths"})
    rng = random.Random(0)
    bins = np.bincount([found.bin_of[draw(found, 0, by_bins, rng, None)] for _ in range(4000)], minlength=4)
    filled = [n > 0 for n in found.count(0)]
    assert np.allclose(bins[filled] / 4000, 1 / sum(filled), atol=0.04) and not bins[[not f for f in filled]].any()
    paths = np.bincount([found.bin_of[draw(found, 0, by_paths, rng, None)] for _ in range(4000)], minlength=4)
    assert np.allclose(paths / 4000, np.array(found.count(0)) / sum(found.count(0)), atol=0.04)


def test_gradual_changes_one_thing_and_stays_alive() -> None:
    found, options = survivors(), options_of(supernet={"sampler": "gradual", "gradual_changes": 1})
    shrink(found, 0, SMALL, lambda numbers: numbers.astype(float), "x")
    rng, before = random.Random(1), None
    for _ in range(200):
        number = draw(found, 0, options, rng, before)
        assert found.contains(0, number)
        if before is not None:
            (h, names), (g, others) = PATHS[before], PATHS[number]
            same = sum(a == b for a, b in zip(names, others, strict=False))
            moves = (h != g) + (len(names) != len(others)) + (min(len(names), len(others)) - same)
            assert moves == 1 or _no_neighbour(found, before)
        before = number


def _no_neighbour(found: Survivors, number: int) -> bool:
    hidden, names = PATHS[number]
    near = [(g, names) for g in PATHS.sizes]
    near += [(hidden, (*names[:j], o, *names[j + 1 :])) for j in range(len(names)) for o in PATHS.names]
    near += [(hidden, (*names, o)) for o in PATHS.names if len(names) < 3] + ([(hidden, names[:-1])] if len(names) > 1 else [])
    return not any(found.contains(0, PATHS.number(*path)) for path in near if path != (hidden, names))


def test_a_latency_bound_that_drops_all_is_a_mistake_of_the_user() -> None:
    found = survivors()
    found.alive[0] = [numbers[:0] for numbers in found.alive[0]]
    with pytest.raises(UserError, match="latency_bound"):
        draw(found, 0, options_of(), random.Random(0), None)


def test_state_round_trips() -> None:
    found, other = survivors(), survivors()
    shrink(found, 1, SMALL, lambda numbers: numbers.astype(float), "x")
    other.restore(found.state())
    assert other.state() == found.state() != survivors().state()
