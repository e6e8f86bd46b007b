"""An experiment's table: for every task its rows by base, what was measured beside what was
published; the best of each base in bold, in the direction of each metric.

Numbers stand in the units and digits of the paper. With several seeds a number is their mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from peftlab.errors import InputError, nearest
from peftlab.experiments.grid import rows_of
from peftlab.experiments.kept import Experiment
from peftlab.experiments.spec import ALL, ColumnSpec, RowSpec
from peftlab.printable import cell, json_text, markdown, printable
from peftlab.records.figures import named, scored
from peftlab.records.record import Record
from peftlab.report.latex import escaped

if TYPE_CHECKING:
    from rich.table import Table

FORMATS = ("table", "json", "md", "latex")
_MISSING = "–"


@dataclass(frozen=True)
class Number:
    """One cell: its text, its value in the paper's unit, and whether none of its base beats it."""

    text: str
    value: float | None = None
    best: bool = False


@dataclass(frozen=True)
class Line:
    """A row with a base. source: of published values; None where ours. problem: why it is empty."""

    model: str
    row: str
    numbers: tuple[Number, ...]
    source: str | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Section:
    """One task. heads: of the columns, with an arrow to the better side."""

    task: str
    heads: tuple[str, ...]
    lines: tuple[Line, ...]


def sections(experiment: Experiment) -> list[Section]:
    """One section a task, its bases one after the other; those that were published come last."""
    return [_section(experiment, task) for task in experiment.tasks]


def _section(experiment: Experiment, task: str) -> Section:
    spec = experiment.spec.tasks[task]
    lines: list[Line] = []
    for model in dict.fromkeys((*experiment.models, *experiment.spec.models)):
        made = rows_of(experiment.spec, model) if model in experiment.models else []
        ours = [_measured(experiment, task, model, row) for row in made]
        published, beside = list[Line](), list[Line]()  # what has no method is of no base
        for row in rows_of(experiment.spec, model, measured=False):
            line = _published(experiment, task, model, row)
            if line is not None:
                (beside if row.method is None else published).append(line)
        marked = [*_marked(spec.places, ours), *_marked(spec.places, published), *beside]
        order = {row.title: i for i, row in enumerate(experiment.spec.rows)}
        lines += sorted(marked, key=lambda line: (order[line.row], line.source is not None))
    return Section(spec.title, tuple(_head(*place) for place in spec.places), tuple(lines))


def _head(column: ColumnSpec, part: str) -> str:
    title = column.title if column.parts == (ALL,) else f"{column.title} {part}"
    arrow = "" if column.metric is None or _higher(column) else " ↓"
    return title + arrow


def _higher(column: ColumnSpec) -> bool:
    return column.metric is not None and not scored(column.metric).lower


def _measured(experiment: Experiment, task: str, model: str, row: RowSpec) -> Line:
    place = model, task, row.title
    records = [record for cell, record in experiment.records.items() if cell.place == place]
    done = [record for record in records if record.status == "finished"]
    problem = None
    if not done:
        problem = next((f"{r.status}: {r.error}" for r in records if r.error), "not made yet")
    numbers = tuple(_number(*at, done) for at in experiment.spec.tasks[task].places)
    return Line(model, row.title, numbers, problem=problem)


def _number(column: ColumnSpec, part: str, records: Sequence[Record]) -> Number:
    values = [value for r in records if (value := _value(column, part, r)) is not None]
    number = _shown(column, fmean(values) * column.times if values else None)
    mark = named(str(column.cost)).mark(records) if column.metric is None else ""
    return replace(number, text=f"{mark}{number.text}")


def _value(column: ColumnSpec, part: str, record: Record) -> float | None:
    if column.metric is None:
        return named(str(column.cost)).of(record)
    return scored(column.metric, None if part == ALL else part).of(record)


def _published(experiment: Experiment, task: str, model: str, row: RowSpec) -> Line | None:
    for published in row.published:
        values = published.values(task)
        if published.model == model and values is not None:
            places = zip(experiment.spec.tasks[task].places, values, strict=True)
            numbers = tuple(_shown(column, value) for (column, _), value in places)
            return Line(model, row.title, numbers, source=published.source)
    return None


