"""`Corpus`: unlabelled text in three splits, packed to any length, and what masks its words."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from methods.corpus.documents import Documents, tokenised
from methods.corpus.masking import Masker
from methods.corpus.options import CorpusOptions
from methods.corpus.packing import Packed, Stream
from methods.corpus.sources import Source, open_source
from methods.errors import UserError
from methods.tasks.task import ClosedSplit

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["Corpus", "Packed", "open_corpus"]

SPLITS = ("train", "search", "validation")


class Corpus:
    """A view on a corpus that opens the splits `open_splits`; no two splits share a document, and all lengths have the same splits."""

    def __init__(self, text: _PackedText, masker: Masker, open_splits: tuple[str, ...] = SPLITS) -> None:
        self._text = text
        self._open = open_splits
        self.masker = masker

    @property
    def name(self) -> str:
        return self._text.options.name

    def packed(self, split: str, length: int) -> Packed:
        """The split in sequences of `length` tokens, [CLS] and [SEP] counted.

        Raises ClosedSplit where this view does not show the split, UserError where there is none of that name, where its text makes no
        sequence of that length, or where the text can't be read.
        """
        self._check(split)
        return self._text.packed(split, length)

    def restricted(self, *names: str) -> Corpus:
        """A view that opens the named splits alone."""
        for name in names:
            self._check(name)
        return Corpus(self._text, self.masker, names)

    def _check(self, split: str) -> None:
        if split not in SPLITS:
            raise UserError(f"corpus {self.name!r}: no split {split!r}; there are {', '.join(SPLITS)}")
        if split not in self._open:
            raise ClosedSplit(f"corpus {self.name!r}: split {split!r} is closed here; open are {', '.join(self._open)}")


def open_corpus(options: CorpusOptions, tokenizer: PreTrainedTokenizerBase, folder: Path) -> Corpus:
    """What `CorpusOptions.load` gives."""
    tokens = {"[CLS]": tokenizer.cls_token_id, "[SEP]": tokenizer.sep_token_id, "[MASK]": tokenizer.mask_token_id}
    missing = [name for name, number in tokens.items() if number is None]
    if missing:
        raise UserError(
            f"backbone {tokenizer.name_or_path}: its tokenizer has no {', no '.join(missing)}; a corpus needs {', '.join(tokens)}"
        )
    source = open_source(options.data, options.text)
    vocabulary = max(tokenizer.get_vocab().values()) + 1
    masker = Masker(int(tokens["[MASK]"]), vocabulary, tuple(sorted(tokenizer.all_special_ids)))
    return Corpus(_PackedText(options, source, tokenizer, folder), masker)


class _PackedText:
    """The text behind all views of a corpus; tokenised, or read back, when the first split is asked for."""

    def __init__(self, options: CorpusOptions, source: Source, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
        self.options = options
        self.source = source
        self.tokenizer = tokenizer
        self.folder = folder
        self._packed: dict[tuple[str, int], Packed] = {}

    def packed(self, split: str, length: int) -> Packed:
        if (split, length) not in self._packed:
            self._packed[split, length] = self._pack(split, length)
        return self._packed[split, length]

    def _pack(self, split: str, length: int) -> Packed:
        if length < 3:
            raise UserError(
                f"corpus {self.options.name!r}: sequences of {length} tokens; at least 3 are needed, [CLS] and [SEP] among them"
            )
        limit = self.options.sequences if split == "train" else None
        packed = Packed(self._streams[split], length, self.tokenizer.cls_token_id, self.tokenizer.sep_token_id, limit)
        if not len(packed):
            raise UserError(
                f"corpus {self.options.name!r}: its split {split!r} has {len(packed.stream)} tokens; a sequence of length {length} takes "
                f"{length - 2} besides [CLS] and [SEP]: {self._remedy(split)}"
            )
        return packed

    def _remedy(self, split: str) -> str:
        if split == "train" or (split == "validation" and "validation" in self._documents):
            return "more text or a smaller length is needed"
        return f"a larger corpus.{split}_share (now {getattr(self.options, f'{split}_share')}) or a smaller length is needed"

    @cached_property
    def _documents(self) -> dict[str, Documents]:
        return tokenised(self.source, self.tokenizer, self.folder, self.options.rows, self.options.name)

    @cached_property
    def _streams(self) -> dict[str, Stream]:
        """The tokens of each split: train, behind it search, behind that validation where it has no text of its own."""
        train, own = self._documents["train"], self._documents.get("validation")
        needed = 2 if own is not None else 3
        if len(train) < needed:
            raise UserError(
                f"corpus.data: {self.options.data!r} has {len(train)} documents for training; at least {needed} are needed, with a blank "
                "line between any two, to set whole ones apart"
            )
        end = len(train) if own is not None else train.carve(len(train), self.options.validation_share, left=2)
        start = train.carve(end, self.options.search_share, left=1)
        validation = train.joined(end, len(train)) if own is None else own.joined(0, len(own))
        return {"train": train.joined(0, start), "search": train.joined(start, end), "validation": validation}
