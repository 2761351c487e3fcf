"""`elastibench dashboard`: a run's searches as Optuna studies, read back from where they were written, and asked for over HTTP."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import optuna
import pytest
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from typer.testing import CliRunner

import workbench
from methods.errors import UserError
from search.archive import Archive
from workbench.cli import app
from workbench.verbs import dashboard

SERVE = """
import sys
from pathlib import Path
from workbench.verbs.dashboard import Dashboard
Dashboard((), 0, Path(sys.argv[1])).serve(int(sys.argv[2]))
"""


@pytest.fixture
def run(demo_run: Path, tmp_path: Path) -> Path:
    """A run folder of one's own, without weights."""
    return Path(shutil.copytree(demo_run, tmp_path / "run", ignore=shutil.ignore_patterns("*.safetensors")))


def content(storage: BaseStorage) -> list[Any]:
    """All that the studies say but their numbers within the storage."""
    found = []
    for study in optuna.get_all_study_summaries(storage):
        loaded = optuna.load_study(study_name=study.study_name, storage=storage)
        trials = [(t.number, t.state, t.values, t.params, t.user_attrs, t.constraints, t.datetime_complete) for t in loaded.trials]
        found.append((study.study_name, loaded.user_attrs, loaded.directions, trials))
    return found


def journal(run: Path) -> BaseStorage:
    return JournalStorage(JournalFileBackend(str(run / "optuna.log")))


def test_the_studies_hold_what_the_archive_holds_and_written_twice_the_same(run: Path, tmp_path: Path) -> None:
    said = CliRunner().invoke(app, ["dashboard", str(run), "--no-serve"])
    assert said.exit_code == 0 and said.stdout == f"1 studies with 4 trials written to {run / 'optuna.log'}\n"
    first = content(journal(run))
    with Archive(run / "archive.db", create=False) as archive:
        measured = archive.measurements(kind="shared", split="search")
        [search] = archive.searches()
    [(name, about, _, trials)] = first
    assert name == "run / demo / dynabert / seed 0 / exhaustive / all budgets" and about["strategy"] == search.strategy
    assert Counter((t[4]["architecture"], t[2][0]) for t in trials) == Counter((m.architecture.id, m.quality) for m in measured)
    assert {t[4]["meets small"] for t in trials} == {True, False} and all(t[4]["meets all"] for t in trials)
    workbench.dashboard(run)
    assert content(journal(run)) == first
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    for _ in range(2):
        workbench.dashboard(run, storage=url)
        assert content(RDBStorage(url)) == first
    assert not list(run.glob(".optuna-*"))


def test_what_cannot_be_is_said(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for url in ("postgresql+psycopg://me:s3cret@127.0.0.1:1/n", "nonsense://me:s3cret@h/n"):
        with pytest.raises(UserError, match=r"--storage .*@.*can.t be written") as caught:
            workbench.dashboard(run, storage=url)
        assert "s3cret" not in str(caught.value)
    with pytest.raises(UserError, match="no run folder"):
        workbench.dashboard(tmp_path / "none")
    monkeypatch.setattr(dashboard.importlib.util, "find_spec", lambda name: None)
    result = CliRunner().invoke(app, ["dashboard", str(run)])
    assert result.exit_code == 2 and "pip install 'elastibench[dashboard]'" in result.stderr and not (run / "optuna.log").exists()


def test_a_dashboard_lists_the_studies(run: Path) -> None:
    pytest.importorskip("optuna_dashboard")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    workbench.dashboard(run)
    server = subprocess.Popen([sys.executable, "-c", SERVE, str(run / "optuna.log"), str(port)], stderr=subprocess.DEVNULL)
    try:
        answer = answered(f"http://localhost:{port}/api/studies", server)
    finally:
        server.terminate()
        server.wait(30)
    assert [study["study_name"] for study in answer["study_summaries"]] == ["run / demo / dynabert / seed 0 / exhaustive / all budgets"]


def answered(url: str, server: subprocess.Popen[bytes]) -> Any:
    for _ in range(1500):
        try:
            with urlopen(url) as answer:
                return json.load(answer)
        except URLError:
            assert server.poll() is None, "the server ended"
            time.sleep(0.1)
    raise TimeoutError(url)
