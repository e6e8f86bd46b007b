"""What one base makes of a task: a chat round its rows, ends that targets bring along, room for
replies, rows that are too long.

Loading knows no tokenizer; these are decided where a base is there, and then are the task's own.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from peftlab.errors import InputError
from peftlab.structured import Grammars, Structure
from peftlab.tasks import conversation
from peftlab.tasks.conversation_files import every_reply
from peftlab.tasks.encode import without_end
from peftlab.tasks.example import Example
from peftlab.tasks.framing import decided
from peftlab.tasks.rows import Pairs, StoredRows, spaced, take, with_pairs
from peftlab.tasks.task import SPLITS, Task, fingerprint
from peftlab.tasks.template import Template
from peftlab.tasks.tokens import Tokenizer

_TARGETS = 2000  # whose tokens say how many a reply needs; of more, some taken evenly spaced
_LEAST, _MOST = 16, 256


@dataclass(frozen=True)
class Fit:
    """What is to be done to a task; `apply` needs no tokenizer, so another process can.

    template: as rows have it, where that was to be decided. ends: end-of-sequence texts that
    targets end in. max_new_tokens: the guess, where one was asked for. too_long: what leaves, by
    split: numbers of train's pairs, of the other splits' examples. whole: all splits were looked
    at. apart: each reply of a conversation is a row of its own, and called: by split and number of
    an example, the text of a target that calls tools; both before anything leaves.
    """

    template: Template | None = None
    ends: tuple[str, ...] = ()
    max_new_tokens: int | None = None
    too_long: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    whole: bool = False
    apart: bool = False
    called: Mapping[str, Mapping[int, str]] = field(default_factory=dict)

    def joined(self, other: Fit) -> Fit:
        """Both, of the same task: what leaves under either leaves."""
        both = {
            split: tuple(sorted({*self.too_long.get(split, ()), *other.too_long.get(split, ())}))
            for split in {*self.too_long, *other.too_long}
        }
        return replace(
            self,
            template=self.template or other.template,
            ends=tuple(dict.fromkeys((*self.ends, *other.ends))),
            max_new_tokens=self.max_new_tokens or other.max_new_tokens,
            too_long=both,
            notes=tuple(dict.fromkeys((*self.notes, *other.notes))),
            whole=self.whole or other.whole,
            apart=self.apart or other.apart,
            called={**other.called, **self.called},
        )

    def apply(self, task: Task) -> Task:
        """The task with all of this done, and its notes."""
        rows = {split: task.split(split) for split in SPLITS}
        template = self.template or task.template
        if self.apart:
            template = replace(template, loss="last")
            rows |= {split: every_reply(rows[split]) for split in ("train", "validation")}
        for split, texts in self.called.items():
            rows[split] = _with_calls(rows[split], texts)
        if self.ends:
            rows = {split: _ended(some, self.ends) for split, some in rows.items()}
        for split, gone in self.too_long.items():
            rows[split] = _without(split, rows[split], set(gone))
        changed = bool(self.ends or self.apart or self.called) or any(self.too_long.values())
        content = fingerprint(*rows.values()) if changed else task.source.fingerprint
        skipped = {split: len(gone) for split, gone in self.too_long.items()}
        skipped = {split: task.skipped.get(split, 0) + count for split, count in skipped.items()}
        return replace(
            task,
            template=template,
            framing=task.framing if self.template is None else None,
            train=rows["train"],
            validation=rows["validation"],
            test=rows["test"],
            source=replace(task.source, fingerprint=content),
            max_new_tokens=self.max_new_tokens or task.max_new_tokens,
            guesses_length=task.guesses_length and self.max_new_tokens is None,
            labels=task.labels and tuple(without_end(label, self.ends) for label in task.labels),
            choices=task.choices and task.choices.without(self.ends),
            subsets=_renumbered(task.subsets, self.too_long.get("test", ())),
            skipped={**task.skipped, **skipped},
            long="cut" if set(self.too_long) == set(SPLITS) else task.long,
            notes=(*task.notes, *self.notes),
            fitted=task.fitted or self.whole,
        )


def look(task: Task, tokenizer: Tokenizer, splits: Sequence[str] = SPLITS) -> Fit:
    """What a base's tokenizer decides: the chat, ends in targets of these splits, and the guess.

    Raises:
        InputError: see `framing.decided`.
    """
    if task.fitted:
        return Fit()
    template, framed = decided(task, tokenizer)
    task = replace(task, template=template)
    turns = _turns(task, tokenizer, splits)
    task = turns.apply(task)
    ends = task.template.ends(tokenizer)
    counts = {split: _count_ended(task.split(split), ends) for split in splits}
    notes = [*([framed] if framed else []), *turns.notes]
    notes += [
        f"{count:,} targets of {split} end in {' or '.join(ends)}, which ends every row anyway: it "
        "is taken off them."
        for split, count in counts.items()
        if count
    ]
    kept_ends = ends if any(counts.values()) else ()
    guess = None
    if task.guesses_length:
        guess, said = _enough_tokens(task, tokenizer)
        notes += [] if task.choices else [said]
    whole = tuple(splits) == SPLITS
    return replace(
        turns,
        template=template,
        ends=kept_ends,
        max_new_tokens=guess,
        notes=(*notes, *_of_schema(task, tokenizer, splits)),
        whole=whole,
    )


def _of_schema(task: Task, tokenizer: Tokenizer, splits: Sequence[str]) -> list[str]:
    """What is to be said of targets under a schema, which is compiled here first.

    Raises:
        InputError: it does not compile, or nothing satisfies it.
    """
    if not task.decoding.json_schema:
        return []
    structure = Structure.of_schema(task.decoding.json_schema)
    guide = Grammars(tokenizer, len(tokenizer)).guide(structure)
    targets = [t for row in task.test for t in row.targets] if "test" in splits else []
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in targets]
    others = [text for text, own in zip(targets, ids, strict=True) if not guide.accepts(own)]
    if not others:
        return []
    return [
        f"{len(others)} of {len(targets)} test targets are not of the schema, or not written as "
        f"replies under it are (the first is {others[0]!r:.60}): no reply can equal them."
    ]


def _turns(task: Task, tokenizer: Tokenizer, splits: Sequence[str]) -> Fit:
    """What a chat template makes of conversations: whether their replies can be trained in one row,
    and the texts of those that call tools.

    Raises:
        InputError: it cannot show them.
    """
    template, frame = task.template, task.template.frame
    if frame is None or not frame.jinja:
        return Fit()
    notes: tuple[str, ...] = ()
    asked = any(turn.trained for split in splits for row in task.split(split) for turn in row.turns)
    if asked and template.loss == "last":  # an adapter's, which was trained so
        notes = ("Each reply is read in a row of its own, as the adapter was trained.",)
    if template.loss == "replies":
        try:
            for split in ("train", "validation"):
                for row in task.split(split):
                    template.parts(tokenizer, row)
        except conversation.NotOneRow as error:
            notes = (f"Each reply is trained in a row of its own, with what precedes it: {error}.",)
    made = Fit(apart=bool(notes), notes=notes)
    apart = made.apply(task)
    called = {
        split: {
            i: conversation.called(tokenizer, frame, row)
            for i, row in enumerate(apart.split(split))
            if row.calls
        }
        for split in splits
    }
    return replace(made, called={split: texts for split, texts in called.items() if texts})


def _with_calls(rows: Sequence[Example], texts: Mapping[int, str]) -> Sequence[Example]:
    return [
        replace(row, targets=(texts[i],), calls="") if i in texts else row
        for i, row in enumerate(rows)
    ]


def fitted(task: Task, tokenizer: Tokenizer, splits: Sequence[str] = SPLITS) -> Task:
    """The task as this base's tokenizer takes it, see `look`; the same where that is done."""
    return task if task.fitted else look(task, tokenizer, splits).apply(task)


