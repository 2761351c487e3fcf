"""A task's copies: built once, kept with a digest of all that they depend on, and read back."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from methods.errors import UserError
from methods.recipe import Context, StageRecord
from methods.tasks.carve import normalised
from methods.tasks.split import Split
from methods.training.augmentation.options import AugmentationOptions
from methods.training.augmentation.parts import in_parts
from methods.training.augmentation.source import WordSource, open_source
from methods.training.augmentation.variants import Copy, make_copies
from methods.training.checkpoint import file_digest, write_atomically, written_aside
from methods.training.processes import is_main_process, wait_for_everyone

STAGE = "augment"
ROWS, MARK, PARTS = "rows.tsv", "rows.json", "parts"
PART = 256
"""Training rows whose copies are made together."""
VERSION = 1
"""Of the rules; another one makes other copies."""


def augment(context: Context, options: AugmentationOptions) -> Split:
    """Copies of the task's training rows, with their sources' labels and ids; built in the context's folder, or read back from there.

    Only `train` is varied; a copy that equals a row of `train`, of `search`, or an earlier copy is left out. What was made of other
    rows, by another source or with other options is replaced. Raises UserError where the folder's rows are damaged.
    """
    train, folder = context.task.split("train"), context.folder
    source = open_source(context, options)
    fingerprint = {
        "version": VERSION,
        "train": train.digest,
        "search": context.task.split("search").digest,
        "options": options.model_dump(exclude={"source", "backbone"}),
        "source": source.kind,
        "words": source.digest,
        "precision": context.hardware.precision,
    }
    if is_main_process() and _fingerprint(folder) != fingerprint:
        _build(context, options, source, fingerprint)
    wait_for_everyone()
    copies, record = _read(folder, train.text_b is not None)
    context.record(record)
    return split_of(copies, train)


def split_of(copies: Sequence[Copy], train: Split) -> Split:
    """The copies as rows, each with label and id of its source."""
    place = {int(number): row for row, number in enumerate(train.ids)}
    sources = train.take([place[copy.source] for copy in copies], "copies")
    text_b = None if train.text_b is None else tuple(copy.text_b or "" for copy in copies)
    return Split("copies", tuple(copy.text for copy in copies), text_b, sources.labels, sources.ids)


def _build(context: Context, options: AugmentationOptions, source: WordSource, fingerprint: dict[str, Any]) -> None:
    folder, train = context.folder, context.task.split("train")
    (folder / MARK).unlink(missing_ok=True)
    source.prepare((*train.text, *(train.text_b or ())))
    chunks = [np.arange(start, min(start + PART, len(train))) for start in range(0, len(train), PART)]

    def make(number: int) -> bytes:
        started, spent = time.monotonic(), source.flops
        made = make_copies(train.take(chunks[number]), source, options)
        return json.dumps({"copies": made, "flops": source.flops - spent, "seconds": time.monotonic() - started}).encode()

    digest = hashlib.sha256(json.dumps(fingerprint, sort_keys=True).encode()).hexdigest()
    parts = [json.loads(part) for part in in_parts(folder / PARTS, digest, [len(c) for c in chunks], make, STAGE)]
    copies = distinct((Copy(*row) for part in parts for row in part["copies"]), train, context.task.split("search"))
    flops, seconds = (float(sum(part[name] for part in parts)) for name in ("flops", "seconds"))
    record = StageRecord(STAGE, 0, len(copies), flops, seconds)
    _write(folder, copies, fingerprint, record)
    shutil.rmtree(folder / PARTS)


def distinct(copies: Iterable[Copy], *others: Split) -> list[Copy]:
    """The copies without those whose texts are in one of the other splits, or came before."""
    taken = {_key(a, b) for rows in others for a, b in zip(rows.text, rows.text_b or [None] * len(rows), strict=True)}
    kept = []
    for copy in copies:
        key = _key(copy.text, copy.text_b)
        if key not in taken:
            taken.add(key)
            kept.append(copy)
    return kept


def _key(text: str, text_b: str | None) -> tuple[str, str | None]:
    return normalised(text), None if text_b is None else normalised(text_b)


def _write(folder: Path, copies: Sequence[Copy], fingerprint: dict[str, Any], record: StageRecord) -> None:
    """The rows, then the mark that they are whole."""
    with written_aside(folder / ROWS) as aside, aside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, dialect="excel-tab")
        writer.writerow(Copy._fields)
        writer.writerows(copies)
    mark = {"sha256": file_digest(folder / ROWS), "fingerprint": fingerprint, "record": asdict(record)}
    write_atomically(folder / MARK, json.dumps(mark, indent=1) + "\n")


def _mark(folder: Path) -> dict[str, Any]:
    try:
        mark: dict[str, Any] = json.loads((folder / MARK).read_text())
        StageRecord(**mark["record"])
        _ = mark["sha256"], mark["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / MARK}: damaged ({error}); remove {folder} to make the rows anew") from error
    return mark


def _fingerprint(folder: Path) -> Any:
    """What the folder's rows were made of; None where there are none."""
    return _mark(folder)["fingerprint"] if (folder / MARK).exists() else None


def _read(folder: Path, pair: bool) -> tuple[list[Copy], StageRecord]:
    mark, path = _mark(folder), folder / ROWS
    if not path.exists() or file_digest(path) != mark["sha256"]:
        raise UserError(f"{path}: missing or damaged, its SHA-256 differs from {MARK}; remove {folder} to make the rows anew")
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.reader(file, dialect="excel-tab")
        next(rows)
        copies = [Copy(int(source), int(side), int(number), a, b if pair else None) for source, side, number, a, b in rows]
    return copies, StageRecord(**mark["record"])
