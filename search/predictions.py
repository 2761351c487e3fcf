"""`Predictions`: what a network said of each example, kept beside the archive so that differences can be tested example by example."""

from __future__ import annotations

import hashlib
import json
import uuid
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from methods.errors import UserError
from search.measurement import Key


@dataclass(frozen=True, eq=False)
class Predictions:
    """`ids` (n,) integers or text: the examples; `logits` (n, ...) float32: what the network put out for each.

    `labels` (n,): what was right, so that the analysis can test differences without the data; None where it was not kept.
    """

    ids: npt.NDArray[Any]
    logits: npt.NDArray[np.float32]
    labels: npt.NDArray[Any] | None = None

    def __post_init__(self) -> None:
        if self.ids.ndim != 1 or self.logits.shape[:1] != self.ids.shape:
            raise ValueError(f"predictions: {self.ids.shape} ids for logits of shape {self.logits.shape}; one row per example")
        if self.ids.dtype.kind not in "iuU":
            raise ValueError(f"predictions: ids are integers or text, got {self.ids.dtype}")
        if self.labels is not None and self.labels.shape[:1] != self.ids.shape:
            raise ValueError(f"predictions: {self.labels.shape} labels for {self.ids.shape} ids; one row per example")

    def save(self, path: Path) -> None:
        """Writes the file whole or not at all; two processes may write it at once."""
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.stem}.{uuid.uuid4().hex}.part")
        labels = {} if self.labels is None else {"labels": self.labels}
        try:
            with part.open("wb") as file:
                np.savez(file, ids=self.ids, logits=np.asarray(self.logits, dtype=np.float32), allow_pickle=False, **labels)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: Path) -> Predictions:
        """Reads what `save` wrote. Raises UserError where the file is missing or damaged."""
        try:
            with np.load(path, allow_pickle=False) as data:
                return cls(data["ids"], data["logits"], data.get("labels"))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(f"{path}: damaged predictions; remove the file, and tables will leave out the tests that need it") from error


def file_name(key: Key) -> str:
    """The name of the file of a measurement's predictions: a SHA-256 of its key."""
    return hashlib.sha256(json.dumps(key).encode()).hexdigest() + ".npz"
