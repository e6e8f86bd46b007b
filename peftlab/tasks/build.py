"""From tables to a task: columns, references, missing splits, limits, notes on what was done."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from peftlab.errors import InputError
from peftlab.metrics import metric_spec
from peftlab.tasks import columns as table_columns
from peftlab.tasks.choices import FEWEST, USUAL, Choices, begun, checked
from peftlab.tasks.columns import RowReader
from peftlab.tasks.conversation_files import ConversationReader, Layout, each_reply, layout
from peftlab.tasks.example import Example, Message
from peftlab.tasks.markup import escape
from peftlab.tasks.metric_choice import LABEL_METRICS, choose_metrics
from peftlab.tasks.options import Options
from peftlab.tasks.requests import GENERIC, request
from peftlab.tasks.rows import Reader, StoredRows, source_hashes, take
from peftlab.tasks.table import Table
from peftlab.tasks.task import Decoding, Framing, Provenance, Task, fingerprint, limit_pairs
from peftlab.tasks.template import Template

Splits = dict[str, Sequence[Example]]

_MOST_LABELS = 100
_HELD_OUT_SHARE, _HELD_OUT_MOST = 0.1, 1000
_CUES = {"summary": "Summary:", "highlights": "Summary:", "answer": "Answer:", "label": "Label:"}
_USUAL_CUE = "Output:"
_USUAL_TOKENS = 64  # until a base's tokenizer says how many targets take


@dataclass(frozen=True)
class Settings:
    """What a task is, apart from its rows; options of the user go before it."""

    name: str
    kind: str
    location: str
    template: str = ""
    instruction: str = ""
    request: str = GENERIC
    metrics: tuple[str, ...] | None = None
    max_new_tokens: int | None = None
    source_tokens: int | None = None
    truncate: Literal["start", "end"] = "end"
    decoding: Decoding = field(default_factory=Decoding)
    labels: tuple[str, ...] | None = None
    config: str | None = None
    revision: str | None = None
    turns: bool = False
    own_options: bool = False


CHAT_TEMPLATE = "{instruction}{source}{target}"
"""The usual template in a chat."""


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
    if options.loss == "replies":
        raise InputError(
            f"loss=replies is of conversations, and {first.name} holds a source and a target a row "
            "(-o conversations=true reads them as a message and its reply)."
        )
    chosen = table_columns.choose(first, options.columns or {})
    text = options.template or usual_template(chosen.target, options.cue)
    classes = first.classes.get(chosen.target)
    extra = Template(text).markup.columns
    rest = table_columns.unused(first, chosen, extra)
    notes = [f"Columns: {chosen} ({'guessed' if chosen.guessed else 'given'}){rest}."]
    own_options = _options_column(options, first)
    given = options.labels or (None if own_options else options.choices)
    labels = given or (tuple(classes) if classes and not own_options else None)
    named = chosen.target.lower() in table_columns.LABEL_NAMES
    splits: Splits = {}
    for split, table in tables.items():
        notes += table.notes
        beside = [own_options] if own_options else []
        table = table.narrowed([*chosen.source, chosen.target, *extra, *beside])
        known = labels or (() if named else None)
        read = RowReader(table, chosen, extra, known, classes, options.drop_blank, own_options)
        rows = read_rows(table, read, split, notes)
        if rows:
            splits[split] = rows
    if labels is None and named and not own_options:
        labels = _guessed_labels(splits, notes)
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
    first = next(iter(tables.values()))
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


def _guessed_labels(splits: Splits, notes: list[str]) -> tuple[str, ...] | None:
    """Return the different targets where they recur so often that they must be class labels."""
    distinct = {target for rows in splits.values() for row in rows for target in row.targets}
    if not 2 <= len(distinct) <= _MOST_LABELS or 4 * len(distinct) > sum(map(len, splits.values())):
        return None
    labels = tuple(sorted(distinct))
    notes.append(f"The targets are class labels: {', '.join(labels)} (guessed from the column).")
    return labels


def read_rows(table: Table, read: Reader, split: str, notes: list[str]) -> Sequence[Example]:
    """Return the examples of a table and note how many rows were left out.

    Rows of a data set stay there; rows that are in memory anyway are made examples at once.
    """
    try:
        stored = StoredRows(table, read)
    except (ValueError, OverflowError) as error:  # of pyarrow, while it makes a row
        raise InputError(f"{table.name} holds what Python cannot: {error}.") from error
    if not len(stored) and split != "train":
        notes.append(f"{table.name} has no row with both a source and a target: it is not used.")
        return []
    if not len(stored):
        raise InputError(f"{table.name} has no row with both a source and a target.")
    if stored.left_out:
        notes.append(
            f"{stored.left_out} rows of {split} are left out, for want of a source or a target."
        )
    return list(stored) if isinstance(table.rows, list) else stored


def finish(
    settings: Settings,
    splits: Splits,
    options: Options,
    notes: Sequence[str],
    subsets: Mapping[str, tuple[int, ...]] | None = None,
) -> Task:
    """Cut missing splits, count duplicates, apply limits and return the task."""
    said = list(notes)
    _cut_missing(splits, options.seed, said)
    if options.loss == "replies":  # each is generated, with the true history before it
        splits["test"] = [one for row in splits["test"] for one in each_reply(row)]
    duplicates = _shared_sources(splits)
    said.append(f"{duplicates} of {len(splits['test'])} test sources also stand in train.")
    new_tokens = options.max_new_tokens or settings.max_new_tokens
    train = limit_pairs(splits["train"], options.limit, options.seed)
    validation = splits["validation"][: options.limit]
    test = splits["test"][: options.test_limit or options.limit]
    content = fingerprint(train, validation, test)
    labels = _checked_labels(options.labels or options.choices or settings.labels, splits, settings)
    choices = _choices(labels, settings, options, said)
    if choices is None:
        _refuse_metrics_of_choices(options.metrics or ())
    template, framing = _template(settings, options, choices is not None)
    # Who writes the template or the cue asks in words of their own.
    asks = options.template is None and options.cue is None
    return Task(
        name=settings.name,
        template=template,
        train=train,
        validation=validation,
        test=test,
        metrics=choose_metrics(
            options.metrics, settings.metrics if choices is None else USUAL, test, said
        ),
        max_new_tokens=new_tokens or _USUAL_TOKENS,
        guesses_length=new_tokens is None,
        long=options.long,
        source=Provenance(
            settings.kind, settings.location, content, settings.config, settings.revision
        ),
        instruction=settings.instruction if options.instruction is None else options.instruction,
        request=settings.request if asks else "",
        decoding=settings.decoding,
        framing=framing,
        labels=labels,
        choices=choices,
        subsets=_within(subsets or {}, len(test)),
        duplicates=duplicates,
        notes=tuple(said),
        test_is_limited=options.test_limit is not None,
    )


def _shared_sources(splits: Splits) -> int:
    """Return how many test examples have a source that also stands in train."""
    seen = set(source_hashes(splits["train"]))
    return sum(source in seen for source in source_hashes(splits["test"]))


def _choices(
    labels: tuple[str, ...] | None, settings: Settings, options: Options, notes: list[str]
) -> Choices | None:
    """What the target is one of, where that is known and the likeliest is to be taken."""
    known = settings.own_options or (labels is not None and len(labels) >= FEWEST)
    if options.choose is False or not known:
        if options.choose:
            raise InputError(
                "choose=true takes the likeliest of several options, and none are known: name them "
                "(-o choices=yes,no, or the column that holds them)."
            )
        return None
    own = () if settings.own_options or labels is None else checked(labels, "choices")
    what = "its row's options" if settings.own_options else f"{len(own)} options"
    notes.append(
        f"The likeliest of {what} is taken (-o choice_score={options.choice_score}); "
        "-o choose=false writes replies."
    )
    if options.choice_score == "sum" and (said := begun(own)):
        notes.append(said)
    return Choices(own, options.choice_score)


def _refuse_metrics_of_choices(names: Sequence[str]) -> None:
    wrong = [name for name in names if metric_spec(name).of_choices]
    if wrong:
        raise InputError(
            f"{', '.join(wrong)} is of choices by likelihood, and no options are known: name them "
            "(-o choices=yes,no, or the column that holds them)."
        )


def _template(settings: Settings, options: Options, joint: bool) -> tuple[Template, Framing]:
    """The template outside of a chat, unless one is asked for, and how rows stand in one.

    A chat's turns say by themselves where the target begins, so words of the task's own template
    give way there; words of the user's stay, and so do other columns than the source.
    """
    text = options.template or settings.template
    own = options.template is None and options.cue is None and not Template(text).markup.columns
    chatted = CHAT_TEMPLATE if own else text
    template = Template(
        chatted if options.chat else text,
        truncate=options.truncate or ("start" if joint else settings.truncate),
        joint=joint,
        source_tokens=options.source_tokens or settings.source_tokens,
        chat=bool(options.chat) and not settings.turns,
        loss=options.loss if settings.turns else "last",
    )
    return template, Framing(
        options.chat, chatted, template.text, options.system, turns=settings.turns
    )


def _within(subsets: Mapping[str, tuple[int, ...]], length: int) -> dict[str, tuple[int, ...]]:
    return {name: tuple(i for i in part if i < length) for name, part in subsets.items()}


def _cut_missing(splits: Splits, seed: int, notes: list[str]) -> None:
    """Cut the validation and the test split from train, by seed, where there is none."""
    if "train" not in splits:
        raise InputError(
            f"There are rows for {', '.join(splits) or 'no split'} only; a train split is needed "
            "too (a file named train.jsonl, for example)."
        )
    for split in ("test", "validation"):
        if split in splits:
            continue
        rows = splits["train"]
        hashes = source_hashes(rows)
        if len(set(hashes)) == 1:
            hashes = range(len(rows))
        sources = list(dict.fromkeys(hashes))  # rows of one source stay together
        count = min(_HELD_OUT_MOST, max(1, int(len(sources) * _HELD_OUT_SHARE)))
        if count >= len(sources):
            raise InputError(
                f"There is no {split} split, and {len(rows)} training example(s) are too few to "
                "cut one from. Give more rows, or a file for it."
            )
        places = random.Random(f"{seed}/{split}").sample(range(len(sources)), count)
        chosen = {sources[place] for place in places}
        splits[split] = take(rows, (i for i, it in enumerate(hashes) if it in chosen))
        splits["train"] = take(rows, (i for i, it in enumerate(hashes) if it not in chosen))
        cut = len(splits[split])
        notes.append(f"There was no {split} split: {cut} examples are cut from train by seed.")


def _checked_labels(
    labels: tuple[str, ...] | None, splits: Splits, settings: Settings
) -> tuple[str, ...] | None:
    if labels is None or settings.own_options:
        return None
    for split, rows in splits.items():
        for row in rows:
            for target in row.targets:
                if target not in labels:
                    raise InputError(
                        f'The {split} example "{row.excerpt()}" has the target {target!r}, which '
                        f"is not one of the labels {', '.join(labels)}."
                    )
    return labels
