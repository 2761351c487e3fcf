"""Where a corpus's text comes from: text files or a data set on the hub, streamed through `datasets`, or the demo's generator."""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from methods.errors import UserError
from methods.tasks.demo_text import VERSION, generate_documents

BORDER = ""
"""Stands between two documents in a stream of texts."""
ROWS = 1000
"""Lines that are read together."""
SEED = 0
"""Of generated text, whatever the run's seed."""
OFFLINE = "a .txt file, or a directory with train.txt, works without the hub"


@dataclass(frozen=True)
class Text:
    """Texts (lines, or longer) in their order, `BORDER` between documents; `size`: bytes of all, None where nobody knows."""

    texts: Iterator[str]
    size: int | None = None


class Source(Protocol):
    def identity(self) -> dict[str, str]:
        """What tells this text from another: digests of files, the address of a data set."""

    def splits(self, rows: int | None) -> dict[str, Text]:
        """`train` and, where the source has one, `validation`. `rows`: at most so many lines of train.

        Raises UserError, also while the texts are read.
        """


def open_source(data: str, column: str) -> Source:
    """Raises UserError where `data` is no file, directory or address that a corpus can be read from."""
    if data.startswith("hub:"):
        if not data[4:]:
            raise UserError("corpus.data: 'hub:' lacks the data set's name; hub:NAME or hub:NAME:CONFIGURATION is needed")
        return HubText(data[4:], column)
    if data == "generated":
        return GeneratedText()
    path = Path(data)
    if path.is_dir():
        if not (path / "train.txt").is_file():
            raise UserError(f"corpus.data: the directory {data!r} has no train.txt; that, and validation.txt if you like, is needed")
        validation = path / "validation.txt"
        return TextFiles(path / "train.txt", validation if validation.is_file() else None)
    if not path.is_file():
        raise UserError(f"corpus.data: there is no {data!r}; a .txt file, a directory with train.txt, hub:NAME or generated is needed")
    return TextFiles(path)


@dataclass(frozen=True)
class TextFiles:
    """UTF-8 text; a blank line is the border of two documents, and where there is none every line is a document."""

    train: Path
    validation: Path | None = None

    def identity(self) -> dict[str, str]:
        return {name: _digest(path) for name, path in self._files().items()}

    def splits(self, rows: int | None) -> dict[str, Text]:
        limits = {name: rows if name == "train" else None for name in self._files()}
        sizes = {name: path.stat().st_size if limits[name] is None else None for name, path in self._files().items()}
        return {name: Text(_lines(path, limits[name]), sizes[name]) for name, path in self._files().items()}

    def _files(self) -> dict[str, Path]:
        return {"train": self.train} | ({} if self.validation is None else {"validation": self.validation})


@dataclass(frozen=True)
class HubText:
    """One column of a data set; every row is a document.

    Known by its address alone: once its tokens are kept it is not asked for again, so that a corpus stays the same and works offline.
    """

    address: str
    column: str

    def identity(self) -> dict[str, str]:
        return {"hub": self.address, "column": self.column}

    def splits(self, rows: int | None) -> dict[str, Text]:
        data = self._load()
        if "train" not in data:
            raise UserError(f"corpus.data: hub:{self.address} has no split 'train'; it has {', '.join(data)}")
        names = [name for name in ("train", "validation") if name in data]
        return {name: Text(self._rows(data[name], rows if name == "train" else None)) for name in names}

    def _load(self) -> Any:
        import datasets

        path, configuration = self.address, None
        if ":" in path and not Path(path).exists():
            path, _, configuration = path.rpartition(":")
        try:
            return datasets.load_dataset(path, configuration, streaming=True)
        except Exception as error:  # whatever the hub client, the network or a broken file raise: the user gets one line
            raise self._unreadable(error) from error

    def _rows(self, data: Any, rows: int | None) -> Iterator[str]:
        try:
            for text in islice(_column(data, self.column), rows):
                if not isinstance(text, str | None):
                    raise UserError(
                        f"corpus.text: column {self.column!r} of hub:{self.address} holds {text!r}; a column of texts is needed"
                    )
                yield (text or "").strip()
                yield BORDER
        except UserError:
            raise
        except Exception as error:  # as above, now while it is read
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> UserError:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        return UserError(f"corpus.data: the data set {self.address!r} can't be read ({reason}); {OFFLINE}")


@dataclass(frozen=True)
class GeneratedText:
    """Text in the demo's language, a line for every sentence; always the same."""

    def identity(self) -> dict[str, str]:
        return {"generated": str(VERSION), "seed": str(SEED)}

    def splits(self, rows: int | None) -> dict[str, Text]:
        lines = (line for document in generate_documents(seed=SEED) for line in [*document, BORDER])
        return {"train": Text(islice(lines, rows))}


def _column(data: Any, name: str) -> Iterator[Any]:
    """The values of a column of a streamed data set."""
    for table in data.with_format("arrow").iter(batch_size=ROWS):
        if name not in table.column_names:
            raise UserError(f"corpus.text: the data set has no column {name!r}; it has {', '.join(table.column_names)}")
        yield from table[name].to_pylist()


def _lines(path: Path, rows: int | None) -> Iterator[str]:
    """The lines of a file without outer white space, blank ones as `BORDER`; one after every line where no line is blank."""
    import datasets

    try:
        bordered = _has_borders(path)
        files = {"train": [glob.escape(str(path))]}
        data = datasets.load_dataset("text", data_files=files, split="train", streaming=True, encoding="utf-8-sig")
        for line in islice(_column(data, "text"), rows):
            yield line.strip()
            if not bordered:
                yield BORDER
    except UnicodeDecodeError as error:
        raise UserError(f"{path}, {_bad_line(path)}; save the file as UTF-8") from error
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror or error})") from error


def _has_borders(path: Path) -> bool:
    """Whether a blank line stands between two others."""
    text = blank = False
    with path.open(encoding="utf-8-sig") as file:
        for line in file:
            if not line.strip():
                blank = text
            elif blank:
                return True
            else:
                text = True
    return False


def _bad_line(path: Path) -> str:
    """The first line that is no UTF-8, and its first wrong byte."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                return f"line {number}: no UTF-8 (byte 0x{line[error.start]:02x})"
    return "no UTF-8"


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror})") from error
