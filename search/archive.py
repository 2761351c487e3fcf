"""`Archive`: every measurement ever made, in a database, with its per-example predictions beside it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, Table, and_, bindparam, delete, insert, select
from sqlalchemy.exc import DBAPIError, IntegrityError

from methods.errors import UserError
from methods.recipe import StageRecord
from search.columns import NUMBERS, TEXTS, Columns, Gathered
from search.database import columns_there, first_line, open_database
from search.measurement import Key, Kind, Measurement
from search.predictions import Predictions, file_name
from search.stopping import Stopped
from search.tables import (
    KEY,
    MEASUREMENTS,
    META,
    SEARCH_KEY,
    SEARCHES,
    STAGE_KEY,
    STAGES,
    STOPPED,
    SearchRow,
    StageRow,
    from_row,
    from_stopped_row,
    to_row,
    to_stopped_row,
)

_NOTE = "note: "
_CHUNK = 10_000
"""Rows that are read, or asked for, at a time."""
_INSERT = insert(MEASUREMENTS)
_OF_KEY = select(MEASUREMENTS).where(*(MEASUREMENTS.c[name] == bindparam(name) for name in KEY))
"""Made once: putting a statement together takes longer than executing it."""


class Archive:
    """`location`: the path of an SQLite file, or a SQLAlchemy URL (`postgresql+psycopg://...`).

    Several processes may read and write at once. Predictions lie in `<folder>/predictions`; the folder is the database file's own
    unless given. Raises UserError, with nothing changed, where the file is no archive, is damaged, or can't be written; with
    `create=False` also where there is none yet. An archive of an older version is upgraded in place, with `create=False` only read.
    """

    def __init__(self, location: str | Path, folder: Path | None = None, create: bool = True) -> None:
        self._engine, self.name, path = open_database(location, create)
        self.folder = folder or (path.parent if path else None)

    def close(self) -> None:
        """Gives the database's connections back; the archive opens new ones when used again."""
        self._engine.dispose()

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def add(self, measurement: Measurement, predictions: Predictions | None = None) -> bool:
        """Keeps a measurement, in one commit. False, and nothing is changed, where its key is there already."""
        created = measurement.created or datetime.now(UTC).isoformat(timespec="seconds")
        try:
            with self._transaction() as connection:
                # The row first: it holds the key against other processes while the file is written, and vanishes if that fails.
                connection.execute(_INSERT, to_row(replace(measurement, created=created)))
                if predictions is not None:
                    self._save(measurement.key, predictions)
        except IntegrityError:
            if self.get(measurement.key) is None:
                raise
            return False
        return True

    def get(self, key: Key) -> Measurement | None:
        """The measurement of that key, if there is one."""
        with self._transaction() as connection:
            found = connection.execute(_OF_KEY, dict(zip(KEY, key, strict=True))).mappings().first()
        return self._measurement(dict(found)) if found else None

    def find(self, architecture_id: str, task: str, split_digest: str, weights_digest: str, kind: Kind) -> Measurement | None:
        """`get` with the parts of the key by name."""
        return self.get((architecture_id, task, split_digest, weights_digest, kind))

    def measurements(
        self, task: str | None = None, method: str | None = None, kind: Kind | None = None, split: str | None = None
    ) -> list[Measurement]:
        """All measurements, or those of one task, method, kind and split, in the order in which they were added."""
        wanted = {"task": task, "method": method, "kind": kind, "split": split}
        rows = self._rows(MEASUREMENTS, {name: value for name, value in wanted.items() if value is not None})
        return [self._measurement(row) for row in rows]

    def columns(self, task: str | None = None, method: str | None = None) -> Columns:
        """The same as arrays, ready to be queried, of one task and method where named; measurements are read one by one when asked for."""
        names = ("id", "architecture_id", *TEXTS[1:], *NUMBERS, "quality", "latency")
        query = select(*(MEASUREMENTS.c[name] for name in names)).order_by(MEASUREMENTS.c.id)
        for name, value in _given(task, method).items():
            query = query.where(MEASUREMENTS.c[name] == value)
        places: list[npt.NDArray[np.int64]] = []

        def fetch(rows: npt.NDArray[np.int64]) -> list[Measurement]:
            return self._with_ids(np.concatenate(places)[rows].tolist())

        gathered = Gathered(fetch)
        with self._transaction() as connection:
            result = connection.execution_options(yield_per=_CHUNK).execute(query)
            for chunk in result.partitions():
                read = dict(zip(names, zip(*chunk, strict=True), strict=True))
                places.append(np.array(read["id"], dtype=np.int64))
                texts = {**{name: read[name] for name in TEXTS[1:]}, "run": ("",) * len(chunk)}
                latency = [json.loads(text) if len(text) > 2 else {} for text in read["latency"]]
                gathered.add(read["architecture_id"], texts, {name: read[name] for name in NUMBERS}, read["quality"], latency)
        return gathered.columns().grouped()

    def _with_ids(self, ids: list[int]) -> list[Measurement]:
        """The measurements of these row ids, in that order."""
        rows: dict[int, dict[str, Any]] = {}
        with self._transaction() as connection:
            for start in range(0, len(ids), _CHUNK):
                some = select(MEASUREMENTS).where(MEASUREMENTS.c.id.in_(ids[start : start + _CHUNK]))
                rows |= {row["id"]: dict(row) for row in connection.execute(some).mappings()}
        return [self._measurement(rows[i]) for i in ids]

    def predictions(self, key: Key) -> Predictions | None:
        """The predictions of a measurement, if they were kept. Raises UserError where their file is damaged."""
        path = self.folder / "predictions" / file_name(key) if self.folder else None
        return Predictions.load(path) if path and path.exists() and self.get(key) is not None else None

    def add_stopped(self, stopped: Stopped) -> None:
        """Keeps that an architecture was stopped; a later stop of the same key takes the place of an earlier one."""
        created = stopped.created or datetime.now(UTC).isoformat(timespec="seconds")
        same = and_(*(STOPPED.c[name] == value for name, value in zip(KEY, stopped.key, strict=True)))
        with self._transaction() as connection:
            connection.execute(delete(STOPPED).where(same))
            connection.execute(insert(STOPPED).values(to_stopped_row(replace(stopped, created=created))))

    def find_stopped(self, key: Key) -> Stopped | None:
        """That the architecture of a measurement's key was stopped, if it was."""
        found = self._rows(STOPPED, dict(zip(KEY, key, strict=True)))
        return from_stopped_row(found[0]) if found else None

    def stopped(self, task: str | None = None, method: str | None = None) -> list[Stopped]:
        """What searches stopped, in the order of stopping."""
        return [from_stopped_row(row) for row in self._rows(STOPPED, _given(task, method))]

    def record_stage(self, task: str, method: str, seed: int, record: StageRecord) -> None:
        """Keeps what a training stage did; a later record of the same stage, its restarts counted in, takes the place of an earlier one."""
        row = {"task": task, "method": method, "seed": seed, **asdict(record)}
        same = and_(*(STAGES.c[name] == row[name] for name in STAGE_KEY))
        with self._transaction() as connection:
            connection.execute(delete(STAGES).where(same))
            connection.execute(insert(STAGES).values(row))

    def stages(self, task: str | None = None, method: str | None = None) -> list[StageRow]:
        """What was recorded of training, in the order of recording."""
        return [StageRow(**_without_id(row)) for row in self._rows(STAGES, _given(task, method))]

    def record_search(self, search: SearchRow) -> None:
        """Keeps what a search cost; a later record of the same search takes the place of an earlier one."""
        self._replace_searches([search], SEARCH_KEY)

    def record_searches(self, searches: Sequence[SearchRow]) -> None:
        """Keeps what all searches of a task, method and seed cost; whatever was recorded of these before is gone."""
        self._replace_searches(searches, ("task", "method", "seed"))

    def _replace_searches(self, searches: Sequence[SearchRow], same: Sequence[str]) -> None:
        with self._transaction() as connection:
            for search in searches:
                connection.execute(delete(SEARCHES).where(*(SEARCHES.c[name] == getattr(search, name) for name in same)))
            for search in searches:
                connection.execute(insert(SEARCHES).values(asdict(search)))

    def searches(self, task: str | None = None, method: str | None = None) -> list[SearchRow]:
        """What was recorded of searches, in the order of recording."""
        return [SearchRow(**_without_id(row)) for row in self._rows(SEARCHES, _given(task, method))]

    def note(self, about: str, text: str) -> None:
        """Keeps one fact that belongs to no single measurement, under a name of its own; a later one takes the place of an earlier one."""
        with self._transaction() as connection:
            connection.execute(delete(META).where(META.c.key == _NOTE + about))
            connection.execute(insert(META).values(key=_NOTE + about, value=text))

    def forget(self, about: str) -> None:
        """Removes the fact that `note` kept under that name, where there is one."""
        with self._transaction() as connection:
            connection.execute(delete(META).where(META.c.key == _NOTE + about))

    def notes(self) -> dict[str, str]:
        """All facts that `note` kept, by name."""
        with self._transaction() as connection:
            rows = connection.execute(select(META).where(META.c.key.startswith(_NOTE)).order_by(META.c.key)).all()
        return {key.removeprefix(_NOTE): value for key, value in rows}

    def _rows(self, table: Table, wanted: Mapping[str, Any]) -> list[dict[str, Any]]:
        with self._transaction() as connection:
            there = columns_there(connection, table)
            if not there:
                return []
            query = select(*there).where(*(table.c[name] == value for name, value in wanted.items())).order_by(table.c.id)
            return [dict(row) for row in connection.execute(query).mappings()]

    def _measurement(self, row: Mapping[str, Any]) -> Measurement:
        try:
            return from_row(row)
        except (ValueError, TypeError) as error:
            raise UserError(f"{self.name}: row {row['id']} of the measurements is damaged ({first_line(error)})") from error

    def _save(self, key: Key, predictions: Predictions) -> None:
        if self.folder is None:
            raise UserError(f"{self.name}: this archive has no folder for predictions; name one with Archive(url, folder=...)")
        try:
            predictions.save(self.folder / "predictions" / file_name(key))
        except OSError as error:
            raise UserError(f"{self.folder / 'predictions'}: can't be written ({error.strerror or error})") from error

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        try:
            with self._engine.begin() as connection:
                yield connection
        except IntegrityError:
            raise
        except (DBAPIError, sqlite3.Error) as error:
            raise UserError(f"{self.name}: the archive can't be read or written ({first_line(error)})") from error


def _given(task: str | None, method: str | None) -> dict[str, str]:
    return {name: value for name, value in (("task", task), ("method", method)) if value is not None}


def _without_id(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "id"}
