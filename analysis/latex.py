"""A head-to-head comparison as LaTeX tables for a paper."""

from __future__ import annotations

from typing import TYPE_CHECKING

from analysis.cells import Footnotes, cells_of, columns_of, conventions, title

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
    """One floating table per block; needs `booktabs`."""
    columns = columns_of(len(table.runs) > 1)
    pieces = ["% needs \\usepackage{booktabs}"]
    for block in table.blocks:
        notes = Footnotes()
        headings, body = cells_of(block, notes, len(table.runs) > 1)
        lines = [" & ".join(map(escaped, line)) + r" \\" for line in body]
        methods = sum(row.kind == "method" for row in block.rows)
        caption = " ".join([title(block) + ".", *conventions([block]), *block.sentences])
        pieces += [
            r"\begin{table}",
            r"\centering\small",
            rf"\caption{{{escaped(caption).replace('`', '')}}}",
            rf"\begin{{tabular}}{{{''.join('l' if c.left else 'r' for c in columns)}}}",
            r"\toprule",
            " & ".join(map(escaped, headings)) + r" \\",
            r"\midrule",
            *(lines[:methods] + ([r"\midrule"] if 0 < methods < len(lines) else []) + lines[methods:]),
            r"\bottomrule",
            r"\end{tabular}",
            *(rf"\par {escaped(line)}" for line in notes.lines()),
            r"\end{table}",
            "",
        ]
    return "\n".join(pieces)