def shortened(
    task: Task, template: Template, tokenizer: Tokenizer, limit: int, splits: Sequence[str]
) -> Task:
    """The task without the rows that do not fit whole, where `long` asks for that.

    Raises:
        InputError: `long` refuses them, or no row would be left.
    """
    if task.long == "cut":
        return task
    return too_long(task, template, tokenizer, limit, splits).apply(task)


def too_long(
    task: Task, template: Template, tokenizer: Tokenizer, limit: int, splits: Sequence[str] = SPLITS
) -> Fit:
    """Which rows do not fit whole into `limit` tokens: with a target, or in test with the reply.

    Raises:
        InputError: `long` refuses them, or no row would be left.
    """
    gone: dict[str, tuple[int, ...]] = {}
    if task.long == "cut":
        return Fit()
    for split in splits:
        reply = task.max_new_tokens if split == "test" else 0
        longest = array(
            "Q",
            (
                max(_length(template, tokenizer, *pair, reply) for pair in unit)
                for unit in _units(task, split)
            ),
        )
        long = tuple(i for i, length in enumerate(longest) if length > limit)
        if long and (task.long == "refuse" or len(long) == len(longest)):
            worst = longest.index(max(longest))
            example = task.pairs(split)[worst][0] if split == "train" else task.split(split)[worst]
            raise InputError(
                f"{len(long):,} of {len(longest):,} rows of {split} are longer than the {limit:,} "
                f'tokens that fit ("{example.excerpt()}" takes {longest[worst]:,}). '
                "Shorten them, take a longer context, or -o long=cut to cut their sources"
                f"{', or -o long=skip to leave them out' if task.long == 'refuse' else ''}."
            )
        gone[split] = long
    said = " and ".join(
        f"{len(long):,} {'rows' if split == 'train' else 'examples'} of {split}"
        for split, long in gone.items()
        if long
    )
    verb = "are" if sum(map(len, gone.values())) > 1 else "is"
    note = f"{said} {verb} longer than the {limit:,} tokens that fit, and left out (-o long=skip)."
    return Fit(too_long=gone, notes=(note,) if said else ())


