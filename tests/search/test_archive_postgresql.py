"""The archive on PostgreSQL: the same laws, where the server and its driver are installed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from methods.budget import Budget
from methods.costs import Costs
from methods.errors import UserError
from methods.recipe import StageRecord
from methods.space import Architecture
from search.archive import Archive
from search.loop import one_by_one, search
from search.measurement import Measurement
from search.query import best, fronts
from search.tables import SearchRow
from tests.search.numbered import numbered, predictions
from tests.search.test_archive_place import make_older
from tests.search.toy import LayerSpace, costs_of, measured, share


def test_several_writers_lose_nothing_and_write_nothing_twice(server: str, tmp_path: Path) -> None:
    def write(start: int) -> list[int]:
        with Archive(server, folder=tmp_path) as archive:
            archive.record_stage("sst2", "toy", start, StageRecord("width", 1, 2, 3.0, 4.0))
            return [i for i in range(start, start + 40) if archive.add(numbered(i, control=str(start)), predictions(start))]

    with ThreadPoolExecutor(3) as pool:
        added = list(pool.map(write, (0, 20, 40)))
    assert sorted(i for some in added for i in some) == list(range(80))
    with Archive(server, folder=tmp_path, create=False) as archive:
        kept = archive.measurements(task="sst2", kind="shared")
        assert sorted(m.architecture.choices["width"] for m in kept) == list(range(80))
        for m in kept:
            assert archive.get(m.key) == m
            told = archive.predictions(m.key)
            assert told is not None and (told.logits == int(m.control)).all()
        assert not archive.add(kept[0]) and len(archive.stages()) == 3
        search = SearchRow("sst2", "toy", 0, "tpe", "", 1, 2.0, 3e18)
        archive.record_search(search)
        archive.record_searches([search])
        assert archive.searches() == [search]


def test_an_older_archive_is_upgraded_by_one_of_several(server: str, tmp_path: Path) -> None:
    import psycopg

    database = server.rpartition("/")[0] + "/older"
    with psycopg.connect(server.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute("CREATE DATABASE older")
    with Archive(database, folder=tmp_path) as archive:
        archive.record_stage("sst2", "toy", 9, StageRecord("width", 1, 2, 3.0, 4.0))
    with psycopg.connect(database.replace("+psycopg", "")) as connection:
        make_older(connection)
    with Archive(database, folder=tmp_path, create=False) as archive:
        assert [row.subnetwork_steps for row in archive.stages()] == [None]

    def write(seed: int) -> None:
        with Archive(database, folder=tmp_path) as archive:
            archive.record_stage("sst2", "toy", seed, StageRecord("width", 1, 2, 3.0, 4.0, seed))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    with Archive(database, folder=tmp_path, create=False) as archive:
        assert {row.seed: row.subnetwork_steps for row in archive.stages()} == {9: None, 0: 0, 1: 1, 2: 2, 3: 3}


def test_a_query_answers_as_it_does_on_sqlite(server: str, tmp_path: Path) -> None:
    spaced = [numbered(i, task="asked", seed=s, weights_digest=f"w{s}", costs=Costs(10, i, 300 * i, latency={"phone": i / 10}))
              for i in range(1, 30) for s in range(2)]  # fmt: skip
    found = [*spaced, *(replace(m, kind="finished") for m in spaced[-4:]), replace(spaced[-1], split="validation", split_digest="v")]
    with Archive(server, folder=tmp_path) as there, Archive(tmp_path / "archive.db") as here:
        for m in found:
            assert there.add(m) and here.add(m)
        for budget in (Budget(), Budget(max_flops=4000, max_latency={"phone": 1.0}), Budget(max_params=5)):
            assert best(there, budget, task="asked") == best(here, budget, task="asked") == best(found, budget)
        assert fronts(there, "max_flops", Budget(), task="asked") == fronts(here, "max_flops", Budget(), task="asked")
        assert there.columns(task="asked").numbers["flops"].tolist() == [m.costs.flops for m in found]


@pytest.mark.parametrize("strategy", ["random", "evolution"])
def test_a_search_that_was_interrupted_goes_on(server: str, tmp_path: Path, strategy: str) -> None:
    space, known = LayerSpace(3), {}

    def run(archive: Archive, breaks: int) -> list[Measurement]:
        asked: list[Architecture] = []

        def evaluate(architecture: Architecture) -> tuple[Measurement, None]:
            if len(asked) == breaks:
                raise ConnectionError("pulled the plug")
            asked.append(architecture)
            return measured(architecture, space, weights=strategy), None

        def find(architecture: Architecture) -> Measurement | None:
            return archive.find(architecture.id, "toy", "s", strategy, "shared")

        how = (strategy, 20, 0, costs_of(space), find, archive.add)
        return list(search(space, one_by_one(evaluate), [share(space, 0.6)], *how).measurements)

    with Archive(server, folder=tmp_path) as archive:
        with pytest.raises(ConnectionError):
            run(archive, 7)
        kept = [m for m in archive.measurements(task="toy") if m.weights_digest == strategy]
        assert len(kept) == 7
        known["again"] = run(archive, 13)
    with Archive(tmp_path / "archive.db") as archive:
        assert run(archive, 20) == known["again"]


def test_a_server_that_does_not_answer_is_named(server: str) -> None:
    with pytest.raises(UserError, match="nowhere"):
        Archive(server.replace("/postgres", "/nowhere"))
