"""The archive: what is measured is kept once, is never lost or overwritten, and comes back equal."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sqlite3
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

BASE = Measurement(
    Architecture.of("toy", {"width": 0}), "sst2", "search", "s", "w", "shared", 0, "accuracy", {"accuracy": 0.5}, Costs(10, 20, 300)
)


def numbered(i: int, **changes: Any) -> Measurement:
    architecture = Architecture.of(changes.pop("method", "toy"), {"width": i})
    return replace(BASE, architecture=architecture, metrics={"accuracy": i / 1000}, **changes)


def predictions(value: float, n: int = 4) -> Predictions:
    return Predictions(np.arange(n) + 100, np.full((n, 2), value, dtype=np.float32), np.arange(n) % 2)


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
        with pytest.raises(UserError, match=file.name):
            archive.predictions(BASE.key)


def test_predictions_that_can_execute_code_are_not_read(archive: Archive, tmp_path: Path) -> None:
    archive.add(BASE, predictions(0.5))
    (file,) = (tmp_path / "predictions").iterdir()
    np.savez(file, ids=np.array([object()]), logits=np.zeros((1, 2)))
    with pytest.raises(UserError, match="allow_pickle"):
        archive.predictions(BASE.key)


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


def damaged(path: Path, damage: str) -> None:
    """Leaves a file that is no archive at this path."""
    if damage == "not a database":
        path.write_bytes(b"accuracy,0.9\n" * 300)
    elif damage == "another database":
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE cats (name TEXT)")
        connection.close()
    else:
        with Archive(path) as archive:
            for i in range(200):
                archive.add(numbered(i))
        if damage == "truncated":
            path.write_bytes(path.read_bytes()[:5000])
        elif damage == "overwritten":
            path.write_bytes(b"\0" * 60 + path.read_bytes()[60:])
        else:
            connection = sqlite3.connect(path)
            statement = "DELETE FROM meta" if damage == "no version" else "UPDATE meta SET value = '99' WHERE key = 'schema_version'"
            connection.execute(statement)
            connection.commit()
            connection.close()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("not a database", "damaged one"),
        ("truncated", "damaged one|malformed"),
        ("overwritten", "damaged one"),
        ("another database", "no archive of elastibench"),
        ("no version", "no archive of elastibench"),
        ("newer version", "schema version 99"),
    ],
)
def test_what_is_no_archive_is_named_and_left_alone(damage: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "archive.db"
    damaged(path, damage)
    before = path.read_bytes()
    with pytest.raises(UserError, match=message) as raised:
        Archive(path)
    assert str(path) in str(raised.value)
    assert path.read_bytes() == before


def test_damage_inside_is_named_when_it_is_met(tmp_path: Path) -> None:
    path = tmp_path / "archive.db"
    damaged(path, "nothing yet")
    connection = sqlite3.connect(path)
    connection.execute("UPDATE meta SET value = '2'")
    connection.execute("UPDATE measurements SET metrics = '{' WHERE id = 7")
    connection.commit()
    connection.close()
    with Archive(path) as archive, pytest.raises(UserError, match=r"archive\.db: row 7 of the measurements is damaged"):
        archive.measurements()
    data = bytearray(path.read_bytes())
    data[len(data) // 4 :] = b"\xff" * len(data[len(data) // 4 :])
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"archive\.db"), Archive(path) as archive:
        archive.measurements()


OLD_STAGE = StageRow("sst2", "toy", 0, "width", 10, 320, 1e15, 2.5)
NEW_STAGE = replace(OLD_STAGE, stage="depth", subnetwork_steps=40)


def make_older(connection: Any) -> None:
    """What version 1 left: stages without a count of sub-network steps."""
    connection.execute("ALTER TABLE stages DROP COLUMN subnetwork_steps")
    connection.execute("UPDATE meta SET value = '1' WHERE key = 'schema_version'")
    connection.commit()


@pytest.fixture
def older(tmp_path: Path) -> Path:
    """An archive of version 1 with a measurement and a stage."""
    path = tmp_path / "archive.db"
    with Archive(path) as archive:
        archive.add(BASE)
        archive.record_stage("sst2", "toy", 0, StageRecord("width", 10, 320, 1e15, 2.5))
    connection = sqlite3.connect(path)
    make_older(connection)
    connection.close()
    return path


def schema(path: Path) -> list[Any]:
    connection = sqlite3.connect(path)
    version = connection.execute("SELECT value FROM meta WHERE key = 'schema_version'").fetchall()
    found = [*version, *connection.execute("SELECT name FROM pragma_table_info('stages') ORDER BY name").fetchall()]
    connection.close()
    return found


def test_an_older_archive_is_read_as_it_is_and_upgraded_where_it_is_written(older: Path, tmp_path: Path) -> None:
    before = schema(older)
    with Archive(older, create=False) as archive:
        assert archive.measurements() == [BASE] and archive.stages() == [OLD_STAGE]
    assert schema(older) == before
    with Archive(older) as archive:
        archive.record_stage("sst2", "toy", 0, StageRecord("depth", 10, 320, 1e15, 2.5, 40))
        assert archive.measurements() == [BASE] and archive.stages() == [OLD_STAGE, NEW_STAGE]
    with Archive(tmp_path / "new.db"):
        assert sorted(schema(older)) == sorted(schema(tmp_path / "new.db"))


def test_a_reader_goes_on_while_another_upgrades(older: Path) -> None:
    with Archive(older, create=False) as reader:
        assert reader.stages() == [OLD_STAGE]
        with Archive(older) as writer:
            writer.record_stage("sst2", "toy", 0, StageRecord("depth", 10, 320, 1e15, 2.5, 40))
            assert reader.stages() == [OLD_STAGE, NEW_STAGE]


def test_an_upgrade_that_fails_changes_nothing(older: Path) -> None:
    """The second table to be changed is a view, which takes no columns."""
    connection = sqlite3.connect(older)
    connection.executescript("DROP TABLE searches; ALTER TABLE stages RENAME TO kept; CREATE VIEW stages AS SELECT * FROM kept")
    connection.close()
    before = schema(older)
    with pytest.raises(UserError, match=r"archive\.db: the archive can't be opened for writing"):
        Archive(older)
    assert schema(older) == before
    connection = sqlite3.connect(older)
    tables = connection.execute("SELECT name FROM sqlite_master WHERE name IN ('searches', 'kept')").fetchall()
    connection.close()
    assert tables == [("kept",)]


def open_and_record(path: str, number: int, ready: Any) -> None:
    """One of several processes that open an archive of version 1 at once."""
    ready.wait()
    with Archive(Path(path)) as archive:
        archive.record_stage("sst2", "toy", number, StageRecord("depth", 10, 320, 1e15, 2.5, number))


def test_several_processes_upgrade_an_archive_at_once(older: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    ready = spawn.Barrier(3)
    workers = [spawn.Process(target=open_and_record, args=(str(older), number, ready)) for number in (1, 2, 3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    with Archive(older) as archive:
        assert sorted(row.subnetwork_steps for row in archive.stages()[1:]) == [1, 2, 3]


def test_a_folder_is_no_archive(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no file"):
        Archive(tmp_path)


def test_reading_makes_no_archive(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no archive"):
        Archive(tmp_path / "run" / "archive.db", create=False)
    assert list(tmp_path.iterdir()) == []
    with Archive(tmp_path / "run" / "archive.db") as archive:
        archive.add(BASE)
    with Archive(tmp_path / "run" / "archive.db", create=False) as archive:
        assert archive.measurements() == [BASE]


@pytest.fixture
def as_nobody() -> Iterator[Path]:
    """A folder that can't be written to, and a process that is not allowed everything."""
    folder = Path(tempfile.mkdtemp())
    privileged = os.geteuid() == 0
    folder.chmod(0o555)
    if privileged:
        os.seteuid(65534)
    yield folder
    if privileged:
        os.seteuid(0)
    folder.chmod(0o755)
    shutil.rmtree(folder)


