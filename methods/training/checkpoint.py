"""Checkpoints that a crash cannot spoil: written aside, renamed into place, known by their digest; the one before is kept."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch

from methods.errors import UserError
from methods.training.processes import is_main_process

MARK = "checkpoint.json"
CHECKPOINTS = ("a.pt", "b.pt", MARK)
"""The files of `save_checkpoint`."""


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """A file to write in the place of `path`, which no other process writes; it takes that place, all of it on the disk, when the block
    ends without an error."""
    aside = path.with_name(f"{path.name}.{uuid4().hex}.part")
    try:
        yield aside
        with aside.open("rb+") as file:
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def write_atomically(path: Path, text: str) -> None:
    """The file holds the whole text or what it held before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_aside(path) as aside:
        aside.write_text(text)


def file_digest(path: Path) -> str:
    """SHA-256 (hex) of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save_checkpoint(folder: Path, state: dict[str, Any], fingerprint: str) -> None:
    """Writes `state` (tensors and plain data) beside the last checkpoint, then points the mark at it."""
    folder.mkdir(parents=True, exist_ok=True)
    previous = _mark(folder)
    path = folder / ("b.pt" if previous.get("file") == "a.pt" else "a.pt")
    with written_aside(path) as aside:
        torch.save({**state, "random": random_state()}, aside)
        digest = file_digest(aside)
    mark = {"file": path.name, "sha256": digest, "fingerprint": fingerprint}
    earlier = {name: previous[name] for name in mark if name in previous}
    write_atomically(folder / MARK, json.dumps({**mark, "previous": earlier}, indent=1))


def load_checkpoint(folder: Path, fingerprint: str) -> dict[str, Any] | None:
    """The newest checkpoint whose digest is right; None where there is none. Restores nothing by itself. A damaged one is forgotten, so
    that the next one takes its place and not the good one's.

    Raises UserError where checkpoints are there and all are damaged, or where they belong to a stage with other settings.
    """
    newest = _mark(folder)
    candidates = [mark for mark in (newest, newest.get("previous") or {}) if mark]
    for mark in candidates:
        if mark["fingerprint"] != fingerprint:
            raise UserError(f"{folder}: a checkpoint of other settings lies there; remove the folder to start this stage anew")
        path = folder / mark["file"]
        if path.exists() and file_digest(path) == mark["sha256"]:
            if mark is not newest and is_main_process():
                write_atomically(folder / MARK, json.dumps({**mark, "previous": {}}, indent=1))
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            return state
    if candidates:
        raise UserError(f"{folder}: damaged checkpoints (SHA-256 differs from {MARK}); remove the folder to start this stage anew")
    return None


def hand_over(folder: Path, into: Path) -> None:
    """Links into a new folder what it takes to go on from the last checkpoints beneath another one, on the same file system."""

    def needless(place: str, names: list[str]) -> set[str]:
        newest = _mark(Path(place)).get("file")
        return {name for name in names if name == "tensorboard" or (name in CHECKPOINTS and name not in (MARK, newest))}

    shutil.copytree(folder, into, copy_function=os.link, ignore=needless)


def _mark(folder: Path) -> dict[str, Any]:
    path = folder / MARK
    if not path.exists():
        return {}
    try:
        data: dict[str, Any] = json.loads(path.read_text())
        for mark in (data, data["previous"]):
            if mark and not all(isinstance(mark[key], str) for key in ("file", "sha256", "fingerprint")):
                raise ValueError("a file, a sha256 and a fingerprint are expected")
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: damaged ({error}); remove the folder to start this stage anew") from error
    return data


def random_state() -> dict[str, Any]:
    """The states of Python's and torch's generators as plain data and tensors (nothing here draws from NumPy's global one)."""
    version, internal, gauss = random.getstate()
    return {
        "python": [version, list(internal), gauss],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_random_state(state: dict[str, Any]) -> None:
    """The inverse of `random_state`."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
