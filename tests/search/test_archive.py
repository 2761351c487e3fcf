"""The archive: what is measured is kept once, is never lost or overwritten, and comes back equal."""

from __future__ import annotations

import multiprocessing
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import IntegrityError

from methods.costs import Costs
from methods.errors import UserError
from methods.recipe import StageRecord
from methods.space import Architecture
from search.archive import Archive
from search.measurement import Measurement
from search.predictions import Predictions
from search.tables import SearchRow, StageRow
from tests.search.numbered import BASE, numbered, predictions


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    with Archive(tmp_path / "archive.db") as opened:
        yield opened


words = st.text(max_size=20)
counts = st.integers(0, 2**62)
sizes = st.integers(1, 10**6)
numbers = st.floats(allow_nan=False)
names = st.text(min_size=1, max_size=10)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)
measurements = st.builds(
    lambda metric, metrics, **facts: Measurement(metric=metric, metrics={**metrics, metric: 0.25}, **facts),
    architecture=st.builds(Architecture.of, words, st.dictionaries(names, json_values, max_size=4)),
    task=words,
    split=words,
    split_digest=words,
    weights_digest=words,
    kind=st.sampled_from(["predicted", "shared", "assembled", "finished", "control"]),
    seed=st.integers(-(2**62), 2**62),
    metric=names,
    metrics=st.dictionaries(names, numbers, max_size=3),
    costs=st.builds(Costs, counts, counts, counts, sizes, sizes, st.dictionaries(names, numbers, max_size=2)),
    control=words,
    seconds=st.floats(0, 1e9),
    created=words,
)


@settings(max_examples=25, deadline=None)
@given(st.lists(measurements, max_size=6, unique_by=lambda m: m.key))
def test_measurements_come_back_equal_and_in_order(made: list[Measurement]) -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        with Archive(folder / "archive.db") as archive:
            assert all(archive.add(m) for m in made)
        with Archive(folder / "archive.db") as archive:
            assert archive.measurements() == made
            assert [archive.get(m.key) for m in made] == made
            assert all(m.created for m in archive.measurements())
    finally:
        shutil.rmtree(folder)


def test_numpy_numbers_are_plain_numbers_afterwards(archive: Archive) -> None:
    costs = Costs(np.int64(10), np.int64(20), np.int64(300))
    archive.add(replace(BASE, metrics={"accuracy": np.float32(0.5)}, costs=costs, seed=np.int64(0)))
    assert archive.get(BASE.key) == BASE


def test_a_key_is_kept_once_and_never_changed(archive: Archive) -> None:
    assert archive.add(BASE, predictions(0.5))
    again = replace(BASE, metrics={"accuracy": 0.9}, seed=3, control="other", costs=Costs(1, 1, 1))
    assert not archive.add(again, predictions(0.9))
    assert archive.measurements() == [BASE]
    kept = archive.predictions(BASE.key)
    assert kept is not None and (kept.logits == 0.5).all()


@pytest.mark.parametrize(
    "change",
    [
        {"architecture": Architecture.of("toy", {"width": 1})},
        {"task": "rte"},
        {"split_digest": "t"},
        {"weights_digest": "v"},
        {"kind": "finished"},
    ],
)
def test_every_part_of_the_key_tells_measurements_apart(change: dict[str, Any], archive: Archive) -> None:
    other = replace(BASE, **change)
    assert archive.add(BASE)
    assert archive.find(*other.key) is None
    assert archive.add(other)
    assert archive.find(*BASE.key) == BASE and archive.find(*other.key) == other


def test_measurements_are_filtered(archive: Archive) -> None:
    made = [
        numbered(i, task=task, method=method, kind=kind, split=split)
        for i, (task, method, kind, split) in enumerate(
            (task, method, kind, split)
            for task in ("sst2", "rte")
            for method in ("toy", "other")
            for kind in ("shared", "finished")
            for split in ("search", "validation")
        )
    ]
    for m in made:
        archive.add(m)
    assert archive.measurements(task="rte") == [m for m in made if m.task == "rte"]
    assert archive.measurements(method="other", kind="finished") == [
        m for m in made if m.architecture.method == "other" and m.kind == "finished"
    ]
    assert archive.measurements("sst2", "toy", "shared", "validation") == made[1:2]
    assert archive.measurements(task="none") == []


def test_predictions_come_back_bit_equal(archive: Archive) -> None:
    logits = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    archive.add(numbered(1), Predictions(np.array(["a", "b", "c", "d", "é"]), logits))
    archive.add(numbered(2), predictions(0.25))
    archive.add(numbered(3))
    first, second = (archive.predictions(numbered(i).key) for i in (1, 2))
    assert first is not None and first.ids.tolist() == ["a", "b", "c", "d", "é"] and first.labels is None
    assert first.logits.dtype == np.float32 and first.logits.tobytes() == logits.tobytes()
    assert second is not None and second.labels is not None and second.labels.tolist() == [0, 1, 0, 1]
    assert archive.predictions(numbered(3).key) is None


def test_what_can_not_be_written_leaves_no_row(archive: Archive, tmp_path: Path) -> None:
    (tmp_path / "predictions").write_text("a file where the folder should be")
    with pytest.raises(UserError, match=f"{tmp_path / 'predictions'}: can't be written"):
        archive.add(BASE, predictions(0.5))
    assert archive.measurements() == []
    assert archive.add(BASE)


