"""`peftlab report`: show the records of a folder again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from peftlab.errors import InputError
from peftlab.files import write_text
from peftlab.printable import echo, markdown

if TYPE_CHECKING:
    from peftlab.records.reading import StoredRuns

BEGIN, END = "<!-- peftlab:report -->", "<!-- /peftlab:report -->"


def report(
    out: Annotated[Path, typer.Argument(help="The folder of a comparison, or of one run.")],
    format: Annotated[str, typer.Option(help="table, json, csv, md, latex or html.")] = "table",
    columns: Annotated[
        str,
        typer.Option(
            help="Of table, md and latex, with commas: all, or usual,validation_loss,rouge1 …"
        ),
    ] = "usual",
    into: Annotated[
        Path | None,
        typer.Option(help="Put it into this file, between its two peftlab:report marks."),
    ] = None,
) -> None:
    """Make the table again from the records of a comparison, or its page.

    html writes OUT/report.html and OUT/plots/*.svg (with the extra png, *.png too); the other
    formats are printed.
    """
    from peftlab.experiments.kept import is_experiment
    from peftlab.records.reading import read
    from peftlab.report.formats import check_columns, render
    from peftlab.report.show import show, words

    if is_experiment(out):
        if columns != "usual":
            raise InputError(f"--columns {columns}: an experiment's columns stand in its file")
        _experiment(out, format, into)
        return
    stored = read(out)
    for problem in stored.problems:
        echo(problem, err=True)
    if format == "table":
        show(stored.runs, columns=columns)
        return
    if format == "html":
        check_columns(format, columns)
        echo(_page(out, stored, into))
        return
    text = render(stored.records, format, columns)
    if format == "md":
        text += "".join(f"\n{markdown(line)}\n" for line in words(stored.runs))
    if into is None:
        echo(text, nl=False)
    else:
        put_between(into, text)


def _experiment(out: Path, format: str, into: Path | None) -> None:
    from peftlab.cli.experiment import show
    from peftlab.experiments.kept import read
    from peftlab.experiments.table import render

    experiment = read(out)
    if format == "table":
        show(experiment)
    elif into is None:
        echo(render(experiment, format), nl=False)
    else:
        put_between(into, render(experiment, format))


def _page(out: Path, stored: StoredRuns, into: Path | None) -> str:
    from peftlab.report.page import write

    if into is not None:
        raise InputError(f"--into {into}: a page is a file of its own; leave --into out")
    return f"The page is {write(out, stored)}"


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
    write_text(path, f"{before}{BEGIN}\n{text}{END}{after}")
