"""Which words of a text may be replaced, and which word pieces are words that may stand for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_STOP_WORDS = """
i me my myself we our ours ourselves you your yours yourself yourselves he him his himself she her hers herself it its itself
they them their theirs themselves what which who whom this that these those
am is are was were be been being have has had having do does did doing can will just should now
a an the and but if or because as until while of at by for with about against between into through during before after above below
to from up down in out on off over under
again further then once here there when where why how all any both each few more most other some such no nor not only own same so
than too very
s t d ll m o re ve y don ain aren couldn didn doesn hadn hasn haven isn ma mightn mustn needn shan shouldn wasn weren won wouldn
"""
STOP_WORDS = frozenset(_STOP_WORDS.split())
"""English words without a meaning of their own (NLTK's list without apostrophes). TinyBERT's code replaces question words; they stay
here, for they often decide the label."""
_SPACE = "Ġ"
"""How byte-level tokenizers write the space before a word."""


class Word(NamedTuple):
    """A word that may be replaced: its place in the text (characters), its first token's number (special tokens counted), its pieces."""

    start: int
    end: int
    token: int
    pieces: tuple[int, ...]


def words_of(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[Word]]:
    """Of each text the words that are made of letters, are no stop words, and have no unknown piece; as the tokenizer splits it."""
    found = tokenizer(list(texts), return_offsets_mapping=True, return_token_type_ids=False, return_attention_mask=False, verbose=False)
    unknown = tokenizer.unk_token_id
    rows = []
    for row, text in enumerate(texts):
        words = _words(found["input_ids"][row], found["offset_mapping"][row], found.word_ids(row))
        rows.append([word for word in words if unknown not in word.pieces and _replaceable(text[word.start : word.end])])
    return rows


def _replaceable(word: str) -> bool:
    return word.isalpha() and word.lower() not in STOP_WORDS


def _words(ids: Sequence[int], spans: Sequence[tuple[int, int]], numbers: Sequence[int | None]) -> Iterator[Word]:
    """Runs of tokens of the same word; special tokens have no number."""
    first = 0
    for place in range(1, len(ids) + 1):
        if place == len(ids) or numbers[place] != numbers[first]:
            if numbers[first] is not None:
                yield Word(spans[first][0], spans[place - 1][1], first, tuple(ids[first:place]))
            first = place


def whole_words(tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    """The pieces that are a word of letters by themselves."""
    pieces = list(tokenizer.convert_ids_to_tokens(list(range(len(tokenizer)))))
    byte_level = any(piece.startswith(_SPACE) for piece in pieces)
    found = {}
    for number, piece in enumerate(pieces):
        word = piece.removeprefix(_SPACE)
        # in byte-level tokenizers only what follows a space begins a word, and other letters than ASCII's are written as bytes
        whole = word != piece and word.isascii() if byte_level else True
        if whole and word.isalpha() and number not in tokenizer.all_special_ids:
            found[number] = word
    return found
