"""The block loss table of a trained supernet: held-out losses of the surviving paths of every block (paper, section 3.4)."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt

from methods.errors import UserError
from methods.nasbert.paths import Indices, Paths
from methods.nasbert.space import NasBertSpace
from methods.tasks.head import Head

if TYPE_CHECKING:
    from methods.backbone import BackboneConfig

Floats = npt.NDArray[np.float64]
BlockTable = tuple[Indices, Floats, Indices]
"""Of one block the numbers of paths (into `Paths`), their losses and their bins (-1: none), each (n,)."""

Number = TypeVar("Number", int, float)
COLUMNS = ("block", "hidden", "ops", "bin", "params", "flops", "latency", "loss")


@dataclass(frozen=True, eq=False)
class BlockLosses:
    """One `BlockTable` per block."""

    blocks: tuple[BlockTable, ...]

    def save(
        self, path: Path, space: NasBertSpace, backbone: BackboneConfig, length: int = 128, latency: npt.NDArray[np.float64] | None = None
    ) -> None:
        """Writes a CSV of `COLUMNS`, blocks counted from 1 and bins from 0.

        `flops` are those of one text of `length` tokens. `latency`: seconds of each operation (hidden sizes, operations + identity);
        without it that column is empty.
        """
        from methods.training.checkpoint import write_atomically

        paths, table = Paths(space), space.tables(backbone, Head("none"), length).operation
        params, flops = paths.costs(table[..., 1]), paths.costs(table[..., 2])
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for block, (numbers, losses, bins) in enumerate(self.blocks, start=1):
            for number, loss, place in zip(numbers.tolist(), losses.tolist(), bins.tolist(), strict=True):
                hidden, operations = paths[number]
                seconds = "" if latency is None else float(latency[paths.hidden[number], paths.operations[number]].sum())
                writer.writerow([block, hidden, ".".join(operations), place, params[number], flops[number], seconds, repr(loss)])
        write_atomically(path, file.getvalue())

    @classmethod
    def load(cls, path: Path, space: NasBertSpace) -> BlockLosses:
        """What `save` wrote, to the last bit. Raises UserError that names file and line where it is damaged or of another space."""
        paths = Paths(space)
        found: list[dict[int, tuple[float, int]]] = [{} for _ in range(space.blocks)]
        for line, row in _rows(path):
            try:
                block, number, loss, place = _read(row, paths, space.blocks)
                if number in found[block]:
                    raise ValueError("this path of this block was there before")
            except (ValueError, TypeError) as error:
                raise UserError(f"{path}: line {line}: {error}") from error
            found[block][number] = (loss, place)
        empty = [block for block, table in enumerate(found, start=1) if not table]
        if empty:
            raise UserError(f"{path}: block {empty[0]} of {space.blocks} is missing; run the stage `tables`")
        return cls(tuple(_table(rows) for rows in found))


def _rows(path: Path) -> Iterator[tuple[int, Mapping[str, str]]]:
    """Line numbers and rows of the file."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UserError(f"{path}: there is no table of block losses yet; train the supernet first") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: damaged, not text ({error})") from error
    reader = csv.DictReader(io.StringIO(text))
    if tuple(reader.fieldnames or ()) != COLUMNS:
        raise UserError(f"{path}: line 1: no table of block losses; its first line reads {','.join(COLUMNS)}")
    if not text.endswith("\n"):
        raise UserError(f"{path}: line {text.count(chr(10)) + 1}: cut off; run the stage `tables`")
    for row in reader:
        yield reader.line_num, row


def _read(row: Mapping[str, str], paths: Paths, blocks: int) -> tuple[int, int, float, int]:
    """Block from 0, number of the path, loss, bin. Raises ValueError or TypeError."""
    if None in row or None in row.values():
        raise ValueError(f"{len(COLUMNS)} columns are expected")
    block, loss, place = _number(row, "block", int), _number(row, "loss", float), _number(row, "bin", int)
    if not 1 <= block <= blocks:
        raise ValueError(f"block {block} is none of 1 to {blocks}")
    if not math.isfinite(loss):
        raise ValueError(f"loss {row['loss']} is no finite number")
    try:
        number = paths.number(int(row["hidden"]), row["ops"].split("."))
    except ValueError as error:
        raise ValueError(f"{row['hidden']}:{row['ops']} is no path of this space") from error
    return block - 1, number, loss, place


def _number(row: Mapping[str, str], column: str, kind: Callable[[str], Number]) -> Number:
    try:
        return kind(row[column])
    except ValueError as error:
        raise ValueError(f"{column}: {row[column]!r} is no number") from error


def _table(rows: Mapping[int, tuple[float, int]]) -> BlockTable:
    numbers, values = list(rows), list(rows.values())
    return (
        np.array(numbers, dtype=np.int64),
        np.array([loss for loss, _ in values], dtype=np.float64),
        np.array([place for _, place in values], dtype=np.int64),
    )
