"""NAS-BERT: costs against published numbers and brute force, forms, and size bins."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from methods.backbone import BERT_BASE
from methods.costs import costs
from methods.layers.encoder import Link
from methods.nasbert.bins import bin_of_classes, foresee_shrinking, path_classes
from methods.nasbert.encoding import PAPER_HIDDEN_SIZES, from_reference, from_short, to_short
from methods.nasbert.networks import Settings, operation
from methods.nasbert.space import NasBertSpace
from methods.space import Architecture
from methods.tasks.head import Head
from tests.methods.nasbert_cases import CLASSES, PAPER, REFERENCE, TINY, few, in_four, small_space


@pytest.mark.parametrize("hidden", PAPER_HIDDEN_SIZES)
def test_operations_cost_what_the_paper_counts(hidden: int) -> None:
    h, length = hidden, 128
    expected = {
        "M": (4 * h * h + 6 * h, 8 * h * h + 4 * length * h),
        "F": (8 * h * h + 7 * h, 16 * h * h),
        **{f"S{k}": (2 * h * h + (2 * k + 8) * h, 4 * h * h + 4 * k * h) for k in (3, 5, 7)},
    }
    for name, (parameters, flops) in expected.items():
        part = operation(name, h, 1e-12, Settings())
        assert (part.other_parameters(), part.flops(length)) == (parameters, flops * length)
        assert sum(p.numel() for p in part.build().parameters()) == parameters


GOLDEN = [  # name, architecture, millions of parameters at 50,265 and 30,522 word pieces, FLOPs; spec of the method, table of section 9.4
    ("NAS-BERT60", in_four(512, 512, "S3 M M S7 F F F M M S7 F F M S5 M F S3 F M M S5 F F F"), 58.6, 48.5, 1.26e10),
    ("NAS-BERT30", in_four(256, 512, "S3 M S5 S7 F S5 M S7 S5 F S3 S5 M F S3 S7 M S3 F S5"), 32.1, 27.1, 6.98e9),
    ("NAS-BERT10", in_four(128, 384, "S3 S5 M S3 S5 M S7 M S3 S7 M S3"), 11.3, 8.8, 2.32e9),
    ("NAS-BERT5", from_reference(REFERENCE, 64), 4.5, 3.2, 8.57e8),
    ("BERT60", in_four(512, 512, "M F " * 10), 57.5, 47.4, 1.24e10),
    ("BERT30", in_four(256, 512, "M F " * 6), 32.0, 27.0, 7.03e9),
    ("BERT10", in_four(128, 256, "M F " * 6), 11.3, 8.7, 2.31e9),
    ("BERT5", in_four(64, 128, "M F " * 6), 4.4, 3.2, 8.52e8),
]


@pytest.mark.parametrize(("name", "architecture", "large", "small", "flops"), GOLDEN, ids=[row[0] for row in GOLDEN])
def test_published_networks(name: str, architecture: Architecture, large: float, small: float, flops: float) -> None:
    """Classification head without pooler; FLOPs count the embedding as a dense product, as the calculator behind the paper does."""
    assert PAPER.contains(architecture)
    of_vocabulary = [costs(PAPER.spec(architecture, replace(BERT_BASE, vocabulary=v), CLASSES)).parameters for v in (50_265, 30_522)]
    assert [round(n / 1e6, 1) for n in of_vocabulary] == [large, small]
    dense = costs(PAPER.spec(architecture, BERT_BASE, CLASSES), embedding="dense").flops
    assert dense == pytest.approx(flops, rel=0.01)


@pytest.mark.parametrize("head", [CLASSES, Head("regression"), Head("span"), Head("mlm"), Head("none")], ids=lambda h: h.kind)
def test_batch_costs_are_exact(head: Head) -> None:
    rng = np.random.default_rng(0)
    places = {c.name: rng.integers(len(c.values), size=60) for c in PAPER.choices}
    table = PAPER.batch_costs(places, BERT_BASE, head, length=77, batch=3)
    for i in range(60):
        architecture = PAPER.decode({c.name: c.values[places[c.name][i]] for c in PAPER.choices})
        assert table[i] == costs(PAPER.spec(architecture, BERT_BASE, head), length=77, batch=3)


SPACES = [{}, {"embedding_sizes": (8, 16, 24)}, {"operations": ("M", "F")}, {"sublayers": 2, "operations": ("S3",)}]


@pytest.mark.parametrize("changes", SPACES)
@pytest.mark.parametrize("length", [8, 128])
def test_extremes_by_brute_force(changes: dict[str, object], length: int) -> None:
    space = small_space(**changes)
    found = {a: costs(space.spec(a, TINY, CLASSES), length).measured_against() for a in space.enumerate()}
    for name, ends in space.cost_range(TINY, CLASSES, length).items():
        values = [cost[name] for cost in found.values()]
        assert ends == (min(values), max(values)), name
    params = [cost["max_params"] for cost in found.values()]
    assert found[space.smallest()]["max_params"] == min(params)
    assert found[space.largest()]["max_params"] == max(params)


def test_extremes_of_the_paper() -> None:
    """Where the embedding is as wide as the first block one network is the least in all costs; else it saves words or a projection."""
    one_embedding = NasBertSpace(embedding_sizes=(128,))
    least = costs(one_embedding.spec(one_embedding.smallest(), BERT_BASE, CLASSES)).measured_against()
    assert least == {name: low for name, (low, _) in one_embedding.cost_range(BERT_BASE, CLASSES).items()}
    assert to_short(PAPER.smallest()) == "E64|128:S3" + "|128:S3" * 3
    assert to_short(PAPER.largest()) == "E512" + "|512:F.F.F.F.F.F" * 4
    rng, ranges = random.Random(0), PAPER.cost_range(BERT_BASE, CLASSES)
    for _ in range(300):
        cost = costs(PAPER.spec(PAPER.sample(rng), BERT_BASE, CLASSES)).measured_against()
        assert all(ranges[name][0] <= cost[name] <= ranges[name][1] for name in ranges)


def test_forms() -> None:
    """Hosted: a link at every border and behind the last block. Deployed: links and projection between different widths alone."""
    architecture = from_short("E8|8:M|8:F.S3|16:S5|16:M")
    space = small_space(sublayers=8, blocks=4)
    hosted, deployed = (space.spec(architecture, TINY, CLASSES, form) for form in ("hosted", "deployed"))  # type: ignore[arg-type]
    links = [[(p.inputs, p.outputs) for p in spec.encoder.layers if isinstance(p, Link)] for spec in (hosted, deployed)]  # type: ignore[attr-defined]
    assert links == [[(8, 8), (8, 16), (16, 16), (16, 24)], [(8, 16)]]
    assert (hosted.stem.width, hosted.stem.types, hosted.stem.projection) == (24, 2, 8)
    assert (deployed.stem.width, deployed.stem.types, deployed.stem.projection) == (8, 0, 0)
    assert (hosted.head.pooler, deployed.head.pooler) == (True, False)  # type: ignore[attr-defined]
    assert hosted.stem.zero_padding and deployed.stem.zero_padding
    projected = space.spec(from_short("E8|16:M|16:M|16:M|16:M"), TINY, CLASSES)
    assert projected.stem.projection == 16
    with pytest.raises(ValueError, match="dynabert"):
        space.spec(Architecture.of("dynabert", architecture.choices), TINY, CLASSES)


def test_dropout_scales_with_the_width_on_request() -> None:
    space = small_space(dropout=0.2, attention_dropout=0.1, dynamic_dropout=True)
    layers = space.spec(from_short("E8|8:M|16:M"), TINY, CLASSES).encoder.layers  # type: ignore[attr-defined]
    assert [(p.dropout, p.attention_dropout) for p in layers if p.kind == "self_attention"] == [(0.1, 0.05), (0.2, 0.1)]


def occupancy(bound: str, length: int = 128, policy: str = "equal_width") -> list[int]:
    classes, table = path_classes(PAPER), PAPER.tables(BERT_BASE, CLASSES, length).operation[:, :-1]
    place = bin_of_classes(classes.costs(table[..., 1]), classes.costs(table[..., 2]), classes.paths, 10, policy, bound)  # type: ignore[arg-type]
    return [int(classes.paths[place == b].sum()) for b in range(10)]


def test_bins_of_the_paper() -> None:
    """Bins are half-open upwards, so the path of three feed-forward layers 512 wide, exactly half the largest, is in the fifth."""
    assert occupancy("none") == [46_770, 17_364, 13_028, 8_694, 5_186, 4_776, 1_346, 445, 34, 7]
    assert sum(occupancy("both")) == 91_562
    assert sum(occupancy("both")) <= sum(occupancy("upper")) <= sum(occupancy("none")) == PAPER.paths_per_block()


def test_classes_count_the_paths() -> None:
    space = small_space(sublayers=6)
    classes = path_classes(space)
    table = space.tables(TINY, CLASSES, 16).operation
    counted: Counter[int] = Counter()
    for parameters, paths in zip(classes.costs(table[:, :-1, 1]), classes.paths, strict=True):
        counted[int(parameters)] += int(paths)
    one_block = NasBertSpace(3, 1, (8, 16), ("M", "F", "S3", "S5"), (8,), head_size=8)
    listed = Counter(
        sum(operation(name, b["hidden"], 1e-12, Settings(8)).other_parameters() for name in b["ops"])
        for b in (a.choices["blocks"][0] for a in one_block.enumerate())
    )
    assert counted == listed


def test_quantile_bins_are_about_equal() -> None:
    counts = occupancy("none", policy="quantile")
    assert sum(counts) == 97_650 and all(abs(n - 9_765) < 1_500 for n in counts)
    assert 0 < sum(occupancy("both", policy="quantile")) < sum(occupancy("upper", policy="quantile")) < 97_650


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 5)), min_size=1, max_size=12), st.integers(1, 6))
@few
def test_quantile_bins_bound_latency_by_rank(rows: list[tuple[int, int, int]], bins: int) -> None:
    """By definition: bin b holds what between b / B and (b + 1) / B of the paths are at most as large as; classes are as their paths."""
    parameters, latency, count = (np.array(column) for column in zip(*rows, strict=True))
    whole, slow = np.repeat(parameters, count), np.repeat(latency, count)
    for bound in ("none", "upper", "both"):
        found = bin_of_classes(parameters, latency, count.astype(float), bins, "quantile", bound)  # type: ignore[arg-type]
        apart = bin_of_classes(whole, slow, np.ones(len(whole)), bins, "quantile", bound)  # type: ignore[arg-type]
        assert np.repeat(found, count).tolist() == apart.tolist()
        for p, t, b in zip(whole, slow, apart, strict=True):
            size, time = (-(-int((costs <= value).sum()) * bins // len(whole)) - 1 for costs, value in ((whole, p), (slow, t)))
            kept = {"none": True, "upper": time <= size, "both": time == size}[bound]
            assert b == (size if kept else -1)
        assert bound == "both" or (apart[whole == whole.max()] == bins - 1).all()


@given(st.lists(st.integers(0, 9000), min_size=1, max_size=4), st.integers(1, 12), st.sampled_from([0, 1, 50, 2000]), st.floats(0.05, 1))
@few
def test_shrinking_ends_where_it_should(paths: list[int], kept: int, sample: int, fraction: float) -> None:
    found = foresee_shrinking(paths, kept, sample, fraction)
    assert found.kept == sum(min(kept, n) for n in paths)
    rounds, evaluations, alive = 0, 0, list(paths)
    while any(n > kept for n in alive):
        ranked = [(min(sample, n) if sample else n) if n > kept else 0 for n in alive]
        alive = [n if n <= kept else max(kept, n - int(np.ceil(r * fraction))) for n, r in zip(alive, ranked, strict=True)]
        rounds, evaluations = rounds + 1, evaluations + sum(ranked)
    assert (found.rounds, found.evaluations) == (rounds, evaluations)
