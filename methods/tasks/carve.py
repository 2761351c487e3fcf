"""The `search` split: rows of train set apart so that no text is on both sides.

A phrase goes with the sentence that contains it; one that several sentences contain goes with the first of them. Questions go with all
others about their article.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from methods.errors import UserError
from methods.tasks.questions.split import QuestionSplit
from methods.tasks.split import Split, strata

DATA_SEED = 0
LONGEST_ROOT = 64
"""Words up to which a text claims its phrases; a longer one claims its exact duplicates alone."""


def carve(train: Split, source: str, rows: int = 2000) -> tuple[Split, Split]:
    """`train` without the search rows, and `search`: min(10 %, `rows`) of them, stratified, whole groups, by data seed 0.

    Raises UserError, naming `source`, where the rows are too few or share their texts so widely that half of that can't be had.
    """
    wanted = min(len(train) // 10, rows)
    if wanted < 1:
        raise UserError(f"{source}: {len(train)} rows; at least 10 are needed to set a tenth of them apart as search split")
    chosen = choose_groups(_groups(train), strata(train.labels), wanted)
    if 2 * chosen.sum() < wanted:
        raise UserError(
            f"{source}: the rows share texts (questions: articles) in groups so large that only {int(chosen.sum())} of {wanted} rows "
            "for the search split can be set apart; more rows with texts of their own are needed"
        )
    return train.take(np.flatnonzero(~chosen)), train.take(np.flatnonzero(chosen), "search")


def _groups(train: Split) -> NDArray[np.int64]:
    if isinstance(train, QuestionSplit):
        return train.articles
    return phrase_groups(train.text) if train.text_b is None else pair_groups(train.text, train.text_b)


def normalised(text: str) -> str:
    """The form in which texts are compared: case folded, single spaces."""
    return " ".join(text.casefold().split())


def phrase_groups(texts: Sequence[str]) -> NDArray[np.int64]:
    """Group number of each text: equal texts together, and a text with a longer one that has it as a sequence of words.

    From the longest text on, each one that nobody has claimed is the root of a group and claims all unclaimed texts that are
    spans of its words. A text in several roots goes with the first.
    """
    keys = [normalised(text) for text in texts]
    words = {key: key.split(" ") for key in dict.fromkeys(keys)}
    reach = _reach(list(words.values()))
    group: dict[str, int] = {}
    roots = 0
    for key in sorted(words, key=lambda key: -len(words[key])):
        if key in group:
            continue
        group[key] = roots
        if len(words[key]) <= LONGEST_ROOT:
            for span in _spans(words[key], reach):
                if span in words:
                    group.setdefault(span, roots)
        roots += 1
    return np.array([group[key] for key in keys], dtype=np.int64)


def _reach(texts: Sequence[Sequence[str]]) -> dict[tuple[str, ...], int]:
    """For the first two words of a text, the length of the longest text that begins with them: what spans are worth a look."""
    reach: dict[tuple[str, ...], int] = defaultdict(int)
    for words in texts:
        start = tuple(words[:2])
        reach[start] = max(reach[start], len(words))
    return reach


def _spans(words: Sequence[str], reach: dict[tuple[str, ...], int]) -> list[str]:
    """The contiguous spans of `words` that may be a text of their own."""
    spans = list(words)
    for start in range(len(words) - 1):
        furthest = min(reach.get((words[start], words[start + 1]), 0), len(words) - start)
        spans.extend(" ".join(words[start : start + length]) for length in range(2, furthest + 1))
    return spans


def pair_groups(first: Sequence[str], second: Sequence[str]) -> NDArray[np.int64]:
    """Group number of each row: rows with a text in common, in whichever column, are together, and so are theirs in turn."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    number: dict[str, int] = {}
    ends = [np.array([number.setdefault(normalised(text), len(number)) for text in column]) for column in (first, second)]
    graph = coo_array((np.ones(len(first), dtype=np.int8), (ends[0], ends[1])), shape=(len(number), len(number)))
    component: NDArray[np.int64] = connected_components(graph, directed=False)[1][ends[0]].astype(np.int64)
    return component


def choose_groups(groups: NDArray[np.int64], strata_: NDArray[np.int64], wanted: int) -> NDArray[np.bool_]:
    """Which rows are chosen: whole groups in random order, as long as no stratum passes its share and all not `wanted` rows."""
    counts = np.zeros((groups.max() + 1, strata_.max() + 1), dtype=np.int64)
    np.add.at(counts, (groups, strata_), 1)
    order = np.random.default_rng(DATA_SEED).permutation(len(counts))
    room = np.ceil(wanted * counts.sum(axis=0) / len(groups)).astype(np.int64).tolist()
    left = wanted
    chosen = np.zeros(len(counts), dtype=bool)
    for number, row in zip(order.tolist(), counts[order].tolist(), strict=True):
        if sum(row) <= left and all(mine <= most for mine, most in zip(row, room, strict=True)):
            chosen[number] = True
            left -= sum(row)
            room = [most - mine for mine, most in zip(row, room, strict=True)]
            if not left:
                break
    return chosen[groups]
