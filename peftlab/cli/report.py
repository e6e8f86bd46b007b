"""`peftlab report`: show the records of a folder again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    out: Annotated[Path, typer.Argument(help="The folder of a comparison, or of one run.")],
    format: Annotated[str, typer.Option(help="table, json, csv or md.")] = "table",
) -> None:
    """Make the table again from the records of a comparison."""
    from peftlab.compare.sentences import sentences
    from peftlab.report.records import read
    from peftlab.report.show import show
    from peftlab.report.table import render

    found = read(out)
    for problem in found.problems:
        typer.echo(problem, err=True)
    if format == "table":
        show(found.records, sentences(found.records))
    else:
        typer.echo(render(found.records, format), nl=False)
