"""The comparison's table: one row a method, means over its seeds, in five formats.

A number with several seeds is its mean; `±` is the standard deviation over seeds (no interval).
"""

from __future__ import annotations

import csv
import io
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from peftlab.records.record import Record

if TYPE_CHECKING:
    from rich.table import Table

_GAP = 2  # columns of the terminal between two columns of the table
_LABEL = 15  # what the methods' names need at least; longer ones go on in the next line
_FEW = {"rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L"}


@dataclass(frozen=True)
class Column:
    """A column: its title, where its number is in a record, and how it is shown.

    extra: left out where a terminal is too narrow.
    """

    title: str
    read: Callable[[Record], float | None]
    show: Callable[[float], str]
    extra: bool = False

    @property
    def head(self) -> str:
        """The title on short lines."""
        return self.title.replace(" ", "\n").replace("-", "\n-")


@dataclass(frozen=True)
class TableRow:
    """A method's finished runs; `problem` is why there are none."""

    label: str
    records: list[Record]
    problem: str | None = None


def megabytes(value: float) -> str:
    """Bytes in one unit for the whole column, so that they can be compared at a glance."""
    return f"{value / 2**20:,.0f} MiB"


def seconds(value: float) -> str:
    """Seconds with as many digits as matter."""
    return f"{value:.1f} s" if value < 100 else f"{value:,.0f} s"


def share(value: float) -> str:
    """A share in percent, small ones with the digits that tell them apart."""
    return f"{value:.3g}%" if value else "0%"


def columns(records: Sequence[Record]) -> list[Column]:
    """The columns of these records; every metric that one of them has."""
    metrics = list(dict.fromkeys(name for record in records for name in record.scores))
    search = Column("rate search", lambda r: r.search.seconds if r.search else None, seconds)
    searched = [search] if any(record.search for record in records) else []
    forgetting = Column("forgetting", _forgotten, lambda v: f"{v:+.3f}", True)
    forgotten = [forgetting] if any(record.general for record in records) else []
    base = Column("base memory", lambda r: r.model.bytes, megabytes)
    formats = [base] if any(record.model.dtype != "fp32" for record in records) else []
    return [
        Column("trainable", lambda r: r.parameters.trainable, lambda v: f"{v:,.0f}"),
        Column("% of base", _share_of_base, share),
        Column("test loss", lambda r: r.loss.test, lambda v: f"{v:.3f}"),
        *(Column(_FEW.get(name, name), _score(name), _number) for name in metrics),
        *formats,
        *(
            Column(f"{name} {part}", _score(name, part), _number, True)
            for part in dict.fromkeys(part for record in records for part in record.subsets)
            for name in metrics
        ),
        Column("peak memory", lambda r: r.peak_memory.train, megabytes),
        Column("train time", lambda r: r.seconds.train, seconds),
        *searched,
        *forgotten,
        Column("per token", lambda r: r.latency.token if r.latency else None, _milliseconds, True),
        Column("prompt tokens", lambda r: r.context_tokens, lambda v: f"{v:.0f}", True),
    ]


def _milliseconds(value: float) -> str:
    return f"{value * 1000:.1f} ms"


def _share_of_base(record: Record) -> float | None:
    trainable = record.parameters.trainable
    return None if trainable is None else 100 * trainable / record.parameters.base


def _forgotten(record: Record) -> float | None:
    return record.general.forgotten if record.general else None


def _score(name: str, part: str | None = None) -> Callable[[Record], float | None]:
    if part is None:
        return lambda record: record.scores.get(name)
    return lambda record: record.subsets.get(part, {}).get(name)


def _number(score: float) -> str:
    return f"{score:.3f}" if score < 2 else f"{score:.1f}"


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


def cells(row: TableRow, wanted: Sequence[Column]) -> list[str]:
    """A row's numbers as text, one a column; `–` where nothing was measured."""
    return [_cell([column.read(record) for record in row.records], column) for column in wanted]


def _cell(values: Sequence[float | None], column: Column) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    text = column.show(fmean(known))
    spread = stdev(known) if len(known) > 1 else 0.0
    return f"{text} ± {column.show(spread)}" if spread else text


def as_json(records: Sequence[Record]) -> str:
    """All records, whole."""
    values = [record.model_dump(mode="json") for record in records]
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"


def as_csv(records: Sequence[Record]) -> str:
    """One line a run, nested names joined by dots; without settings and environment."""
    flat = [_flat(record) for record in records]
    names = list(dict.fromkeys(name for row in flat for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()


def _flat(record: Record) -> dict[str, Any]:
    values = record.model_dump(mode="json", exclude={"settings", "environment", "train", "version"})
    return dict(_leaves("", values))


def _leaves(path: str, value: Any) -> list[tuple[str, Any]]:
    if not isinstance(value, dict):
        return [(path, value)]
    return [
        leaf for key, part in value.items() for leaf in _leaves(f"{path}.{key}".lstrip("."), part)
    ]


def as_markdown(records: Sequence[Record]) -> str:
    """A table for a README."""
    wanted = columns(records)
    lines = [
        "| method | " + " | ".join(column.title for column in wanted) + " |",
        "|---|" + "---:|" * len(wanted),
    ]
    for row in rows(records):
        own = [row.problem.replace("|", "\\|")] if row.problem else cells(row, wanted)
        own += [""] * (len(wanted) - len(own))
        lines.append(f"| {row.label} | " + " | ".join(own) + " |")
    return "\n".join(lines) + "\n"


def as_rich(records: Sequence[Record], width: int, title: str = "") -> Table:
    """A table for a terminal of so many columns; a narrow one does without the extras."""
    from rich import box
    from rich.table import Table

    wanted = columns(records)
    found = [(row, [] if row.problem else cells(row, wanted)) for row in rows(records)]
    while _width(wanted, found) > width - _LABEL and any(column.extra for column in wanted):
        last = max(i for i, column in enumerate(wanted) if column.extra)
        wanted = wanted[:last] + wanted[last + 1 :]
        found = [(row, own[:last] + own[last + 1 :]) for row, own in found]
    table = Table(
        title=title or None,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    table.add_column("method", overflow="fold", min_width=_LABEL)
    for column in wanted:
        table.add_column(column.head, justify="right", no_wrap=True)
    for row, own in found:
        table.add_row(row.label, *own)
    return table


def _width(wanted: Sequence[Column], found: Sequence[tuple[TableRow, list[str]]]) -> int:
    """Columns of the terminal that everything but the methods' names takes."""
    total = 0
    for i, column in enumerate(wanted):
        texts = [*column.head.split("\n"), *(own[i] for _, own in found if own)]
        total += _GAP + max(map(len, texts))
    return total
