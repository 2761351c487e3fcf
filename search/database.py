"""Opening the archive's database: what is there is looked at first and changed only if it is an archive of this version."""

from __future__ import annotations

import os
import re
import sqlite3
import time
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Column, Connection, Engine, Table, create_engine, event, insert, inspect, make_url, select, update
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.schema import CreateColumn, CreateIndex, CreateSchema, CreateTable

from methods.errors import UserError
from search.tables import META, METADATA, SCHEMA_VERSION, UPGRADED_VERSIONS

BUSY_SECONDS = 60
CONNECT_SECONDS = 10
"""So long a server may take to answer."""
_PAUSE = 0.05
_VERSION_KEY = "schema_version"


def open_database(location: str | Path, create: bool) -> tuple[Engine, str, Path | None]:
    """An engine on a database with the archive's tables, the name that messages give it, and the path of its file if it is one.

    `?schema=NAME` in the URL of a PostgreSQL server: the archive's tables are those of that schema, which is made where it is not there.
    """
    url = _url(location)
    path = Path(url.database) if url.get_backend_name() == "sqlite" and url.database else None
    name, schema = str(path) if path else _shown(url), _schema(url)
    still = path is not None and not create and _is_still(path)
    if path:
        _look(path, name, create, still)
    engine = _engine(url.set(database=_as_uri(path, still), query={"uri": "true"}) if path and still else url, name)
    if path:
        event.listen(engine, "connect", _by_hand if still else _use_write_ahead_log)
        event.listen(engine, "begin", _begin)
    try:
        _prepare(engine, name, create, schema)
    except UserError:
        engine.dispose()
        raise
    return engine, name, path


def reach(location: str) -> None:
    """Raises UserError where the server of a database URL does not answer or does not let us in; nothing is made or changed."""
    url = _url(location)
    engine = _engine(url, _shown(url))
    try:
        engine.connect().close()
    except DBAPIError as error:
        raise UserError(f"{_shown(url)}: the archive's database can't be reached ({first_line(error)})") from error
    finally:
        engine.dispose()


def _engine(url: URL, name: str) -> Engine:
    """A connection that the server has closed meanwhile is noticed before it is used; a server that does not answer, after a while."""
    known: dict[str, Any] = {"timeout": BUSY_SECONDS}
    if url.get_backend_name() == "postgresql":
        known = {} if "connect_timeout" in url.query else {"connect_timeout": CONNECT_SECONDS}
        if schema := _schema(url):
            known["options"] = f"-csearch_path={schema}"
    try:
        return create_engine(url.difference_update_query(["schema"]), connect_args=known, pool_pre_ping=url.get_backend_name() != "sqlite")
    except ImportError as error:
        hint = "pip install 'elastibench[postgresql]' brings PostgreSQL's"
        raise UserError(f"{name}: there is no driver for this database ({first_line(error)}); {hint}") from error
    except ArgumentError as error:
        raise UserError(f"{name}: there is no driver for this database ({first_line(error)})") from error


def _schema(url: URL) -> str:
    """The schema that a URL names; '': none."""
    schema = url.query.get("schema", "")
    if not isinstance(schema, str) or (schema and not re.fullmatch("[a-z_][a-z0-9_]*", schema)):
        raise UserError(f"{_shown(url)}: schema: write one name of small letters, digits and '_'")
    return schema


def without_password(location: str) -> str:
    """A database URL as messages may show it."""
    try:
        return _shown(make_url(location))
    except (ArgumentError, ValueError):
        return re.sub("//.*@", "//...@", location)


def _shown(url: URL) -> str:
    """Without a password, wherever it stands."""
    return url.set(query={key: value for key, value in url.query.items() if key == "schema"}).render_as_string(hide_password=True)


def first_line(error: Exception) -> str:
    """What the database itself said, in one line."""
    inner = getattr(error, "orig", None) or error
    return (str(inner).strip() or type(inner).__name__).splitlines()[0]


def _url(location: str | Path) -> URL:
    if isinstance(location, Path) or "://" not in location:
        return URL.create("sqlite", database=str(location))
    try:
        return make_url(location)
    except (ArgumentError, ValueError) as error:
        shown = without_password(location)
        raise UserError(f"archive {shown!r}: neither a path nor a database URL such as postgresql+psycopg://user@host/name") from error


def _is_still(path: Path) -> bool:
    """Whether a file is in a folder where this process may write nothing, not even what SQLite keeps beside a file for its readers, and
    nobody else is writing to it."""
    may_write = os.access(path.parent, os.W_OK, effective_ids=os.access in os.supports_effective_ids)
    return path.is_file() and not may_write and not path.with_name(f"{path.name}-wal").exists()


def _as_uri(path: Path, still: bool) -> str:
    """The file, for reading alone."""
    return f"{path.resolve().as_uri()}?mode=ro{'&immutable=1' if still else ''}"


