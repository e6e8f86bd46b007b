"""The terminal's view of a comparison: table, failures, sentences."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from peftlab.compare.record import Record
from peftlab.report.table import as_rich, rows


def show(
    records: Sequence[Record], sentences: Sequence[str], console: Console | None = None
) -> None:
    """Print all of it; a long sentence wraps where the terminal ends."""
    console = console or Console()
    if not console.is_terminal:
        console.width = max(console.width, 160)  # a table in a file or a pipe is not cut
    console.print(as_rich(records, _title(records)))
    for row in rows(records):
        if row.problem:
            _say(console, f"{row.label}: {row.problem}")
    for text in [*sentences, *_budgets(records)]:
        _say(console, text)


def _title(records: Sequence[Record]) -> str:
    first = records[0]
    seeds = sorted({record.seed for record in records})
    return (
        f"{first.task.name} ({first.task.test_rows:,} test examples) with {first.model.name} "
        f"({first.model.parameters:,} parameters), seed{'s' * (len(seeds) > 1)} "
        f"{', '.join(map(str, seeds))}"
    )


def _budgets(records: Sequence[Record]) -> list[str]:
    """A warning where runs of different budgets stand in one table."""
    budgets = {
        (r.train["steps"], r.train["epochs"], r.train["batch_size"], r.train["accumulation"])
        for r in records
        if r.status == "finished"
    }
    if len(budgets) < 2:
        return []
    return [
        "Not the same budget: these runs had different steps or batch sizes. Compare with care."
    ]


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False)