def _units(task: Task, split: str) -> Iterator[list[tuple[Example, str]]]:
    """What leaves as one: a pair of train, an example of the others with all its targets."""
    if split == "train":
        return ([pair] for pair in task.pairs(split))
    return ([(row, target) for target in row.targets] for row in task.split(split))


def _length(
    template: Template, tokenizer: Tokenizer, example: Example, target: str, reply: int
) -> int:
    rows = template.encode(tokenizer, example, target, sys.maxsize).rows
    return max(row.target_start + max(reply, len(row.ids) - row.target_start) for row in rows)


def _count_ended(rows: Sequence[Example], ends: tuple[str, ...]) -> int:
    return sum(target.rstrip().endswith(ends) for row in rows for target in row.targets)


def _ended(rows: Sequence[Example], ends: Sequence[str]) -> Sequence[Example]:
    change = partial(_bare, ends)
    return rows.changed(change) if isinstance(rows, StoredRows) else [change(row) for row in rows]


def _bare(ends: Sequence[str], row: Example) -> Example:
    def bare(texts: Sequence[str]) -> tuple[str, ...]:
        return tuple(without_end(text, ends) for text in texts)

    return replace(row, targets=bare(row.targets), options=bare(row.options))


def _without(split: str, rows: Sequence[Example], gone: set[int]) -> Sequence[Example]:
    if split != "train":
        return take(rows, (i for i in range(len(rows)) if i not in gone))
    return with_pairs(rows, (i for i in range(len(Pairs(rows))) if i not in gone))


def _renumbered(
    subsets: Mapping[str, tuple[int, ...]], gone: Sequence[int]
) -> dict[str, tuple[int, ...]]:
    left = set(gone)
    return {
        name: tuple(i - sum(g < i for g in gone) for i in places if i not in left)
        for name, places in subsets.items()
    }


def _enough_tokens(task: Task, tokenizer: Any) -> tuple[int, str]:
    """Half as many tokens again as a long target has (95th percentile), a multiple of 8.

    At least 16; that much more only up to 256, since a base that does not know when to stop uses
    all of it.
    """
    some = spaced(task.pairs("train"), _TARGETS)
    lengths = sorted(len(task.template.target_ids(tokenizer, target)) for _, target in some)
    long = lengths[int(0.95 * (len(lengths) - 1))]
    guess = max(_LEAST, min(_MOST, -(-3 * long // 16) * 8), -(-long // 8) * 8)
    return guess, f"Replies end after {guess} tokens (guessed: a long target of train has {long})."
