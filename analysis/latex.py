"""A head-to-head comparison as LaTeX tables for a paper."""

from __future__ import annotations

from typing import TYPE_CHECKING

from analysis.cells import Footnotes, conventions, parts, remarks

if TYPE_CHECKING:
    from analysis.head_to_head import HeadToHead

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
    """One floating table per task and budget, and per corpus; what was done on corpora in words. Needs `booktabs`."""
    pieces = ["% needs \\usepackage{booktabs}"]
    for part in parts(table):
        notes = Footnotes()
        headings, body = part.cells(notes)
        lines = [" & ".join(map(escaped, line)) + r" \\" for line in body]
        caption = " ".join([part.title + ".", *conventions(part.blocks), *part.sentences])
        pieces += [
            r"\begin{table}",
            r"\centering\small",
            rf"\caption{{{_words(caption)}}}",
            rf"\begin{{tabular}}{{{''.join('l' if c.left else 'r' for c in part.columns)}}}",
            r"\toprule",
            " & ".join(map(escaped, headings)) + r" \\",
            r"\midrule",
            *_ruled(lines, part.breaks),
            r"\bottomrule",
            r"\end{tabular}",
            *(rf"\par {escaped(line)}" for line in notes.lines()),
            r"\end{table}",
            "",
        ]
    pieces += [rf"\par {_words(line)}" for line in remarks(table)]
    return "\n".join(pieces)


def _ruled(lines: list[str], breaks: tuple[int, ...]) -> list[str]:
    """With a rule before some lines."""
    return [text for i, line in enumerate(lines) for text in ([r"\midrule", line] if i and i in breaks else [line])]


def _words(text: str) -> str:
    return escaped(text).replace("`", "")