def test_no_half_written_predictions_stay_behind(archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(UserError, match="No space left"):
        archive.add(BASE, predictions(0.5))
    assert list((tmp_path / "predictions").iterdir()) == []


def test_damaged_predictions_are_named(archive: Archive, tmp_path: Path) -> None:
    archive.add(BASE, predictions(0.5))
    (file,) = (tmp_path / "predictions").iterdir()
    for damage in (b"", b"not a file of arrays", file.read_bytes()[:-40]):
        file.write_bytes(damage)
        with pytest.raises(UserError, match=f"{file.name}: damaged predictions; remove the file") as caught:
            archive.predictions(BASE.key)
        assert "pickle" not in str(caught.value), "no advice to load what may execute code"


def test_predictions_that_can_execute_code_are_not_read(archive: Archive, tmp_path: Path) -> None:
    archive.add(BASE, predictions(0.5))
    (file,) = (tmp_path / "predictions").iterdir()
    np.savez(file, ids=np.array([object()]), logits=np.zeros((1, 2)))
    with pytest.raises(UserError, match="damaged predictions") as caught:
        archive.predictions(BASE.key)
    assert "allow_pickle=False" in str(caught.value.__cause__)


@pytest.mark.parametrize("ids", [np.arange(3), np.zeros((2, 2), dtype=int), np.zeros(2)])
def test_predictions_are_one_row_per_example(ids: Any) -> None:
    with pytest.raises(ValueError, match="predictions"):
        Predictions(ids, np.zeros((2, 2), dtype=np.float32))


def test_a_stage_counts_once_with_its_last_record(archive: Archive) -> None:
    archive.record_stage("sst2", "toy", 0, StageRecord("width", 10, 320, 1e15, 2.5))
    archive.record_stage("sst2", "toy", 1, StageRecord("width", 10, 320, 1e15, 2.0))
    archive.record_stage("sst2", "other", 0, StageRecord("width", 1, 2, 3.0, 4.0))
    archive.record_stage("sst2", "toy", 0, StageRecord("width", 20, 640, 2e15, 5.5, 80))
    assert set(archive.stages(method="toy")) == {
        StageRow("sst2", "toy", 0, "width", 20, 640, 2e15, 5.5, 80),
        StageRow("sst2", "toy", 1, "width", 10, 320, 1e15, 2.0),
    }
    assert len(archive.stages()) == 3 and archive.stages(task="rte") == []


def test_a_search_counts_with_its_last_record(archive: Archive) -> None:
    first = SearchRow("sst2", "toy", 0, "tpe", "max_flops 1G", 100, 12.5, 3e12)
    grown = replace(first, evaluations=150, flops=4e12)
    for search in (first, replace(first, seed=1), grown):
        archive.record_search(search)
    assert archive.searches(task="sst2", method="toy") == [replace(first, seed=1), grown]


def test_searches_recorded_together_replace_those_before(archive: Archive) -> None:
    first = SearchRow("sst2", "toy", 0, "exhaustive", "max_flops 1G", 100, 12.5, 3e12)
    others = [replace(first, seed=1), replace(first, method="other"), replace(first, task="rte")]
    for search in (first, *others):
        archive.record_search(search)
    now = [replace(first, budget=""), replace(first, budget="max_flops 2G")]
    archive.record_searches(now)
    assert archive.searches() == [*others, *now]


def test_a_row_without_a_value_is_an_error_and_no_repetition(archive: Archive) -> None:
    with pytest.raises(IntegrityError):
        archive.add(replace(BASE, task=None))
    assert archive.measurements() == []


def write(folder: str, start: int, stop: int, ready: Any, results: Any) -> None:
    """One of several processes: adds measurements with its own mark and says how many were new."""
    ready.wait()
    with Archive(Path(folder) / "archive.db") as archive:
        added = [i for i in range(start, stop) if archive.add(numbered(i, control=f"{start}"), predictions(start, 2))]
        archive.record_stage("sst2", "toy", 0, StageRecord("width", stop, 0, 0.0, 0.0))
    results.put((start, added))


def test_two_processes_write_at_once(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    ready, results = spawn.Barrier(2), spawn.Queue()
    ranges = [(0, 60), (30, 90)]
    workers = [spawn.Process(target=write, args=(str(tmp_path), *span, ready, results)) for span in ranges]
    for worker in workers:
        worker.start()
    added = dict(results.get(timeout=60) for _ in workers)
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert sorted(added[0] + added[30]) == list(range(90))
    with Archive(tmp_path / "archive.db") as archive:
        kept = archive.measurements()
        assert len(kept) == 90
        for m in kept:
            mark = int(m.control)
            assert m.architecture.choices["width"] in added[mark]
            told = archive.predictions(m.key)
            assert told is not None and (told.logits == mark).all()
        assert len(archive.stages()) == 1


def test_notes_are_kept_by_name_and_replaced(tmp_path: Path) -> None:
    with Archive(tmp_path / "archive.db") as archive:
        assert archive.notes() == {}
        archive.note("b", "first")
        archive.note("a", "other")
        archive.note("b", "second")
        assert archive.notes() == {"a": "other", "b": "second"}
    with Archive(tmp_path / "archive.db") as again:
        assert again.notes() == {"a": "other", "b": "second"}
