"""The terminal's view of a comparison: table, failures, sentences."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from peftlab.errors import InputError
from peftlab.printable import printable, terminal
from peftlab.records.reading import StoredRun
from peftlab.records.record import Record
from peftlab.report import predictions
from peftlab.report.table import as_rich, rows
from peftlab.verdict.outcome import said, verdict


def show(runs: Sequence[StoredRun], console: Console | None = None, columns: str = "usual") -> None:
    """Print all of it; a long sentence wraps where the terminal ends.

    Raises:
        InputError: a column that does not exist.
    """
    console = console or terminal()
    if not console.is_terminal:
        console.width = max(console.width, 160)  # a table in a file or a pipe is not cut
    records = [run.record for run in runs]
    console.print(as_rich(records, console.width, _title(records), columns))
    for row in rows(records):
        if row.problem:
            _say(console, f"{row.label}: {row.problem}")
    for text in words(runs):
        _say(console, text)


def words(runs: Sequence[StoredRun]) -> list[str]:
    """The verdict in sentences, or why there is none, and how good the predictions were."""
    problems: list[str] = []
    try:
        sentences = said(verdict(runs, problems=problems))
    except InputError as error:
        sentences = [str(error)]
    return [*sentences, *problems, *predictions.words([run.record for run in runs])]


def _title(records: Sequence[Record]) -> str:
    first = records[0]
    seeds = sorted({record.seed for record in records})
    skipped = f", {first.skipped:,} longer ones left out" if first.skipped else ""
    return (
        f"{first.task.name} ({first.task.test_rows:,} test examples{skipped}) with "
        f"{first.model.name} "
        f"({first.model.parameters:,} parameters), seed{'s' * (len(seeds) > 1)} "
        f"{', '.join(map(str, seeds))}"
    )


def _say(console: Console, text: str) -> None:
    wide = not console.is_terminal  # a sentence in a file or a pipe is one line
    text = printable(text, lines=True)
    console.print(text, markup=False, highlight=False, emoji=False, soft_wrap=wide)
