"""Tokenised documents: written once, then memory-mapped; and which of them are set apart."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from methods.corpus.packing import Stream
from methods.corpus.sources import BORDER, Source, Text
from methods.errors import UserError
from methods.training.checkpoint import write_atomically
from methods.training.progress import progress_bar

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FORMAT = 1
MARK = "documents.json"
BATCH = 1 << 20
"""Characters that are tokenised together; a longer text is cut at a space."""
LEAST = 510
"""Tokens that a carved split has at least: a sequence of BERT's longest without [CLS] and [SEP]."""
Encode = Callable[[list[str]], list[list[int]]]


@dataclass(frozen=True, eq=False)
class Documents:
    """`stream` (tokens,): every document with a [SEP] behind it; `starts` (n + 1,) int64: where each begins, and the end of all."""

    stream: Stream
    starts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def joined(self, first: int, end: int) -> Stream:
        """The tokens of these documents, [SEP] between them."""
        return self.stream[int(self.starts[first]) : int(self.starts[end]) - 1]

    def carve(self, end: int, share: float, left: int) -> int:
        """The number of the first document that is set apart of those before `end`: of the last ones, as few as hold this share of all
        tokens (and at least 510 of them, or a tenth of all); the first `left` documents are never among them."""
        wanted = max(share * len(self.stream), min(LEAST, len(self.stream) / 10))
        place = int(np.searchsorted(self.starts[: end + 1], self.starts[end] - wanted, side="right")) - 1
        return max(left, place)


def tokenised(source: Source, tokenizer: PreTrainedTokenizerBase, folder: Path, rows: int | None, name: str) -> dict[str, Documents]:
    """The documents of every split of a source: read from `folder` where the same text was tokenised alike before, else written there.

    `name` is the corpus's, for progress and messages. Raises UserError where a split is empty or what is kept is damaged.
    """
    identity = {"format": FORMAT, "rows": rows, "tokenizer": tokenizer_digest(tokenizer), **source.identity()}
    place = folder / hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    if not place.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        aside = folder / f"{place.name}.{uuid4().hex}.part"
        aside.mkdir()
        try:
            _write(aside, source.splits(rows), tokenizer, name, identity)
            _publish(aside, place)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return _read(place)


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 (hex) of all that decides about tokens: vocabulary, rules and the ids of [CLS] and [SEP], not padding or truncation."""
    rules: Any = sorted(tokenizer.get_vocab().items())
    if tokenizer.is_fast:
        rules = {**json.loads(tokenizer.backend_tokenizer.to_str()), "padding": None, "truncation": None}
    data = [rules, tokenizer.cls_token_id, tokenizer.sep_token_id]
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def _write(folder: Path, splits: dict[str, Text], tokenizer: PreTrainedTokenizerBase, name: str, identity: dict[str, Any]) -> None:
    encode, separator = _encoder(tokenizer), int(tokenizer.sep_token_id)
    dtype = np.dtype("<u2" if max(tokenizer.get_vocab().values()) < 1 << 16 else "<u4")
    counts = {}
    for split, text in splits.items():
        with (folder / f"{split}.tokens").open("wb") as stream, (folder / f"{split}.starts").open("wb") as starts:
            tokens = 0
            starts.write(np.array([0], "<i8").tobytes())
            for ids, ends in _joined(_shown(_batches(text.texts), text.size, f"tokenise {name} {split}"), encode, separator):
                stream.write(np.array(ids, dtype).tobytes())
                starts.write((np.array(ends, "<i8") + tokens).tobytes())
                tokens += len(ids)
            counts[split] = {"tokens": tokens, "documents": starts.tell() // 8 - 1}
            for file in (stream, starts):
                file.flush()
                os.fsync(file.fileno())
        if not tokens:
            raise UserError(f"corpus.data: the {split} text of corpus {name!r} has no words")
    write_atomically(folder / MARK, json.dumps({**identity, "dtype": dtype.str, "splits": counts}, indent=1) + "\n")


def _joined(batches: Iterable[list[str]], encode: Encode, separator: int) -> Iterator[tuple[list[int], list[int]]]:
    """For each batch its tokens with a separator behind every document, and the places behind those; documents without tokens vanish."""
    begun = False
    for batch in batches:
        encoded = iter(encode([text for text in batch if text]))
        ids: list[int] = []
        ends: list[int] = []
        for text in batch:
            if text:
                tokens = next(encoded)
                ids += tokens
                begun = begun or bool(tokens)
            elif begun:
                ids.append(separator)
                ends.append(len(ids))
                begun = False
        yield ids, ends


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """The texts, with a border at the end, in lists of about a million characters."""
    batch: list[str] = []
    size = 0
    for text in chain(texts, [BORDER]):
        for part in _cut(text):
            batch.append(part)
            size += len(part) + 1
            if size >= BATCH:
                yield batch
                batch, size = [], 0
    yield batch


def _cut(text: str) -> Iterator[str]:
    """The text in parts of at most `BATCH` characters, cut before spaces where there are any."""
    start = 0
    while len(text) - start > BATCH:
        space = text.rfind(" ", start + 1, start + BATCH)
        end = space if space > 0 else start + BATCH
        yield text[start:end]
        start = end
    yield text[start:]


def _shown(batches: Iterable[list[str]], size: int | None, description: str) -> Iterator[list[str]]:
    """The batches, with their progress in bytes."""
    bar = progress_bar(size, description)
    bar.unit, bar.unit_scale = "B", True
    for batch in batches:
        yield batch
        bar.update(sum(len(text.encode()) + 1 for text in batch if text))
    bar.close()


def _encoder(tokenizer: PreTrainedTokenizerBase) -> Encode:
    """Texts to token ids, no special ones among them: what looks like one in a text is a text."""
    if not tokenizer.is_fast:
        quiet: dict[str, Any] = {"add_special_tokens": False, "split_special_tokens": True, "verbose": False}
        return lambda texts: tokenizer(texts, **quiet)["input_ids"] if texts else []
    from tokenizers import Tokenizer

    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = True
    return lambda texts: [encoding.ids for encoding in backend.encode_batch_fast(texts, add_special_tokens=False)]


def _publish(aside: Path, place: Path) -> None:
    """Puts a finished folder in its place, where another process may have been first."""
    try:
        aside.rename(place)
    except OSError:
        if not place.is_dir():
            raise


def _read(folder: Path) -> dict[str, Documents]:
    try:
        data = json.loads((folder / MARK).read_text())
        return {split: _map(folder, split, np.dtype(data["dtype"]), counts) for split, counts in data["splits"].items()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder}: the tokens kept there are damaged ({error}); remove the folder to make them anew") from error


def _map(folder: Path, split: str, dtype: np.dtype[Any], counts: dict[str, int]) -> Documents:
    shapes = {"tokens": (dtype, counts["tokens"]), "starts": (np.dtype("<i8"), counts["documents"] + 1)}
    for kind, (element, count) in shapes.items():
        if (size := (folder / f"{split}.{kind}").stat().st_size) != element.itemsize * count:
            raise ValueError(f"{split}.{kind} has {size} bytes instead of {element.itemsize * count}")
    stream, starts = (np.asarray(np.memmap(folder / f"{split}.{kind}", element, mode="r")) for kind, (element, _) in shapes.items())
    return Documents(stream, starts)