def _look(path: Path, name: str, create: bool, still: bool) -> None:
    """Reads an existing file without changing a byte of it; makes the folder of one to come."""
    if path.is_file() and path.stat().st_size > 0:
        try:
            connection = sqlite3.connect(_as_uri(path, still), uri=True, timeout=BUSY_SECONDS)
            try:
                tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
                rows = connection.execute("SELECT value FROM meta WHERE key = ?", (_VERSION_KEY,)).fetchall() if "meta" in tables else []
            finally:
                connection.close()
        except sqlite3.OperationalError as error:
            raise UserError(f"{name}: the archive can't be opened ({error}); the file and its folder must be writable") from error
        except sqlite3.Error as error:
            raise UserError(f"{name}: no archive, or a damaged one ({error}); move it away to begin a new one") from error
        if tables:
            _check_version(rows[0][0] if rows else None, name)
    elif not path.exists() and not create:
        raise UserError(f"{name}: there is no archive; `elastibench run` makes one")
    elif path.exists() and not path.is_file():
        raise UserError(f"{name}: this is no file; an archive is one SQLite file")
    else:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{path.parent}: the archive's folder can't be made ({error.strerror or error})") from error


def _check_version(found: str | None, name: str) -> None:
    if found is None:
        raise UserError(f"{name}: a database, but no archive of elastibench")
    if found not in (SCHEMA_VERSION, *UPGRADED_VERSIONS):
        older = ", ".join(UPGRADED_VERSIONS)
        raise UserError(
            f"{name}: an archive of schema version {found}; this release writes version {SCHEMA_VERSION} and reads version {older} besides"
        )


def _use_write_ahead_log(connection: Any, _: object) -> None:
    """Readers and one writer at once. The switch itself fails at once, not after the timeout, while another process switches.

    A commit is handed to the system and not waited for on the disk (20 ms and more each): it outlives the process, killed or not; a power
    cut may take the last ones, never a part of one, and they are made again.
    """
    _by_hand(connection, _)
    give_up = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > give_up:
                raise
            time.sleep(_PAUSE)


def _by_hand(connection: Any, _: object) -> None:
    """Else the driver opens transactions by itself, and none before CREATE TABLE."""
    connection.isolation_level = None


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")


def _prepare(engine: Engine, name: str, create: bool, schema: str) -> None:
    """Makes the tables where there are none, checks their version, and brings an older one up to date where the archive is opened to be
    written. Another process may be doing the same: then look again."""
    give_up = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            with engine.begin() as connection:
                if not inspect(connection).has_table(META.name):
                    if not create:
                        raise UserError(f"{name}: there is no archive in it; `elastibench run` makes one")
                    if schema:
                        connection.execute(CreateSchema(schema, if_not_exists=True))
                    _make_tables(connection)
                found = connection.execute(select(META.c.value).where(META.c.key == _VERSION_KEY)).scalar()
                _check_version(found, name)
                if create and found != SCHEMA_VERSION:
                    _upgrade(connection, str(found))
                if create:
                    _make_missing_tables(connection)
            return
        except (DBAPIError, sqlite3.Error) as error:
            made_elsewhere = any(word in first_line(error).lower() for word in ("already exists", "unique", "locked"))
            if not made_elsewhere or time.monotonic() > give_up:
                raise UserError(f"{name}: the archive can't be opened for writing ({first_line(error)})") from error
            time.sleep(_PAUSE)


def columns_there(connection: Connection, table: Table) -> list[Column[Any]]:
    """The columns of a table that this database has: in an archive of an older version some may be missing, or all."""
    found = inspect(connection)
    names = {column["name"] for column in found.get_columns(table.name)} if found.has_table(table.name) else set()
    return [column for column in table.columns if column.name in names]


def _make_tables(connection: Connection) -> None:
    for table in METADATA.sorted_tables:
        _make_table(connection, table)
    connection.execute(insert(META).values(key=_VERSION_KEY, value=SCHEMA_VERSION))


def _make_missing_tables(connection: Connection) -> None:
    """Those that this release has and an archive of the same version lacks."""
    there = inspect(connection).get_table_names()
    for table in METADATA.sorted_tables:
        if table.name not in there:
            _make_table(connection, table)


def _make_table(connection: Connection, table: Table) -> None:
    connection.execute(CreateTable(table))
    for index in table.indexes:
        connection.execute(CreateIndex(index))


def _upgrade(connection: Connection, found: str) -> None:
    """Adds what this version has and that one lacks, all of it or nothing. Of several processes one does it: the version's row is written
    first, for which the others wait."""
    ours = update(META).where(META.c.key == _VERSION_KEY, META.c.value == found).values(value=SCHEMA_VERSION)
    if not connection.execute(ours).rowcount:
        return
    for table in METADATA.sorted_tables:
        there = {column.name for column in columns_there(connection, table)}
        if not there:
            _make_table(connection, table)
            continue
        for column in table.columns:
            if column.name not in there:
                definition = CreateColumn(column).compile(dialect=connection.dialect)
                connection.exec_driver_sql(f"ALTER TABLE {table.name} ADD COLUMN {definition}")
