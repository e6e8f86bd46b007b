"""The comparison's table: one row a method, means over its seeds, in five formats.

A number with several seeds is its mean; `±` is the standard deviation over seeds (no interval). `≈`
marks times that were measured while others used the machine.
"""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from peftlab.printable import cell, csv_cell, json_text, markdown, printable
from peftlab.records.figures import FIGURES, Figure, chosen
from peftlab.records.record import Record
from peftlab.records.samples import note

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

_GAP = 2  # columns of the terminal between two columns of the table
_LABEL = 15  # what the methods' names need at least; longer ones go on in the next line


@dataclass(frozen=True)
class TableRow:
    """A method's finished runs; `problem` is why there are none."""

    label: str
    records: list[Record]
    problem: str | None = None


def rows(records: Sequence[Record]) -> list[TableRow]:
    """One row a label, in the order in which they come; what failed or still runs says so."""
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        groups[record.label].append(record)
    return [_row(label, group) for label, group in groups.items()]


def _row(label: str, group: list[Record]) -> TableRow:
    done = [record for record in group if record.status == "finished"]
    failed = [record for record in group if record.status == "failed"]
    if done and not failed:
        return TableRow(label, done)
    if done:
        return TableRow(f"{label} ({len(failed)} of {len(group)} seeds failed)", done)
    if failed:
        return TableRow(label, [], f"failed: {failed[0].error}")
    if group[0].status == "left out":
        return TableRow(label, [], f"left out: {group[0].error}")
    return TableRow(label, [], "not finished")


def cells(row: TableRow, wanted: Sequence[Figure]) -> list[str]:
    """A row's numbers as text, one a column; `–` where nothing was measured."""
    return [_cell(row.records, figure) for figure in wanted]


def _cell(records: Sequence[Record], figure: Figure) -> str:
    known = [value for record in records if (value := figure.of(record)) is not None]
    if not known:
        return "–"
    text = figure.mark(records) + figure.unit.cell(fmean(known))
    spread = stdev(known) if len(known) > 1 else 0.0
    return f"{text} ± {figure.unit.cell(spread).removeprefix('+')}" if spread else text


def as_json(records: Sequence[Record]) -> str:
    """All records, whole."""
    values = [record.model_dump(mode="json") for record in records]
    return json_text(values) + "\n"


def as_csv(records: Sequence[Record]) -> str:
    """One line a run, nested names joined by dots; without settings and environment.

    Figures that no place of a record holds, but all of it gives, stand under their own names.
    """
    flat = [_flat(record) for record in records]
    names = list(dict.fromkeys(name for row in flat for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, [csv_cell(name) for name in names], lineterminator="\n")
    writer.writeheader()
    writer.writerows({csv_cell(k): csv_cell(v) for k, v in row.items()} for row in flat)
    return text.getvalue()


def _flat(record: Record) -> dict[str, Any]:
    values = record.model_dump(mode="json", exclude={"settings", "environment", "train", "version"})
    computed = {one.name: one.of(record) for one in FIGURES if not isinstance(one.read, str)}
    return {**dict(_leaves("", values)), **computed}


def _leaves(path: str, value: Any) -> list[tuple[str, Any]]:
    if not isinstance(value, dict):
        return [(path, value)]
    return [
        leaf for key, part in value.items() for leaf in _leaves(f"{path}.{key}".lstrip("."), part)
    ]


def as_markdown(records: Sequence[Record], columns: str = "usual") -> str:
    """A table for a README."""
    wanted = chosen(records, columns)
    lines = [
        "| method | " + " | ".join(markdown(figure.title) for figure in wanted) + " |",
        "|---|" + "---:|" * len(wanted),
    ]
    for row in rows(records):
        own = [markdown(row.problem)] if row.problem else cells(row, wanted)
        own += [""] * (len(wanted) - len(own))
        lines.append(f"| {markdown(row.label)} | " + " | ".join(own) + " |")
    if text := note(records):
        lines += ["", markdown(text)]
    return "\n".join(lines) + "\n"


def as_rich(
    records: Sequence[Record], width: int, title: str = "", columns: str = "usual"
) -> Table:
    """A table for a terminal of so many columns; a narrow one does without the extras.

    What was asked for is shown, however narrow the terminal is.
    """
    from rich import box
    from rich.table import Table

    wanted = chosen(records, columns)
    lines = [(row, [] if row.problem else cells(row, wanted)) for row in rows(records)]
    usual = columns == "usual"
    while usual and _width(wanted, lines) > width - _LABEL and any(one.extra for one in wanted):
        last = max(i for i, figure in enumerate(wanted) if figure.extra)
        wanted = wanted[:last] + wanted[last + 1 :]
        lines = [(row, own[:last] + own[last + 1 :]) for row, own in lines]
    table = Table(
        title=cell(title) if title else None,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    table.add_column("method", overflow="fold", min_width=_LABEL)
    for figure in wanted:
        table.add_column(_head(figure), justify="right", no_wrap=True)
    for row, own in lines:
        table.add_row(cell(row.label), *own)
    return table


def _head(figure: Figure) -> Text:
    """The title on short lines."""
    from rich.text import Text

    return Text(printable(figure.title).replace(" ", "\n").replace("-", "\n-"))


def _width(wanted: Sequence[Figure], lines: Sequence[tuple[TableRow, list[str]]]) -> int:
    """Columns of the terminal that everything but the methods' names takes."""
    total = 0
    for i, figure in enumerate(wanted):
        texts = [*_head(figure).plain.split("\n"), *(own[i] for _, own in lines if own)]
        total += _GAP + max(map(len, texts))
    return total
