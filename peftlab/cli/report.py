"""`peftlab report`: show the records of a folder again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from peftlab.errors import InputError

BEGIN, END = "<!-- peftlab:report -->", "<!-- /peftlab:report -->"


def report(
    out: Annotated[Path, typer.Argument(help="The folder of a comparison, or of one run.")],
    format: Annotated[str, typer.Option(help="table, json, csv or md.")] = "table",
    into: Annotated[
        Path | None,
        typer.Option(help="Put it into this file, between its two peftlab:report marks."),
    ] = None,
) -> None:
    """Make the table again from the records of a comparison."""
    from peftlab.report.records import read
    from peftlab.report.show import show, words
    from peftlab.report.table import render

    found = read(out)
    for problem in found.problems:
        typer.echo(problem, err=True)
    if format == "table":
        show(found.runs)
        return
    text = render(found.records, format)
    if format == "md":
        text += "".join(f"\n{line}\n" for line in words(found.runs))
    if into is None:
        typer.echo(text, nl=False)
    else:
        put_between(into, text)


def put_between(path: Path, text: str) -> None:
    """Replace what stands between the marks of a file, whole or not at all.

    Raises:
        InputError: a file without both marks.
    """
    if not path.is_file():
        raise InputError(f"--into {path}: there is no such file")
    before, begin, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise InputError(f"--into {path}: it needs the marks {BEGIN} and {END}, in this order")
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(f"{before}{BEGIN}\n{text}{END}{after}", encoding="utf-8")
    temporary.replace(path)
