"""The archive on PostgreSQL: the same laws, where the server and its driver are installed."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from methods.errors import UserError
from methods.recipe import StageRecord
from search.archive import Archive
from search.tables import SearchRow
from tests.search.test_archive import numbered, predictions

pytest.importorskip("psycopg")
BIN = max(Path("/usr/lib/postgresql").glob("*/bin"), default=None, key=lambda path: int(path.parent.name))
needs_server = pytest.mark.skipif(BIN is None or not (BIN / "initdb").exists(), reason="no PostgreSQL server is installed")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A throw-away server on a free port; its URL. It refuses to run as root, hence the other user."""
    assert BIN is not None
    folder = Path(tempfile.mkdtemp())
    identity: dict[str, Any] = {"cwd": folder, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres", "postgres")
        identity |= {"user": "postgres", "group": "postgres", "extra_groups": []}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    subprocess.run([BIN / "initdb", "-A", "trust", "--no-sync", "-U", "tester", "-D", folder / "data"], check=True, **identity)
    process = subprocess.Popen([BIN / "postgres", "-F", "-D", folder / "data", "-p", str(port), "-k", folder], **identity)
    url = f"postgresql+psycopg://tester@127.0.0.1:{port}/postgres"
    try:
        wait_for(url)
        yield url
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)
        shutil.rmtree(folder)


def wait_for(url: str) -> None:
    import psycopg

    for _ in range(200):
        try:
            psycopg.connect(url.replace("+psycopg", "")).close()
            return
        except psycopg.OperationalError:
            time.sleep(0.05)
    raise TimeoutError("PostgreSQL did not start")


@needs_server
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


@needs_server
def test_a_server_that_does_not_answer_is_named(server: str) -> None:
    with pytest.raises(UserError, match="nowhere"):
        Archive(server.replace("/postgres", "/nowhere"))
