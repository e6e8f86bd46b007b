"""The comparison's table in LaTeX, with booktabs' rules."""

from __future__ import annotations

from collections.abc import Sequence

from peftlab.printable import printable
from peftlab.records.figures import chosen
from peftlab.records.record import Record
from peftlab.report.table import cells, rows

_SIGNS = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "±": r"$\pm$",
    "–": "--",
    "≈": r"$\approx$",
    "[": "{[}",  # after a line's end, it and * would be read as the end's own
    "*": "{*}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}


def as_latex(records: Sequence[Record], columns: str = "usual") -> str:
    """A `tabular` for a paper; it needs \\usepackage{booktabs}."""
    wanted = chosen(records, columns)
    lines = [
        f"\\begin{{tabular}}{{l{'r' * len(wanted)}}}",
        r"\toprule",
        _line(["method", *(column.title for column in wanted)]),
        r"\midrule",
    ]
    for row in rows(records):
        if row.problem:
            said = f"\\multicolumn{{{len(wanted)}}}{{l}}{{{escaped(row.problem)}}}"
            lines.append(f"{escaped(row.label)} & {said} \\\\")
        else:
            lines.append(_line([row.label, *cells(row, wanted)]))
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def escaped(text: str) -> str:
    """The text with LaTeX's own signs as letters."""
    return "".join(_SIGNS.get(sign, sign) for sign in printable(text))


def _line(texts: Sequence[str]) -> str:
    return " & ".join(map(escaped, texts)) + r" \\"
