"""Where a task's rows come from: tab-separated files in a directory, or a data set repository through `datasets`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from methods.errors import UserError
from methods.tasks.questions import source as questions
from methods.tasks.spec import KNOWN, Known, TaskSpec
from methods.tasks.split import Split

Columns = Mapping[str, Sequence[Any]]


def read_directory(spec: TaskSpec, folder: Path) -> dict[str, Split]:
    """`train` and `validation` (and a known task's extra splits, where their files are there) from `<split>.tsv`; of questions from
    `<split>.json`."""
    if spec.kind == "span":
        return dict(questions.read_directory(folder))
    if not folder.is_dir():
        raise UserError(f"task.data: {str(folder)!r} is no directory; a directory with train.tsv and validation.tsv, or 'hub', is needed")
    extra = [name for name in _known(spec).extra if (folder / f"{name}.tsv").is_file()]
    return {name: read_file(spec, folder / f"{name}.tsv", name) for name in ("train", "validation", *extra)}


def read_file(spec: TaskSpec, path: Path, name: str) -> Split:
    """One split from a file with a header, tab-separated, without quoting; texts such as "NA" stay texts.

    Raises UserError with file and line where the file is missing, is no UTF-8, lacks a column, or has a malformed row or label.
    """
    lines = _lines(path)
    header, rows = lines[0].split("\t"), [line.split("\t") for line in lines[1:]]
    _require(spec, header, f"{path}: the header", " (columns are separated by tabs)" if len(header) == 1 else "")
    twice = sorted({column for column in header if header.count(column) > 1})
    if twice:
        raise UserError(f"{path}: the header names {', '.join(twice)} twice; each column needs a name of its own")
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise UserError(f"{path}, line {number}: {len(row)} fields; the header has {len(header)} ({', '.join(header)}), tab-separated")
    columns = {column: [row[place] for row in rows] for place, column in enumerate(header)}
    return make_split(spec, name, columns, str(path), lambda row: f"{path}, line {row + 2}")


def _lines(path: Path) -> list[str]:
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; a task's directory holds train.tsv and validation.tsv") from error
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror})") from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {line}: no UTF-8 (byte 0x{data[error.start]:02x}); save the file as UTF-8") from error
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    return lines[:-1] if len(lines) > 1 and not lines[-1] else lines


def read_hub(spec: TaskSpec, repository: str = "") -> dict[str, Split]:
    """Train and validation splits by `datasets.load_dataset`: of the known task's hub data set, or of `repository`.

    `repository`: a hub name or a local data set folder, with `:configuration` behind it where there are several.
    """
    known = _known(spec)
    if not repository and known.hub is None:
        wanted = "a directory with train.tsv and validation.tsv, or hub:NAME"
        raise UserError(f"task.data: no hub data set is known for {spec.name!r}; give {wanted}")
    path, configuration = _address(repository) if repository else known.hub or ("", "")
    data = _load(path, configuration)
    found = ", ".join(data)
    validation = known.validation if known.validation in data else "validation"
    for name in ("train", validation):
        if name not in data:
            raise UserError(f"{path}: no split {name!r}; it has {found}")
    parts = {"train": "train", "validation": validation, **{name: name for name in known.extra if name in data}}
    source = f"{path}:{configuration}" if configuration else path
    return {name: _from_dataset(spec, name, data[part], f"{source}, split {part}") for name, part in parts.items()}


def _address(repository: str) -> tuple[str, str]:
    if Path(repository).exists() or ":" not in repository:
        return repository, ""
    path, _, configuration = repository.rpartition(":")
    return path, configuration


def _load(path: str, configuration: str) -> Any:
    import datasets

    try:
        return datasets.load_dataset(path, configuration or None)
    except Exception as error:  # whatever the hub client, the network or a broken file raise: the user gets one line
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        name = f"{path}:{configuration}" if configuration else path
        offline = "a directory with the data's files works without the hub"
        raise UserError(f"task.data: the data set {name!r} can't be loaded ({reason}); {offline}") from error


def _from_dataset(spec: TaskSpec, name: str, data: Any, source: str) -> Split:
    _require(spec, data.column_names, source)
    if spec.kind == "span":
        return questions.from_dataset(spec, name, data, source)
    columns: dict[str, list[Any]] = {column: list(data[column]) for column in (*spec.text, spec.label)}
    classes = getattr(data.features[spec.label], "names", None)
    if classes and set(classes) == set(spec.labels):  # an order of its own must not permute the classes
        columns[spec.label] = [classes[value] if 0 <= value < len(classes) else value for value in columns[spec.label]]
    for column in spec.text:
        absent = next((row for row, value in enumerate(columns[column]) if not isinstance(value, str)), None)
        if absent is not None:
            raise UserError(f"{source}, row {absent}: column {column!r} holds {columns[column][absent]!r}; a text is needed")
    return make_split(spec, name, columns, source, lambda row: f"{source}, row {row}")


def make_split(spec: TaskSpec, name: str, columns: Columns, source: str, place: Callable[[int], str]) -> Split:
    """A split from columns of equal length; `place(row)` says where a row stands, for messages."""
    values = columns[spec.label]
    if not len(values):
        raise UserError(f"{source}: no rows; split {name!r} must not be empty")
    read = _score if spec.kind == "regression" else _class_reader(spec)
    labels = [_checked(read, value, spec, place, row) for row, value in enumerate(values)]
    texts = [tuple(text.strip() for text in columns[column]) for column in spec.text]
    dtype = np.float32 if spec.kind == "regression" else np.int64
    return Split(name, texts[0], texts[1] if len(texts) > 1 else None, np.array(labels, dtype), np.arange(len(values), dtype=np.int64))


def _checked(read: Callable[[Any], float | None], value: Any, spec: TaskSpec, place: Callable[[int], str], row: int) -> float:
    label = read(value)
    if label is None:
        allowed = f"0 to {len(spec.labels) - 1}, or {', '.join(spec.labels)}" if spec.labels else "a finite number"
        raise UserError(f"{place(row)}: label {value!r} in column {spec.label!r}; allowed: {allowed}")
    return label


def _class_reader(spec: TaskSpec) -> Callable[[Any], int | None]:
    """Reads names, and integers too unless the names themselves are integers."""
    known = {name: number for number, name in enumerate(spec.labels)}
    if not any(name.lstrip("-").isdigit() for name in known):
        known |= {str(number): number for number in range(len(spec.labels))}
    return lambda value: known.get(str(value).strip())


def _score(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _require(spec: TaskSpec, found: Iterable[str], source: str, hint: str = "") -> None:
    names = list(found)
    missing = [column for column in (*spec.text, spec.label) if column not in names]
    if missing:
        raise UserError(f"{source} lacks column {', '.join(map(repr, missing))} of task {spec.name!r}; found: {', '.join(names)}{hint}")


def _known(spec: TaskSpec) -> Known:
    """What is known of the task by its name; of one that the experiment file describes, its spec alone."""
    return KNOWN.get(spec.name, Known("", spec))