def test_a_read_only_folder_is_named(as_nobody: Path) -> None:
    for path in (as_nobody / "archive.db", as_nobody / "run" / "archive.db"):
        with pytest.raises(UserError, match=str(as_nobody)):
            Archive(path)
    assert list(as_nobody.iterdir()) == []


@pytest.mark.parametrize("location", ["nosuchdatabase://host/name", "sqlite+nosuchdriver:///x.db", "://"])
def test_a_wrong_url_is_named(location: str) -> None:
    with pytest.raises(UserError):
        Archive(location)


def test_a_password_is_not_shown() -> None:
    with pytest.raises(UserError) as raised:
        Archive("nosuchdatabase://me:secret@host/name")
    assert "secret" not in str(raised.value)


def test_a_url_names_the_same_file_as_a_path(tmp_path: Path) -> None:
    with Archive(f"sqlite:///{tmp_path / 'archive.db'}") as archive:
        archive.add(BASE, predictions(0.5))
    with Archive(tmp_path / "archive.db") as archive:
        assert archive.measurements() == [BASE] and archive.predictions(BASE.key) is not None


def test_an_archive_without_a_folder_keeps_no_predictions(tmp_path: Path) -> None:
    with Archive("sqlite://") as archive:
        assert archive.add(numbered(1))
        with pytest.raises(UserError, match="folder for predictions"):
            archive.add(numbered(2), predictions(0.5))
        assert archive.measurements() == [numbered(1)]
    with Archive("sqlite://", folder=tmp_path) as archive:
        assert archive.add(numbered(2), predictions(0.5)) and archive.predictions(numbered(2).key) is not None


def test_notes_are_kept_by_name_and_replaced(tmp_path: Path) -> None:
    with Archive(tmp_path / "archive.db") as archive:
        assert archive.notes() == {}
        archive.note("b", "first")
        archive.note("a", "other")
        archive.note("b", "second")
        assert archive.notes() == {"a": "other", "b": "second"}
    with Archive(tmp_path / "archive.db") as again:
        assert again.notes() == {"a": "other", "b": "second"}
