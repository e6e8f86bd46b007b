"""From tables to examples: which columns or conversations they hold, and what that decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from peftlab.errors import InputError
from peftlab.tasks import columns as table_columns
from peftlab.tasks.build import CHAT_TEMPLATE, Settings, Splits, finish
from peftlab.tasks.columns import RowReader
from peftlab.tasks.conversation_files import ConversationReader, Layout, layout
from peftlab.tasks.example import Example, Message
from peftlab.tasks.labels import guessed_labels
from peftlab.tasks.markup import escape
from peftlab.tasks.metric_choice import LABEL_METRICS
from peftlab.tasks.options import Options
from peftlab.tasks.requests import request
from peftlab.tasks.rows import Reader, StoredRows
from peftlab.tasks.table import Table
from peftlab.tasks.task import Task
from peftlab.tasks.template import Template

_CUES = {"summary": "Summary:", "highlights": "Summary:", "answer": "Answer:", "label": "Label:"}
_USUAL_CUE = "Output:"


def usual_template(target_column: str, cue: str | None) -> str:
    """Return the template for own data: the source, a cue on a line of its own, the target."""
    words = cue if cue is not None else _CUES.get(target_column.lower(), _USUAL_CUE)
    return f"{{instruction}}{{source}}\n{escape(words)} {{target}}"


def from_tables(
    name: str,
    tables: Mapping[str, Table],
    options: Options,
    kind: str,
    location: str,
    config: str | None = None,
    revision: str | None = None,
) -> Task:
    """Return the task of own data or of any hub data set, with columns given or guessed."""
    first = tables.get("train") or next(iter(tables.values()))
    made = Settings(name=name, kind=kind, location=location, config=config, revision=revision)
    held = layout(first, options.columns or {}, options.conversations)
    if held is not None:
        return _from_conversations(made, tables, held, options)
    chosen = table_columns.choose(first, options.columns or {})
    text = options.template or usual_template(chosen.target, options.cue)
    classes = first.classes.get(chosen.target)
    extra = Template(text).markup.columns
    own_options = _options_column(options, first)
    beside = [own_options] if own_options else []
    rest = table_columns.unused(first, chosen, [*extra, *beside])
    notes = [f"Columns: {chosen} ({'guessed' if chosen.guessed else 'given'}){rest}."]
    given = options.labels or (None if own_options else options.choices)
    labels = given or (tuple(classes) if classes and not own_options else None)
    named = chosen.target.lower() in table_columns.LABEL_NAMES
    splits: Splits = {}
    for split, table in tables.items():
        notes += table.notes
        table = table.narrowed([*chosen.source, chosen.target, *extra, *beside])
        known = labels or (() if named else None)
        read = RowReader(table, chosen, extra, known, classes, options.drop_blank, own_options)
        rows = read_rows(table, read, split, notes)
        if read.read_as:
            notes.append(
                f"Answers of {split} are their options' {', '.join(sorted(read.read_as))}."
            )
        if rows:
            splits[split] = rows
    if labels is None and named and not own_options:
        labels = guessed_labels(splits, notes)
    if own_options is None:
        (_count_disputed if labels else _join_references)(splits, notes)
    settings = replace(
        made,
        template=text,
        request=request(chosen.source, chosen.target, labels),
        metrics=LABEL_METRICS if labels else None,
        labels=labels,
        own_options=own_options is not None,
    )
    return finish(settings, splits, options, notes)


def _options_column(options: Options, table: Table) -> str | None:
    """The column of each row's options, where `choices` names one."""
    if options.choices is None or len(options.choices) > 1:
        return None
    (name,) = options.choices
    if name in table.columns or name.partition(".")[0] in table.columns:
        return name
    raise InputError(
        f"choices={name}: two options at least were expected, or a column that holds them; "
        f"{table.name} has {', '.join(table.columns)}."
    )


def _from_conversations(
    settings: Settings, tables: Mapping[str, Table], held: Layout, options: Options
) -> Task:
    """The task of rows that are conversations."""
    if options.cue is not None:
        raise InputError("cue is of rows with a source and a target; these are conversations.")
    first = tables.get("train") or next(iter(tables.values()))
    text = options.template or CHAT_TEMPLATE
    extra = Template(text).markup.columns
    notes, splits = list[str](), Splits()
    for split, table in tables.items():
        notes += table.notes
        table = table.narrowed([*held.used, *extra])
        read = ConversationReader(table, held, extra, options.loss, options.drop_blank)
        rows = read_rows(table, read, split, notes)
        notes += read.notes(split)
        if rows:
            splits[split] = rows
    told = next(iter(splits.values()))[0]
    loss = "every reply" if options.loss == "replies" else "the last reply"
    rest = table_columns.not_used(first, [*held.used, *extra])
    notes.insert(
        0,
        f"Conversations: {held}{rest}; trained on {loss}. The first: {_in_short(told)}.",
    )
    settings = replace(settings, template=text, turns=True, request="")
    return finish(settings, splits, options, notes)


def _in_short(example: Example) -> str:
    """The turns of a conversation on one line."""
    turns = [*example.turns, example.last, Message("assistant", example.targets[0], example.calls)]
    shown = (" ".join(turn.told().split()) for turn in turns)
    return " / ".join(text if len(text) <= 50 else f"{text[:49]}…" for text in shown)


def _join_references(splits: Splits, notes: list[str]) -> None:
    """Make rows of the same source one example with all their targets."""
    for split, rows in splits.items():
        splits[split] = table_columns.group(rows)
        if len(splits[split]) < len(rows):
            notes.append(
                f"{len(rows)} rows of {split} are {len(splits[split])} examples: rows of the same "
                "source are joined, with all their targets."
            )


def _count_disputed(splits: Splits, notes: list[str]) -> None:
    """Leave rows of labels as they are, and say where one text has several."""
    for split, rows in splits.items():
        count = table_columns.disputed(rows)
        if count:
            notes.append(
                f"{count} texts of {split} stand there with different labels; every row counts by "
                "itself."
            )


def read_rows(table: Table, read: Reader, split: str, notes: list[str]) -> Sequence[Example]:
    """Return the examples of a table and note how many rows were left out.

    Rows of a data set stay there; rows that are in memory anyway are made examples at once.
    """
    try:
        stored = StoredRows(table, read)
    except (ValueError, OverflowError) as error:  # of pyarrow, while it makes a row
        raise InputError(f"{table.name} holds what Python cannot: {error}.") from error
    refused = read.refused if isinstance(read, ConversationReader) else []
    held = "no row with both a source and a target"
    held = f"no conversation that can be used (the first: {refused[0]})" if refused else held
    if not len(stored) and split != "train":
        notes.append(f"{table.name} has {held}: it is not used.")
        return []
    if not len(stored):
        raise InputError(f"{table.name} has {held}.")
    if stored.left_out:
        why = f"the first: {refused[0]}" if refused else "for want of a source or a target."
        notes.append(f"{stored.left_out} rows of {split} are left out, {why}")
    return list(stored) if isinstance(table.rows, list) else stored
