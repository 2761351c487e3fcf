"""`dashboard`: the searches of a run as Optuna studies, and optuna-dashboard on them."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from methods.errors import UserError

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

    from search.studies import SearchStudy
    from workbench.folder import RunFolder

JOURNAL = "optuna.log"
INSTALL = "optuna-dashboard is not installed; install it with: pip install 'elastibench[dashboard]', or write the studies with --no-serve"


@dataclass(frozen=True)
class Dashboard:
    """The studies that were written and where: a journal file of Optuna's, or a database URL."""

    names: tuple[str, ...]
    trials: int
    place: Path | str

    def render(self) -> str:
        return f"{len(self.names)} studies with {self.trials} trials written to {_shown(self.place)}"

    def serve(self, port: int = 8080) -> None:
        """Answers on localhost until it is interrupted. Raises UserError where optuna-dashboard is missing or the port is taken."""
        check_installed()
        from optuna_dashboard import run_server

        try:
            run_server(_opened(self.place), port=port)
        except OSError as error:
            raise UserError(f"--port {port}: {error.strerror or error}; choose another") from error


def check_installed() -> None:
    """Raises UserError where optuna-dashboard is not installed."""
    if importlib.util.find_spec("optuna_dashboard") is None:
        raise UserError(INSTALL)


def dashboard(run: Path | str, storage: str | None = None) -> Dashboard:
    """Writes the studies of a run, in the place of those it has written before.

    `storage`: a database URL (None: the file `optuna.log` in the run folder, which Optuna reads as a journal). Raises UserError where
    there is no run, nothing was searched yet, or the storage can't be written.
    """
    from workbench.folder import RunFolder

    folder = RunFolder(run)
    made = _studies(folder)
    if not made:
        raise UserError(f"{folder.path}: nothing was searched yet")
    name = folder.path.resolve().name
    if storage is None:
        place: Path | str = folder.path / JOURNAL
        _write_journal(made, name, folder.path / JOURNAL)
    else:
        place = storage
        _write_database(made, name, storage)
    return Dashboard(tuple(study.name(name) for study in made), sum(len(study.measurements) for study in made), place)


def _studies(folder: RunFolder) -> list[SearchStudy]:
    from search.selections import selections
    from search.studies import studies
    from workbench.session import Session

    with folder.open_archive() as archive:
        rows, measured, found = archive.searches(), archive.measurements(), selections(archive)
    experiment = folder.experiment()
    members = Session(experiment, folder, str(folder.path)).members
    spaces = {member.name: member.space for member in members}
    return studies(rows, spaces, experiment.all_budgets(), measured, found, experiment.search.objectives)


def _write_journal(made: Sequence[SearchStudy], run: str, file: Path) -> None:
    """All of it takes the file's place at once."""
    try:
        with tempfile.TemporaryDirectory(dir=file.parent, prefix=".optuna-") as aside:
            part = Path(aside) / JOURNAL
            for study in made:
                study.write(_opened(part), run)
            part.replace(file)
    except OSError as error:
        raise UserError(f"{file}: can't be written ({error.strerror or error})") from error


def _write_database(made: Sequence[SearchStudy], run: str, url: str) -> None:
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        storage = _opened(url)
        for study in made:
            study.write(storage, run)
    except (SQLAlchemyError, StorageInternalError, ImportError, ValueError) as error:
        from search.database import first_line

        cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
        raise UserError(f"--storage {_shown(url)}: can't be written ({first_line(cause)})") from error


def _opened(place: Path | str) -> BaseStorage:
    import optuna
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.storages.JournalStorage(JournalFileBackend(str(place))) if isinstance(place, Path) else optuna.storages.RDBStorage(place)


def _shown(place: Path | str) -> str:
    from search.database import without_password

    return str(place) if isinstance(place, Path) else without_password(place)
