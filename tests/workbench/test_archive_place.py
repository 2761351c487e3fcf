"""The archive of a run in a PostgreSQL database: the numbers of a run without one, whatever happens to the connection."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from typer.testing import CliRunner

import workbench
from analysis.runs import open_runs
from methods.errors import UserError
from search.archive import Archive
from search.database import reach
from tests.search.numbered import numbered
from tests.workbench.test_experiment import experiment
from tests.workbench.test_run import rows
from workbench.archive_place import check_url, settled
from workbench.cli import app
from workbench.folder import RunFolder
from workbench.loading import check

URL = "postgresql+psycopg://me@db.example/results"


def execute(url: str, *statements: str) -> Any:
    """What the last statement gives, if it gives something."""
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        results = [connection.execute(text(statement)) for statement in statements]
        found = results[-1].scalar() if results[-1].returns_rows else None
    engine.dispose()
    return found


def cut_after(measurements: int, server: str) -> threading.Thread:
    """Lets no one called runner in any more, and throws them out, once so much was measured."""

    def cut() -> None:
        there = "SELECT quote_ident(schemaname) FROM pg_tables WHERE tableowner = 'runner' AND tablename = 'measurements'"
        while not (schema := execute(server, there)) or execute(server, f"SELECT count(*) FROM {schema}.measurements") < measurements:
            time.sleep(0.01)
        gone = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'runner'"
        execute(server, "ALTER ROLE runner NOLOGIN", gone)

    thread = threading.Thread(target=cut, daemon=True)
    thread.start()
    return thread


def without_times(value: Any) -> Any:
    """A table's rows without what may differ: seconds, and the run's name."""
    if isinstance(value, dict):
        return {key: without_times(inner) for key, inner in value.items() if key != "run" and "seconds" not in key}
    return [without_times(inner) for inner in value] if isinstance(value, list) else value


def test_a_run_whose_server_goes_away_goes_on_and_ends_as_one_with_a_file(server: str, demo_run: Path, tmp_path: Path) -> None:
    execute(server, "CREATE ROLE runner LOGIN", "GRANT CREATE ON DATABASE postgres TO runner")
    url, folder, file = server.replace("tester@", "runner@"), tmp_path / "Run 1", demo_run.parent / "demo.yaml"
    cutting = cut_after(3, server)
    with pytest.raises(UserError, match="runner@127") as caught:
        workbench.run(file, output=folder, set=[f"archive={url}"])
    assert str(caught.value).count("\n") == 0
    cutting.join()
    with pytest.raises(UserError, match="runner@127"):
        workbench.query(folder)
    execute(server, "ALTER ROLE runner LOGIN")
    with open_runs([folder])[0].archive as archive:
        kept = archive.measurements()
    assert 3 <= len(kept) < len(rows(demo_run)) and not (folder / "archive.db").exists()

    workbench.run(file, output=folder, set=[f"archive={url}"])
    assert rows(folder) == rows(demo_run)
    tables = [json.loads((run / "report" / "table.json").read_text())["rows"] for run in (folder, demo_run)]
    assert without_times(tables[0]) == without_times(tables[1]) != []
    for flops in (None, 250_000):
        assert workbench.query(folder, max_flops=flops) == workbench.query(demo_run, max_flops=flops)
    with open_runs([folder])[0].archive as archive:
        assert archive.measurements()[: len(kept)] == kept
        assert all(archive.predictions(m.key) is not None for m in kept)


def test_runs_in_one_database_do_not_see_each_other(server: str, tmp_path: Path) -> None:
    urls = [settled(server, None, tmp_path / "run") for _ in range(2)]
    assert settled(server, urls[0], tmp_path / "run") == urls[0]
    assert settled(urls[1], None, tmp_path / "run") not in urls, "a copied experiment.yaml begins a run of its own"
    with Archive(urls[0], tmp_path) as first, Archive(urls[1], tmp_path) as second:
        assert first.add(numbered(1)) and second.add(numbered(1)) and second.add(numbered(2))
        assert (len(first.measurements()), len(second.measurements())) == (1, 2)
    with pytest.raises(UserError, match="there is no archive in it"):
        Archive(settled(server, None, tmp_path), tmp_path, create=False)


def test_a_folder_keeps_its_place_and_refuses_another(tmp_path: Path) -> None:
    one = check(experiment(archive=URL, backbone="demo", task={"name": "demo", "data": "generated"}), "my.yaml")
    folder = RunFolder(tmp_path / "run")
    first = folder.examine(one)
    folder.claim(first)
    assert first.archive is not None and first.archive.startswith(f"{URL}?schema=run_run_")
    assert folder.examine(one).archive == first.archive
    for moved in (URL + "2", None):
        with pytest.raises(UserError, match="different: archive"):
            folder.examine(one.model_copy(update={"archive": moved}))


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://me:s3cret@h/n", "postgresql://me@h/n?password=s3cret", "postgresql://h/n?sslpassword=s3cret",
        "mysql://me:s3cret@h/n", "postgresql://me:s3cret@h:port/n", "s3cret", "postgresql://me:s3cret@h",
    ],
)  # fmt: skip
def test_a_password_is_refused_and_never_shown(url: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"PGPASSWORD|such as postgresql") as caught:
        check(experiment(archive=url, budgets=[]), "my.yaml")
    assert "my.yaml: archive: " in str(caught.value) and "s3cret" not in str(caught.value)
    path = tmp_path / "my.yaml"
    path.write_text("backbone: demo\n")
    result = CliRunner().invoke(app, ["run", str(path), "--set", f"archive={url}"])
    assert result.exit_code == 2 and "s3cret" not in result.output


@pytest.mark.parametrize("url", ["postgresql://me:s3cret@127.0.0.1:1/n?sslpassword=s3cret", "postgresql://me:s3cret@h:port/n"])
def test_a_server_that_is_not_there_is_named_without_its_password(url: str, tmp_path: Path) -> None:
    for opened in (reach, lambda url: Archive(url, tmp_path)):
        with pytest.raises(UserError, match=r"127.0.0.1:1/n|@h:port/n") as caught:
            opened(url)
        assert "s3cret" not in str(caught.value)


def test_urls_that_will_do() -> None:
    for url in (URL, "postgresql://me@h/n", "postgresql:///n", f"{URL}?connect_timeout=3"):
        check_url(url)
