"""A head-to-head comparison as LaTeX tables for a paper."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from analysis.cells import Footnotes, conventions, parts, remarks
from analysis.prices import WHAT, prices_table

if TYPE_CHECKING:
    from analysis.head_to_head import HeadToHead

BOLD = "\0"
"""Marks a cell that is to be bold."""
_TEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{character: "\\" + character for character in "&%$#_{}"},
    **{"±": r"$\pm$", "×": r"$\times$", "–": "--", "…": r"\ldots{}", "<": r"$<$", ">": r"$>$"},
}


def escaped(text: str) -> str:
    """Text that LaTeX prints as it is."""
    return "".join(_TEX.get(character, character) for character in text)


def latex(table: HeadToHead) -> str:
    """A floating table of quality and one of costs per task and budget, one per corpus, one of what n tasks x b budgets cost; below in
    words what was done on corpora. Needs `booktabs` and `graphicx`; tables wider than the line are made to fit."""
    pieces = [r"% needs \usepackage{booktabs,graphicx}"]
    for part in parts(table):
        notes = Footnotes()
        headings, body = part.cells(notes, lambda text: BOLD + text)
        lines = [" & ".join(map(_cell, line)) + r" \\" for line in body]
        caption = " ".join([part.title + ".", *conventions(part.blocks, part.panel), *part.sentences])
        pieces += _floating(caption, [c.left for c in part.columns], headings, _ruled(lines, part.breaks), notes.lines())
    if table.prices:
        headings, body = prices_table(table.prices, named=len(table.runs) > 1)
        lines = [" & ".join(map(_cell, line)) + r" \\" for line in body]
        pieces += _floating(WHAT, [heading in ("run", "method") for heading in headings], headings, lines, [])
    pieces += [rf"\par {_words(line)}" for line in remarks(table)]
    return "\n".join(pieces)


def _floating(caption: str, left: Sequence[bool], headings: Sequence[str], lines: Sequence[str], notes: Sequence[str]) -> list[str]:
    return [
        r"\begin{table}",
        r"\centering\small",
        rf"\caption{{{_words(caption)}}}",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        rf"\begin{{tabular}}{{{''.join('l' if is_left else 'r' for is_left in left)}}}",
        r"\toprule",
        " & ".join(map(escaped, headings)) + r" \\",
        r"\midrule",
        *lines,
        r"\bottomrule",
        r"\end{tabular}}",
        *(rf"\par {escaped(line)}" for line in notes),
        r"\end{table}",
        "",
    ]


def _cell(text: str) -> str:
    """Escaped, and bold where it is marked so."""
    return rf"\textbf{{{escaped(text[len(BOLD) :])}}}" if text.startswith(BOLD) else escaped(text)


def _ruled(lines: list[str], breaks: tuple[int, ...]) -> list[str]:
    """With a rule before some lines."""
    return [text for i, line in enumerate(lines) for text in ([r"\midrule", line] if i and i in breaks else [line])]


def _words(text: str) -> str:
    return escaped(text).replace("`", "")