def _shown(column: ColumnSpec, value: float | None) -> Number:
    return Number(_MISSING) if value is None else Number(f"{value:,.{column.digits}f}", value)


def _marked(places: Sequence[tuple[ColumnSpec, str]], lines: Sequence[Line]) -> list[Line]:
    """The lines with the best of each metric marked; what reads the same is as good.

    Where several have a number and all read the same, none is the best.
    """
    best: list[str | None] = []
    for i, (column, _) in enumerate(places):
        known = [n for line in lines if (n := line.numbers[i]).value is not None]
        pick = max if _higher(column) else min
        told = len({n.text for n in known}) > 1 or len(known) == 1
        top = pick(known, key=lambda n: n.value or 0.0).text if told and column.metric else None
        best.append(top)
    return [
        Line(
            line.model,
            line.row,
            tuple(
                Number(n.text, n.value, n.value is not None and n.text == top)
                for n, top in zip(line.numbers, best, strict=True)
            ),
            line.source,
            line.problem,
        )
        for line in lines
    ]


def notes(experiment: Experiment) -> list[str]:
    """What has to be said beside the table: sources, remarks, rows that failed."""
    said = [f"Published ({short}): {text}." for short, text in experiment.spec.sources.items()]
    said += [" ".join(remark.split()) for remark in experiment.spec.remarks]
    said += [
        f"{section.task}, {line.model}, {line.row}: {line.problem}."
        for section in sections(experiment)
        for line in section.lines
        if line.problem
    ]
    return said


def render(experiment: Experiment, format: str) -> str:
    """The table as json, md or latex.

    Raises:
        InputError: another format.
    """
    makers = {"json": as_json, "md": as_markdown, "latex": as_latex}
    if format not in makers:
        raise InputError(
            f"an experiment has no format {format!r}; it has {', '.join(FORMATS)}."
            f"{nearest(format, FORMATS)}"
        )
    return makers[format](experiment)


def as_json(experiment: Experiment) -> str:
    """Every number with its place."""
    values = [asdict(section) for section in sections(experiment)]
    return json_text(values) + "\n"


def as_markdown(experiment: Experiment) -> str:
    """A table a task, then what has to be said."""
    blocks = [f"**{markdown(experiment.spec.title)}**"]
    for section in sections(experiment):
        rows = [
            f"| {' | '.join(map(markdown, (section.task, *section.heads)))} |",
            "|---|" + "---:|" * len(section.heads),
        ]
        for line in section.lines:
            numbers = [f"**{n.text}**" if n.best else n.text for n in line.numbers]
            rows.append(f"| {markdown(_title(line))} | " + " | ".join(numbers) + " |")
        blocks.append("\n".join(rows))
    return "\n\n".join([*blocks, *map(markdown, notes(experiment))]) + "\n"


def as_latex(experiment: Experiment) -> str:
    """A `tabular` a task; it needs \\usepackage{booktabs}."""
    blocks = []
    for section in sections(experiment):
        head = " & ".join(escaped(text) for text in (section.task, *section.heads))
        rows = [
            f"\\begin{{tabular}}{{l{'r' * len(section.heads)}}}",
            r"\toprule",
            f"{head} \\\\".replace("↓", r"$\downarrow$"),
            r"\midrule",
        ]
        for line in section.lines:
            numbers = [
                rf"\textbf{{{escaped(n.text)}}}" if n.best else escaped(n.text)
                for n in line.numbers
            ]
            rows.append(" & ".join([escaped(_title(line)), *numbers]) + r" \\")
        blocks.append("\n".join([*rows, r"\bottomrule", r"\end{tabular}"]))
    return "\n\n".join(blocks) + "\n"


def as_rich(section: Section) -> Table:
    """A section for a terminal."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(cell(section.task), overflow="fold", min_width=15)
    for head in section.heads:
        title = Text(printable(head).replace(" ", "\n"))
        table.add_column(title, justify="right", no_wrap=True)
    for line in section.lines:
        style = "dim" if line.source else ""
        numbers = [Text(n.text, style="bold" if n.best else style) for n in line.numbers]
        table.add_row(cell(_title(line), style), *numbers)
    return table


def _title(line: Line) -> str:
    base = Path(line.model).name if Path(line.model).exists() else line.model
    return f"{base} {line.row}" + (f" (published, {line.source})" if line.source else "")
