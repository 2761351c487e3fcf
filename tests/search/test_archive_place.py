"""Where an archive lies: damaged files, older schemas, URLs, folders that can't be written."""

from __future__ import annotations

import codecs
import multiprocessing
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from methods.errors import UserError
from methods.recipe import StageRecord
from search.archive import Archive
from search.tables import StageRow
from tests.search.numbered import BASE, numbered, predictions


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
    codecs.lookup("cp437")  # of NumPy's archives; what Python loads late may lie where nobody may read
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


@contextmanager
def as_owner(folder: Path) -> Iterator[None]:
    """May write into the folder of `as_nobody`."""
    privileged, mode = os.getuid() == 0, folder.stat().st_mode
    if privileged:
        os.seteuid(0)
    folder.chmod(0o755)
    try:
        yield
    finally:
        folder.chmod(mode)
        if privileged:
            os.seteuid(65534)


def test_a_read_only_folder_is_named(as_nobody: Path) -> None:
    for path in (as_nobody / "archive.db", as_nobody / "run" / "archive.db"):
        with pytest.raises(UserError, match=str(as_nobody)):
            Archive(path)
    assert list(as_nobody.iterdir()) == []


def test_an_archive_in_a_read_only_folder_is_read(tmp_path: Path, as_nobody: Path) -> None:
    folder = as_nobody / "run"
    with as_owner(as_nobody):
        with Archive(folder / "archive.db") as archive:
            archive.add(BASE, predictions(0.5))
        folder.chmod(0o555)
    with Archive(folder / "archive.db", create=False) as archive:
        told = archive.predictions(BASE.key)
        assert archive.measurements() == [BASE] and told is not None and (told.logits == 0.5).all()
        with pytest.raises(UserError, match=r"archive\.db"):
            archive.add(numbered(1))
    assert {path.name for path in folder.iterdir()} == {"archive.db", "predictions"}


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
