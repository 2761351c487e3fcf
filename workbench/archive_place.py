"""Where a run's archive lies: `archive.db` in its folder, or a schema of its own in a PostgreSQL database."""

from __future__ import annotations

import re
from pathlib import Path
from uuid import uuid4

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from methods.errors import UserError

_FORM = "postgresql+psycopg://user@host/name"


def check_url(text: str) -> None:
    """Raises UserError, without a word of the URL, where it is no PostgreSQL URL or holds a password."""
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise UserError(f"write a database URL such as {_FORM}; without one it is archive.db in the run folder") from None
    if url.get_backend_name() != "postgresql" or not url.database:
        raise UserError(f"write the URL of a PostgreSQL database, such as {_FORM}; without one it is archive.db in the run folder")
    if url.password is not None or any("password" in key for key in url.query):
        raise UserError(
            "the URL holds a password, which would lie in the run folder; write it into ~/.pgpass or into the variable PGPASSWORD"
        )


def settled(url: str, previous: str | None, folder: Path) -> str:
    """The URL with the schema that the run has had so far in that database, else with one that no other run has."""
    bare = _bare(url)
    if previous and _bare(previous) == bare:
        return previous
    name = re.sub("[^a-z0-9]+", "_", folder.resolve().name.lower()).strip("_")[:40]
    return bare.update_query_dict({"schema": f"run_{name}_{uuid4().hex[:8]}"}).render_as_string()


def _bare(url: str) -> URL:
    return make_url(url).difference_update_query(["schema"])
