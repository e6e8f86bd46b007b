"""A task: what is to be learnt, from which rows, how it is decoded and which scores count."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt, Le

from peftlab.errors import InputError, nearest
from peftlab.options import Checked, Option, Since
from peftlab.tasks.choices import Choices
from peftlab.tasks.example import Example
from peftlab.tasks.requests import GENERIC
from peftlab.tasks.rows import Pairs, with_pairs
from peftlab.tasks.schema import SCHEMA
from peftlab.tasks.template import Template

SPLITS = ("train", "validation", "test")


COLDEST = 0.01
"""The lowest temperature: scores divided by less may overflow."""
_Count = Annotated[int, Ge(0), Le(2**31 - 1)]
_Penalty = Annotated[float, Ge(-100), Le(100)]


@dataclass(frozen=True)
class Decoding(Checked):
    """How a task's outputs are generated. beams=1 without sampling is greedy search."""

    beams: Annotated[int, Ge(1), Le(1000), Option("Of beam search; 1 is greedy search.")] = 1
    length_penalty: Annotated[
        float,
        Ge(-100),
        Le(100),
        Option("A beam's log-probability is divided by its length to this power."),
    ] = 1.0
    no_repeat_ngram: Annotated[
        _Count, Option("No n-gram of this size occurs twice in an output; 0: all are allowed.")
    ] = 0
    min_new_tokens: Annotated[_Count, Option("Least tokens of an output.")] = 0
    no_newlines: Annotated[
        bool, Option("Without line breaks, for outputs that are scored a line each.")
    ] = False
    sample: Annotated[bool, Option("Draw tokens by chance.")] = False
    temperature: Annotated[float, Ge(COLDEST), Le(1000), Option("Of sampling.")] = 1.0
    top_k: Annotated[_Count, Option("Sample among so many tokens; 0: all of them.")] = 0
    top_p: Annotated[
        float, Gt(0), Le(1), Option("Sample among the likeliest tokens of this share.")
    ] = 1.0
    min_p: Annotated[
        float, Ge(0), Le(1), Since(0.0), Option("Sample what has this share of the best's chance.")
    ] = field(default=0.0, repr=False)
    repetition_penalty: Annotated[
        float, Ge(0.01), Le(100), Since(1.0), Option("Of tokens of prompt and reply; 1: none.")
    ] = field(default=1.0, repr=False)
    presence_penalty: Annotated[
        _Penalty, Since(0.0), Option("Off the score of a token that the reply has; 0: none.")
    ] = field(default=0.0, repr=False)
    frequency_penalty: Annotated[
        _Penalty, Since(0.0), Option("The same, for each time that it has it; 0: none.")
    ] = field(default=0.0, repr=False)
    json_schema: Annotated[str, Since(""), SCHEMA] = field(default="", repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.json_schema:
            check_structured(self)


def check_structured(decoding: Decoding, min_new_tokens: int = 0) -> None:
    """Refuse what no structure could be followed under. Raises `InputError`."""
    least = max(min_new_tokens, decoding.min_new_tokens)
    for name, value, usual in (
        ("min_new_tokens", least, 0),
        ("no_repeat_ngram", decoding.no_repeat_ngram, 0),
        ("beams", decoding.beams, 1),
        ("no_newlines", decoding.no_newlines, False),
    ):
        if value != usual:
            raise InputError(
                f"{name} is {value}, and replies are to follow a structure, which says itself what "
                f"comes next and when it ends; leave {name} out"
            )


@dataclass(frozen=True)
class Provenance:
    """Where a task's rows come from.

    kind: "demo", "files" or "hub". location: its path or hub id. config, revision: of a hub data
    set. fingerprint: SHA-256 of all rows as loaded (after limits), in hexadecimal.
    """

    kind: str
    location: str
    fingerprint: str
    config: str | None = None
    revision: str | None = None


@dataclass(frozen=True)
class Framing:
    """How rows are to stand in a chat, until a base's tokenizer is there (`tasks.framing`).

    chat: None: where the tokenizer has a chat template. text: of the template, in a chat, in the
    place of `bare`. system: the system prompt, in the place of the chat template's own. turns: rows
    are conversations, which stand in a chat in any case, if need be in one of plain lines.
    """

    chat: bool | None
    text: str
    bare: str
    system: str | None = None
    turns: bool = field(default=False, repr=False)


@dataclass(frozen=True)
class Task:
    """Text to text: a template, three splits, and how outputs are made and scored.

    instruction: the request in words. The template does not hold it: hard prompts put it in
    (`Template.with_instruction`), and the other methods have to find out what is asked. request:
    the words for this kind of task, where an instruction model is asked and there are no others.
    load, from_files: how tasks are made, see `peftlab.tasks.load`, which lies above and sets them.
    labels: the class labels, where the targets are such. subsets: named parts of the test split,
    as indices into it (WebNLG's seen and unseen categories). duplicates: test examples whose
    source also stands in the training split, before any limit. notes: what loading has decided,
    one sentence each, to be shown to the user.
    long: what becomes of rows that do not fit whole: their sources are cut, they leave, or they are
    refused. guesses_length: `max_new_tokens` stands for the guess that a base's tokenizer will
    make. framing: whether rows stand in a chat; None: as the template says. fitted: that, and the
    like, is done (`tasks.fit`). skipped: rows that have left, by split. test_is_limited: somebody
    has said how many test examples to take. choices: the target is one of some options, which is
    told by their likelihoods; None: replies are written.
    """

    load: ClassVar[Callable[..., Task]]
    from_files: ClassVar[Callable[..., Task]]

    name: str
    template: Template
    train: Sequence[Example] = field(repr=False)
    validation: Sequence[Example] = field(repr=False)
    test: Sequence[Example] = field(repr=False)
    metrics: tuple[str, ...]
    max_new_tokens: int
    source: Provenance
    instruction: str = ""
    request: str = GENERIC
    decoding: Decoding = field(default_factory=Decoding)
    labels: tuple[str, ...] | None = None
    subsets: Mapping[str, tuple[int, ...]] = field(default_factory=dict, hash=False, repr=False)
    duplicates: int = 0
    notes: tuple[str, ...] = ()
    long: Literal["cut", "skip", "refuse"] = "cut"
    guesses_length: bool = False
    framing: Framing | None = None
    fitted: bool = False
    skipped: Mapping[str, int] = field(default_factory=dict, hash=False, repr=False)
    test_is_limited: bool = False
    choices: Choices | None = field(default=None, repr=False)

    def split(self, name: str) -> Sequence[Example]:
        """Return the examples of "train", "validation" or "test"."""
        if name not in SPLITS:
            raise InputError(
                f'There is no split "{name}"; {", ".join(SPLITS)} were expected.'
                f"{nearest(name, SPLITS)}"
            )
        rows: Sequence[Example] = getattr(self, name)
        return rows

    def pairs(self, split: str) -> Pairs:
        """Return every (example, target) of a split: a row with several targets gives several."""
        return Pairs(self.split(split))

    def options_read(self) -> float:
        """How many options a test example has on average; 0 where replies are written."""
        if self.choices is None or not self.test:
            return 0.0
        if self.choices.options:
            return float(len(self.choices.options))
        return sum(len(one.options) for one in self.test) / len(self.test)

    def subset(self, name: str) -> Task:
        """Return this task with its test split narrowed to a named subset."""
        if name not in self.subsets:
            raise InputError(
                f'The task {self.name} has no subset "{name}"; it has '
                f"{', '.join(self.subsets) or 'none'}.{nearest(name, self.subsets)}"
            )
        test = [self.test[index] for index in self.subsets[name]]
        return replace(self, name=f"{self.name}:{name}", test=test, subsets={})


def fingerprint(*splits: Sequence[Example]) -> str:
    """Return the SHA-256 of all rows of all splits, in hexadecimal."""
    digest = hashlib.sha256()
    for rows in splits:
        digest.update(b"\x1c")
        for row in rows:
            texts = (row.source, *row.targets, *(f"{k}={v}" for k, v in sorted(row.fields.items())))
            if row.turns or row.tools or row.calls or row.options:
                texts = (*texts, json.dumps(row.to_dict(), sort_keys=True))
            digest.update("\x1e".join(texts).encode("utf-8") + b"\x1d")
    return digest.hexdigest()


def limit_pairs(rows: Sequence[Example], limit: int | None, seed: int) -> Sequence[Example]:
    """Return rows with `limit` (example, target) pairs in all, drawn by seed, order kept."""
    whole = len(Pairs(rows))
    if limit is None or whole <= limit:
        return rows
    return with_pairs(rows, sorted(random.Random(seed).sample(range(whole), limit)))
