"""Questions from files in the layout of SQuAD v1.1, or from a data set with its columns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ValidationError

from methods.errors import UserError
from methods.tasks.questions.split import QuestionSplit
from methods.tasks.spec import TaskSpec


class _Answer(BaseModel):
    text: str
    answer_start: int


class _Question(BaseModel):
    question: str
    answers: list[_Answer]


class _Paragraph(BaseModel):
    context: str
    qas: list[_Question]


class _Article(BaseModel):
    title: str = ""
    paragraphs: list[_Paragraph]


class _File(BaseModel):
    data: list[_Article]


@dataclass(frozen=True)
class Row:
    """A question; `answers`: texts and where they begin in the context; `place`: where it stands, for messages."""

    place: str
    article: str
    context: str
    question: str
    answers: tuple[tuple[str, int], ...]


def read_directory(folder: Path) -> dict[str, QuestionSplit]:
    """`train` and `validation` from train.json and validation.json. Raises UserError."""
    if not folder.is_dir():
        raise UserError(f"task.data: {str(folder)!r} is no directory; a directory with train.json and validation.json, or 'hub', is needed")
    return {name: read_file(folder / f"{name}.json", name) for name in ("train", "validation")}


def read_file(path: Path, name: str) -> QuestionSplit:
    """One split from a file: `data` > `paragraphs` > `qas` > `answers` with `text` and `answer_start`. Entries of `data` with one `title`,
    or each without one, are an article.

    Raises UserError with file and place where it is missing or malformed, or an answer is not in its context where it is said to be.
    """
    try:
        file = _File.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; the directory of a task with questions holds train.json and validation.json") from error
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror})") from error
    except ValidationError as error:
        first, count = error.errors()[0], error.error_count()
        others = f" ({count - 1} more mistakes)" if count > 1 else ""
        place = _place(first["loc"])
        raise UserError(f"{path}{place and ', ' + place}: {first['msg']}; the layout of SQuAD v1.1 is needed{others}") from error
    return make_split(name, _rows(file), str(path))


def _place(steps: Iterable[str | int]) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).removeprefix(".")


def _rows(file: _File) -> Iterator[Row]:
    for a, article in enumerate(file.data):
        for p, paragraph in enumerate(article.paragraphs):
            for q, asked in enumerate(paragraph.qas):
                place = f"data[{a}].paragraphs[{p}].qas[{q}]"
                answers = tuple((answer.text, answer.answer_start) for answer in asked.answers)
                yield Row(place, article.title or f"data[{a}]", paragraph.context, asked.question, answers)


def from_dataset(spec: TaskSpec, name: str, data: Any, source: str) -> QuestionSplit:
    """A split from a data set with a column for question, context and answers each; rows of one `title` (without that column, of one
    context) are of one article."""
    (question, context), answers = spec.text, spec.label
    article = "title" if "title" in data.column_names else context

    def rows() -> Iterator[Row]:
        for number, row in enumerate(data):
            place = f"row {number}"
            yield Row(place, str(row[article]), row[context], row[question], _answers(row[answers], answers, f"{source}, {place}"))

    return make_split(name, rows(), source)


def _answers(found: Any, column: str, place: str) -> tuple[tuple[str, int], ...]:
    """From lists under `text` and `answer_start`, or a list of pairs of them."""
    try:
        if isinstance(found, Mapping):
            return tuple(zip(found["text"], map(int, found["answer_start"]), strict=True))
        return tuple((answer["text"], int(answer["answer_start"])) for answer in found)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{place}: column {column!r} holds {found!r}; `text` and `answer_start` of each answer are needed") from error


def make_split(name: str, rows: Iterable[Row], source: str) -> QuestionSplit:
    """A split of these rows. Raises UserError, naming the first place and how many there are, for rows that can't be used."""
    kept = list(rows)
    if not kept:
        raise UserError(f"{source}: no questions; split {name!r} must not be empty")
    _refuse(kept, source, "without an answer; of SQuAD v2.0's unanswerable questions nothing is known here", lambda row: not row.answers)
    _refuse(kept, source, "without a text", lambda row: not (row.question.strip() and row.context.strip()))
    _refuse(kept, source, "with an empty answer", lambda row: any(not text.strip() for text, _ in row.answers))
    wrong = [(row, *answer) for row in kept for answer in row.answers if not _is_there(row.context, *answer)]
    if wrong:
        row, text, start = wrong[0]
        found = row.context.find(text)
        where = f"it is at {found}" if found >= 0 else "it is nowhere in the context"
        raise UserError(
            f"{source}: {len(wrong)} answers are not where answer_start points; the first is of {row.place}: "
            f"{text!r} is not at {start} ({where}); answer_start counts characters from 0"
        )
    numbers: dict[str, int] = {}
    return QuestionSplit(
        name,
        tuple(row.question.strip() for row in kept),
        tuple(row.context for row in kept),
        np.array([_span(*row.answers[0]) for row in kept], dtype=np.int64),
        np.arange(len(kept), dtype=np.int64),
        tuple(tuple(text for text, _ in row.answers) for row in kept),
        np.array([numbers.setdefault(row.article, len(numbers)) for row in kept], dtype=np.int64),
    )


def _refuse(rows: list[Row], source: str, why: str, bad: Callable[[Row], bool]) -> None:
    found = [row for row in rows if bad(row)]
    if found:
        raise UserError(f"{source}, {found[0].place}: a question {why} ({len(found)} of {len(rows)} are so)")


def _is_there(context: str, text: str, start: int) -> bool:
    return start >= 0 and context[start : start + len(text)] == text


def _span(text: str, start: int) -> tuple[int, int]:
    """The answer's characters, white space around it left out."""
    begin = start + len(text) - len(text.lstrip())
    return begin, begin + len(text.strip())
