"""Latency tables: what counts as the same part, how parts add up, and what is refused."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from methods.adabert.options import SpaceOptions
from methods.adabert.space import AdaBertSpace
from methods.backbone import BERT_BASE
from methods.budget import Budget, parse_seconds
from methods.dynabert.elastic import ElasticSpace
from methods.dynabert.space import DynaBertSpace
from methods.errors import UserError
from methods.latency import Fingerprint, LatencyTable, Timing, key_of, pieces_of
from methods.layers.attention import SelfAttention
from methods.layers.cell import Cell, CellStack, Edge
from methods.layers.convolution import SeparableConvolution
from methods.layers.embedding import Stem
from methods.layers.encoder import Link, TransformerLayer
from methods.layers.feed_forward import FeedForward
from methods.layers.operations import CellConvolution, CellIdentity, CellPool
from methods.layers.part import Part
from methods.nasbert.space import NasBertSpace
from methods.space import SearchSpace
from methods.tasks.head import Head
from search.limits import CostFunction, refuse_impossible

HEAD = Head("classification", 2)


def key(part: Part, width: int = 0) -> str:
    [piece] = part.pieces(width)
    return key_of(piece)


def table_of(seconds: dict[str, float], **changes: Any) -> LatencyTable:
    fingerprint = Fingerprint(
        processor="abacus", cores=1, system="wood", torch="0", backend="torch", threads=1, dtype="float32", batch=1, length=8
    )
    timings = {name: Timing(mean=s, std=0, p10=s, p50=s, p90=s, n=1) for name, s in seconds.items()}
    given = {"scale": 1.0, "fixed": 0.0, "calibrated_on": 0, "held_out": None, **changes}
    return LatencyTable(name="abacus", measured_at="2026-01-01", fingerprint=fingerprint, parts=timings, **given)


SMALL = replace(BERT_BASE, layers=2, heads=2, hidden=16, intermediate=32, vocabulary=50)
SPACES = {
    "grid": lambda: DynaBertSpace(SMALL, (0.5, 1.0), (0.5, 1.0)),
    "elastic": lambda: ElasticSpace(DynaBertSpace(SMALL, (0.5, 1.0))),
    "all layers": lambda: ElasticSpace(DynaBertSpace(SMALL, (0.5, 1.0))).full_depth(),
    "nasbert": lambda: NasBertSpace(4, 2, (8, 16), ("M", "F"), (8, 16), head_size=8, backbone=SMALL),
    "adabert": lambda: AdaBertSpace(SpaceOptions(cells=2, nodes=2, width=8, operations=("conv_3", "max_pool_3", "identity"))),
}


@pytest.mark.parametrize("name", SPACES)
def test_the_fastest_network_is_that_of_a_look_at_all(name: str) -> None:
    space = SPACES[name]()
    specs = {architecture: space.spec(architecture, SMALL, HEAD) for architecture in space.enumerate()}
    keys = sorted({key_of(piece) for spec in specs.values() for piece in pieces_of(spec)})
    for seed in range(5):
        rng = random.Random(seed)
        table = table_of({key: rng.uniform(0.1, 1.0) for key in keys}, scale=2.0, fixed=0.5)
        least = min(table.network(spec) for spec in specs.values())
        fastest = space.fastest(table, SMALL, HEAD)
        assert fastest in specs and table.network(specs[fastest]) == pytest.approx(least, rel=1e-12)
        cost_of = CostFunction(space, SMALL, HEAD, 8, 1, {"abacus": table})
        refuse_impossible(space, Budget(max_latency={"abacus": least}), cost_of)
        said = rf"budget tight: max_latency.abacus is .* ms, and the fastest network of .* takes {1e3 * least:.4g} ms"
        with pytest.raises(UserError, match=said):
            refuse_impossible(space, Budget(max_latency={"abacus": 0.999 * least}, name="tight"), cost_of)


def test_where_the_fastest_network_is_not_known_nothing_is_refused() -> None:
    class Unknown(NasBertSpace):
        fastest = SearchSpace.fastest

    space, tight = Unknown(), Budget(max_latency={"abacus": 1e-9})
    assert space.fastest(table_of({}), BERT_BASE, HEAD) is None
    refuse_impossible(space, tight, CostFunction(space, BERT_BASE, HEAD, devices={"abacus": table_of({})}))
    lacking = CostFunction(NasBertSpace(), BERT_BASE, HEAD, devices={"abacus": table_of({})})
    refuse_impossible(space, tight, lacking)


ATTENTION = SelfAttention(16, 2, 8)


@pytest.mark.parametrize("change", [{"dropout": 0.3}, {"attention_dropout": 0.0}, {"layer_norm_eps": 1e-6}])
def test_what_takes_no_time_is_in_no_key(change: dict[str, float]) -> None:
    assert key(replace(ATTENTION, **change)) == key(ATTENTION)


@pytest.mark.parametrize("change", [{"heads": 1}, {"head_size": 4}, {"hidden": 32}])
def test_every_size_is_in_the_key(change: dict[str, int]) -> None:
    assert key(replace(ATTENTION, **change)) != key(ATTENTION)


def test_keys_tell_kinds_activations_and_widths_apart() -> None:
    feed_forward = FeedForward(16, 64)
    parts = [ATTENTION, feed_forward, replace(feed_forward, activation="relu"), SeparableConvolution(16, 3), SeparableConvolution(16, 5)]
    parts += [Link(16, 32), Link(32, 16), CellConvolution(16, 3), CellConvolution(16, 3, 2), CellConvolution(16, 3).folded()]
    keys = [key(part) for part in parts] + [key(CellPool("max"), 16), key(CellPool("max"), 32), key(CellPool("average"), 16)]
    assert len(set(keys)) == len(keys)


def test_layers_are_their_pieces_and_an_index_is_none() -> None:
    layer = TransformerLayer(ATTENTION, FeedForward(16, 64), 3)
    assert layer.pieces() == replace(layer, index=5).pieces() == ATTENTION.pieces() + FeedForward(16, 64).pieces()
    assert table_of({key(ATTENTION): 2.0, key(FeedForward(16, 64)): 3.0}).part(layer) == 5.0


def test_a_stem_counts_once_for_each_text() -> None:
    stem = Stem(100, 8, 0, 16)
    assert table_of({key(stem): 2.0}).part(replace(stem, texts=2)) == 4.0


def test_a_stack_is_the_operations_and_the_sums_of_its_cells() -> None:
    pool, identity = Edge(1, CellPool("max")), Edge(0, CellIdentity())
    cell = Cell(((pool, identity), (Edge(2, CellPool("max")),)))
    operation, _, sums = cell.pieces(16)
    table = table_of({key_of(operation): 1.0, key_of(sums): 10.0})
    assert [piece.role for piece in cell.pieces(16)] == ["operation", "operation", "cell"]
    assert table.part(CellStack(cell, 3), 16) == 3 * (1.0 + 1.0 + 10.0)
    turned = Cell(((replace(pool, source=0), identity), (Edge(1, CellPool("max")),)))
    assert turned.pieces(16) == cell.pieces(16)


def spaces() -> list[Any]:
    return [NasBertSpace(sublayers=4, blocks=2), DynaBertSpace(BERT_BASE), AdaBertSpace()]


@given(st.randoms(use_true_random=False), st.sampled_from([0, 1, 2]), st.floats(0.1, 3), st.floats(0, 5))
def test_a_network_is_the_scaled_sum_of_its_parts(rng: Any, which: int, scale: float, fixed: float) -> None:
    space = spaces()[which]
    spec = space.spec(space.sample(rng), BERT_BASE, HEAD)
    seconds = {key_of(piece): rng.uniform(0.1, 1) for piece in pieces_of(spec)}
    table = table_of(seconds, scale=scale, fixed=fixed)
    total = sum(table.part(part, spec.stem.hidden) for part in spec.parts)
    assert table.network(spec) == pytest.approx(scale * total + fixed, rel=1e-12)


def test_what_was_not_measured_is_named() -> None:
    with pytest.raises(UserError, match=r"latency table abacus .*self_attention.*was not measured"):
        table_of({}).part(ATTENTION)


def test_a_table_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    table = table_of({key(ATTENTION): 1 / 3}, scale=1.1, fixed=0.1, warnings=("busy",))
    path = tmp_path / "deep" / "abacus.json"
    table.save(path)
    assert LatencyTable.load(path) == table and LatencyTable.load(path).part(ATTENTION) == 1 / 3
    assert table.keys() == (key(ATTENTION),)


def damage(change: Callable[[dict[str, Any]], object]) -> str:
    data = json.loads(table_of({"x": 1.0}).model_dump_json())
    change(data)
    return json.dumps(data)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "can't be read"),
        ("[]", "the file: input should be a valid dictionary"),
        (damage(lambda d: d.update(format=2)), "format: 2; this version reads latency tables of format 1"),
        (damage(lambda d: d.pop("scale")), "scale: field required"),
        (damage(lambda d: d.update(scale=-1)), "scale: input should be greater than 0"),
        (damage(lambda d: d["parts"]["x"].update(mean="fast")), "parts > x > mean: input should be a valid number"),
        (damage(lambda d: d.update(fixed=float("nan"))), "fixed: input should be a finite number"),
    ],
)
def test_a_damaged_file_is_refused_by_its_key(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "abacus.json"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        LatencyTable.load(path)
    assert str(caught.value).startswith(f"{path}: ") and said in str(caught.value)


def test_a_missing_file_says_how_to_measure(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.json: there is no latency table; elastibench latency"):
        LatencyTable.load(tmp_path / "none.json")


@pytest.mark.parametrize(("text", "seconds"), [("12ms", 0.012), ("800us", 0.0008), ("0.5s", 0.5), (" 3 ms ", 0.003), (0.25, 0.25)])
def test_times_are_read(text: str | float, seconds: float) -> None:
    assert parse_seconds(text) == pytest.approx(seconds, rel=1e-15)


@pytest.mark.parametrize("text", ["", "12 min", "0ms", "-1ms", "ms", "1e999", "nan", True, "12MS"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="max_latency"):
        parse_seconds(text, "max_latency.x")
