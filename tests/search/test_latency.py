"""Measuring latency: timing by a clock that is handed over, calibration, and a real worker on tiny parts."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from methods.adabert.budgeted import CostTable
from methods.adabert.space import AdaBertSpace
from methods.backbone import BackboneConfig
from methods.dynabert.elastic import ElasticSpace
from methods.dynabert.space import DynaBertSpace
from methods.errors import UserError
from methods.latency import Fingerprint, LatencyTable, key_of, pieces_of
from methods.layers.feed_forward import FeedForward
from methods.layers.part import Piece
from methods.nasbert.space import NasBertSpace
from methods.network import NetworkSpec
from methods.space import SearchSpace
from methods.tasks.head import Head
from search.latency.apart import Measured, Setting, measure_apart
from search.latency.backends import Compiled, check_backend
from search.latency.calibration import ENOUGH, Line, fit, held_out_error
from search.latency.grid import thinned
from search.latency.here import time_here
from search.latency.measure import Heard, Rounds, by_clock, measure, signs_of_a_busy_machine, timing
from search.latency.parts import Served, distinct_pieces, pieces_of_space, pieces_of_spaces, random_networks
from search.latency.profile import build_profile
from search.latency.subject import Subject, copies, flops, from_dict, import_parts, modules_of, prepared, to_dict
from search.latency.worker import groups, timed
from search.limits import CostFunction
from tests.toy_method import ToySpace

SHAPE = BackboneConfig(vocabulary=50, positions=32, types=2, hidden=32, layers=2, heads=4, intermediate=64)
PAIR = Head("classification", 3, pair=True)


def nasbert() -> NasBertSpace:
    return NasBertSpace(sublayers=4, blocks=2, hidden_sizes=(16, 32), embedding_sizes=(16, 32), head_size=8, backbone=SHAPE)


def served() -> list[Served]:
    return [Served(space, SHAPE, PAIR) for space in (nasbert(), DynaBertSpace(SHAPE, (0.25, 0.5, 1.0), (0.5, 1.0)), AdaBertSpace())]


class Device:
    """A made-up device: a part takes time by its FLOPs, a network `scale` x its parts + `fixed`; a part by itself takes `call` longer."""

    def __init__(self, scale: float, fixed: float, call: float = 0.0) -> None:
        self.scale, self.fixed, self.call = scale, fixed, call

    def part(self, piece: Piece) -> float:
        return 1e-5 + 1e-9 * piece.part.flops(16)

    def seconds(self, subject: Subject) -> float:
        if isinstance(subject, NetworkSpec):
            return self.scale * sum(map(self.part, pieces_of(subject))) + self.fixed
        return self.part(subject) + self.call

    def __call__(self, subjects: Sequence[Subject], setting: Setting, heard: Heard) -> Measured:
        heard(1.0)
        seen = {name: getattr(setting, name) for name in ("backend", "threads", "batch", "length")}
        about = Fingerprint(processor="made up", cores=1, system="none", torch="0", dtype="float32", **seen)
        return Measured(tuple(timing([self.seconds(subject)] * 3) for subject in subjects), about, ("busy",))


def test_a_device_that_is_a_line_is_found_exactly() -> None:
    heard: list[float] = []
    table = build_profile("made-up", served(), Setting(length=16), 10, 30, Device(1.3, 2e-4), heard.append)
    assert (table.scale, table.fixed) == (pytest.approx(1.3, rel=1e-6), pytest.approx(2e-4, rel=1e-6))
    assert table.held_out and table.held_out.mape < 1e-6 and table.held_out.n == 30 and table.calibrated_on == 10
    assert table.held_out.spearman == pytest.approx(1) and table.held_out.kendall == pytest.approx(1)
    assert table.call < 1e-9 and table.warnings == ("busy",) and heard == [1.0] and table.fingerprint.length == 16


def test_what_a_call_costs_is_not_counted_with_every_part() -> None:
    table = build_profile("made-up", served(), Setting(length=16), 12, 30, Device(1.1, 2e-4, 5e-5))
    assert (table.scale, table.fixed, table.call) == tuple(pytest.approx(value, rel=1e-6) for value in (1.1, 2e-4, 5e-5))
    assert table.held_out and table.held_out.mape < 1e-6
    few = build_profile("made-up", served(), Setting(length=16), ENOUGH - 1, 30, Device(1.1, 2e-4, 5e-5))
    assert few.call == 0 and few.held_out and few.held_out.mape > 0.01, "too few networks to tell"


@pytest.mark.parametrize(("factor", "slower"), [(1.2, 1.2), (0.9, 0.9), (1.02, 1.0)])
def test_a_network_measured_while_the_machine_is_slow_counts_as_on_an_idle_one(factor: float, slower: float) -> None:
    idle, some = Device(1.3, 2e-4), served()

    def now(subjects: Sequence[Subject], setting: Setting, heard: Heard) -> Measured:
        measured = idle(subjects, setting, heard)
        return replace(measured, timings=tuple(timing([factor * t.mean] * 3) for t in measured.timings))

    table = build_profile("made-up", some, Setting(length=16), 10, 0, idle)
    networks = [one.spec(one.space.largest()) for one in some]
    found, warnings = time_here(networks, table, 1.0, now)
    assert [one.slower for one in found] == pytest.approx([slower] * 3) and warnings == ("busy",)
    assert [one.seconds for one in found] == pytest.approx([idle.seconds(network) * factor / slower for network in networks])
    unknown = table.model_copy(update={"parts": {}})
    assert time_here(networks, unknown, 1.0, now)[0][0].slower == 1, "nothing to compare with"


def test_a_profile_knows_every_network_of_its_spaces_and_no_other() -> None:
    table = build_profile("made-up", served(), Setting(length=16), 2, 2, Device(1, 0))
    rng = random.Random(1)
    for one in served():
        for _ in range(100):
            assert table.network(one.spec(one.space.sample(rng))) > 0
    wider = NasBertSpace(sublayers=4, blocks=2, hidden_sizes=(64,), embedding_sizes=(16,), head_size=8, backbone=SHAPE)
    with pytest.raises(UserError, match="was not measured"):
        table.network(wider.spec(wider.smallest(), SHAPE, PAIR))


@pytest.mark.parametrize("which", [0, 1, 2], ids=["nasbert", "dynabert", "adabert"])
def test_costs_of_every_method_speak_of_the_device(which: int) -> None:
    one = served()[which]
    table = build_profile("made-up", [one], Setting(length=16), 2, 2, Device(1.5, 1e-3))
    architecture = one.space.smallest()
    costs = CostFunction(one.space, SHAPE, PAIR, devices={"made-up": table})(architecture)
    assert costs.measured_against()["max_latency.made-up"] == table.network(one.spec(architecture))


def test_adaberts_exact_search_adds_latency_up_as_the_table_does() -> None:
    space = AdaBertSpace()
    table = build_profile("made-up", [Served(space, SHAPE, PAIR)], Setting(length=16), 2, 2, Device(1.5, 1e-3))
    cost_of = CostFunction(space, SHAPE, PAIR, devices={"made-up": table})
    parts = CostTable.of(space, cost_of).columns(["max_latency.made-up"])
    rng, operations = random.Random(0), list(space.options.operations)
    for architecture in [space.sample(rng) for _ in range(20)]:
        spec = cost_of.spec(architecture)
        cells = spec.encoder.count  # type: ignore[attr-defined]
        edges = [edge.operation.to_dict() for node in spec.encoder.cell.nodes for edge in node]  # type: ignore[attr-defined]
        named = {json.dumps(_operation(cost_of, space, name)): name for name in operations}
        steps = sum(parts.steps[cells - 1, operations.index(named[json.dumps(edge)]), 0] for edge in edges)
        assert parts.base[cells - 1, 0] + steps == pytest.approx(table.network(spec))


def _operation(cost_of: CostFunction, space: AdaBertSpace, name: str) -> Any:
    return cost_of.spec(space.uniform(1, name)).encoder.cell.nodes[0][0].operation.to_dict()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("space", "head"),
    [(nasbert(), PAIR), (nasbert(), Head("mlm")), (ElasticSpace(DynaBertSpace(SHAPE)), PAIR), (AdaBertSpace(), PAIR)],
)
def test_every_piece_of_a_space_is_found(space: SearchSpace, head: Head) -> None:
    one, rng = Served(space, SHAPE, head), random.Random(0)
    drawn = ({choice.name: rng.choice(choice.values) for choice in space.choices} for _ in range(2000))
    assert pieces_of_space(one).keys() == distinct_pieces(one.spec(space.decode(values)) for values in drawn).keys()


def test_a_method_that_nobody_knew_is_covered() -> None:
    one = Served(ToySpace(), SHAPE, PAIR)
    assert sum("self_attention" in key for key in pieces_of_spaces([one])) == 3


def test_random_networks_are_distinct_and_of_every_space() -> None:
    some = random_networks(served(), 30, random.Random(0))
    assert len(set(some)) == 30 and {type(spec.encoder).kind for spec in some} == {"chain", "cell_stack"}
    assert len(random_networks([Served(ToySpace(), SHAPE, PAIR)], 30, random.Random(0))) == 3


def test_few_networks_are_divided() -> None:
    table = build_profile("toy", [Served(ToySpace(), SHAPE, PAIR)], Setting(length=16), 20, 50, Device(2.0, 1e-3))
    assert table.calibrated_on == 2 and table.held_out and table.held_out.n == 1
    assert table.scale == pytest.approx(2.0) and table.held_out.kendall is None


@pytest.mark.parametrize(
    ("setting", "said"), [(Setting(backend="abacus"), "--backend abacus: .* torch"), (Setting(length=33), "--length 33: .* 32 tokens")]
)
def test_what_cannot_be_measured_is_refused(setting: Setting, said: str) -> None:
    with pytest.raises(UserError, match=said):
        build_profile("made-up", served(), setting, measure=Device(1, 0))


@given(st.floats(0.2, 5), st.floats(0, 1), st.integers(0, 1000))
def test_fit_does_not_follow_outliers(scale: float, fixed: float, seed: int) -> None:
    x = np.random.default_rng(seed).uniform(1, 10, 20)
    y = scale * x + fixed
    y[3] *= 5
    found = fit(x.tolist(), y.tolist())
    assert found[:2] == (pytest.approx(scale, rel=0.02, abs=0.01), pytest.approx(fixed, abs=0.05))


def test_fit_without_a_line() -> None:
    assert fit([], []) == Line(1.0)
    assert fit([2.0, 2.0], [3.0, 3.0]) == (pytest.approx(1.5), 0.0, 0.0)
    scale, fixed, call = fit([1.0, 2.0, 3.0], [0.5, 2.0, 3.5])
    assert scale > 0 and fixed == call == 0.0
    alike = [float(i) for i in range(1, 13)]
    assert fit(alike, [2 * x for x in alike], list(range(1, 13))) == (pytest.approx(2), pytest.approx(0), 0.0), "a count that is the sum"


def test_error_by_hand() -> None:
    error = held_out_error([1.0, 2.0, 4.0], [2.0, 1.0, 4.0])
    assert error and error.mape == pytest.approx((0.5 + 1 + 0) / 3)
    assert error.kendall == pytest.approx(1 / 3) and error.spearman == pytest.approx(0.5)
    assert held_out_error([], []) is None


def test_measure_interleaves_and_keeps_to_its_time() -> None:
    now, order = [0.0], []

    def call(name: int, seconds: float) -> None:
        order.append(name)
        now[0] += seconds

    heard: list[float] = []
    calls = [lambda: call(0, 1.0), lambda: call(1, 3.0)]
    runs = measure(calls, 60, 0, Rounds(2, 50), by_clock(lambda: now[0] / 2), wall=lambda: now[0], heard=heard.append)
    assert runs.durations == [[0.5] * 6, [1.5] * 6] and runs.waited == pytest.approx(0.5)
    assert order[:6] == [0] * 3 + [1] * 3
    assert all(order[i : i + 4] in ([0, 0, 1, 1], [1, 1, 0, 0]) for i in range(6, 30, 4)), "each runs once before it is timed"
    assert now[0] == 60 and heard == sorted(heard) and heard[-1] == 1.0
    assert len(measure(calls, 0.1, 0, Rounds(2, 50), wall=lambda: now[0]).durations[0]) == 2
    assert len(measure(calls, 1e9, 0, Rounds(2, 7), wall=lambda: now[0]).durations[0]) == 7


def test_a_mean_is_of_the_middle() -> None:
    found = timing([100.0, *[2.0] * 4, *[4.0] * 4, 0.001])
    assert found.mean == 3.0 and found.n == 10 and found.p50 == 3.0 and found.std > 20
    assert found.p10 < 2.0 and found.p90 > 4.0


def test_signs_of_a_busy_machine() -> None:
    still, restless = timing([1.0] * 10), timing([1.0, 2.0] * 10)
    assert signs_of_a_busy_machine([still], 2, 2.4, 0.05) == [] == signs_of_a_busy_machine([still], 2, None)
    assert "load average was 2.6" in signs_of_a_busy_machine([still], 2, 2.6)[0]
    assert "spread" in signs_of_a_busy_machine([restless, restless, still], 1, None)[0]
    assert "60%" in signs_of_a_busy_machine([still], 1, None, 0.6)[0]


def some_subjects() -> list[Subject]:
    """Every piece of the three spaces, and a network of each."""
    specs = [one.spec(one.space.smallest()) for one in served()]
    return [*pieces_of_spaces(served()).values(), *specs, *pieces_of_spaces([Served(nasbert(), SHAPE, Head("mlm"))]).values()]


def test_every_subject_survives_json_and_runs() -> None:
    import torch

    subjects = some_subjects()
    import_parts(modules_of(subjects))
    for subject in subjects:
        assert from_dict(json.loads(json.dumps(to_dict(subject)))) == subject
        modules, arguments = prepared(subject, 2, 7)
        assert len(modules) == copies(subject)
        with torch.inference_mode():
            assert all(module(*arguments) is not None and not module.training for module in modules)


def test_pieces_do_the_work_of_their_network() -> None:
    for one in served():
        spec = one.spec(one.space.largest())
        assert sum(flops(piece, 16) for piece in pieces_of(spec)) == flops(spec, 16)


def test_groups_hold_everything_once_and_fit() -> None:
    sizes = [5, 9, 1, 1, 20, 3, 4]
    found = list(groups(sizes, 10, 0))
    assert sorted(i for group in found for i in group) == list(range(7))
    assert all(len(group) == 1 or sum(sizes[i] for i in group) <= 10 for group in found)


def test_groups_are_measured_in_the_order_of_the_subjects() -> None:
    subjects = some_subjects()[:6]
    timings, _ = timed(subjects, asdict(Setting(length=8, seconds=0.2)), room=1)
    assert len(timings) == 6 and all(t.mean > 0 and t.n >= 5 for t in timings)


def test_a_worker_measures_tiny_parts(tmp_path: Path) -> None:
    one = Served(ToySpace(), SHAPE, PAIR)
    pieces = list(distinct_pieces([one.spec(one.space.smallest())]).values())
    heard: list[float] = []
    measured = measure_apart(pieces, Setting(length=8, seconds=0.3), heard.append)
    assert len(measured.timings) == len(pieces) and all(0 < t.p10 <= t.p50 <= t.p90 < 60 for t in measured.timings)
    assert (measured.fingerprint.threads, measured.fingerprint.length, measured.fingerprint.clock) == (1, 8, "processor")
    assert heard and 0 < heard[-1] <= 1
    timings = {key_of(piece): t for piece, t in zip(pieces, measured.timings, strict=True)}
    about = {"scale": 1, "fixed": 0, "calibrated_on": 0, "held_out": None, "measured_at": "today"}
    table = LatencyTable(name="here", fingerprint=measured.fingerprint, parts=timings, **about)
    table.save(tmp_path / "here.json")
    assert LatencyTable.load(tmp_path / "here.json").network(one.spec(one.space.smallest())) > 0


def test_a_worker_that_fails_says_so(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch.py").write_text("raise RuntimeError('this torch is broken')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RuntimeError, match="ended with 1"):
        measure_apart([], Setting())
    assert "this torch is broken" in capfd.readouterr().err


def feed_forwards(count: int) -> dict[str, Piece]:
    return {key_of(piece): piece for n in range(1, count + 1) for piece in FeedForward(48, 32 * n).pieces()}


def test_all_parts_are_timed_where_there_is_time() -> None:
    assert thinned(feed_forwards(40), [], Setting(length=16, seconds=300)) == {}


def test_of_too_many_parts_a_grid_is_timed_and_neighbours_give_the_rest() -> None:
    pieces, stem = feed_forwards(41), distinct_pieces([served()[1].spec(served()[1].space.smallest())])
    between = thinned({**pieces, **stem}, [], Setting(length=16, seconds=0.2))
    assert between and not between.keys() & stem.keys(), "families of one are left alone"
    sizes = {key: piece.part.neurons for key, piece in pieces.items()}  # type: ignore[attr-defined]
    assert {32, 32 * 41} <= {sizes[key] for key in pieces.keys() - between.keys()}
    assert all(sizes[key] == pytest.approx((1 - b.share) * sizes[b.low] + b.share * sizes[b.high]) for key, b in between.items())
    assert not {neighbour for b in between.values() for neighbour in (b.low, b.high)} & between.keys()


def test_interpolated_parts_count_as_such_and_are_exact_on_a_line() -> None:
    one = Served(ElasticSpace(DynaBertSpace(replace(SHAPE, heads=16, hidden=64, intermediate=256))), SHAPE, PAIR)
    table = build_profile("made-up", [one], Setting(length=16, seconds=0.05), 5, 20, Device(1.2, 1e-4))
    assert table.interpolated and not table.interpolated.keys() & table.parts.keys()
    assert table.held_out and table.held_out.mape < 1e-6, "the made-up device is linear in neurons and heads"
    assert LatencyTable.model_validate_json(table.model_dump_json()) == table


def test_every_compiled_module_keeps_code_of_its_own() -> None:
    import torch
    from torch._dynamo.testing import CompileCounter

    counter = CompileCounter()
    backend = Compiled(counter)
    calls = [backend.prepare(torch.nn.Linear(4, n), (torch.ones(1, 4),)) for n in range(1, 12)]
    for call in calls:
        call()
    assert counter.frame_count == len(calls)


def test_a_missing_compiler_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match=r"--backend torch-compile: needs a C\+\+ compiler"):
        check_backend("torch-compile")
