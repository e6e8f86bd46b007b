"""From examples to a task: missing splits, limits, how rows stand, notes on what was done."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Literal

from peftlab.errors import InputError
from peftlab.metrics.json_fields import OF_JSON
from peftlab.tasks.choices import FEWEST, USUAL, Choices
from peftlab.tasks.conversation_files import every_reply
from peftlab.tasks.example import Example
from peftlab.tasks.hashes import among, distinct
from peftlab.tasks.labels import checked_labels, choices_of, refuse_metrics
from peftlab.tasks.metric_choice import choose_metrics
from peftlab.tasks.options import Options
from peftlab.tasks.requests import GENERIC
from peftlab.tasks.rows import source_hashes, take
from peftlab.tasks.task import Decoding, Framing, Provenance, Task, fingerprint, limit_pairs
from peftlab.tasks.template import Template

Splits = dict[str, Sequence[Example]]

_HELD_OUT_SHARE, _HELD_OUT_MOST = 0.1, 1000
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


def finish(
    settings: Settings,
    splits: Splits,
    options: Options,
    notes: Sequence[str],
    subsets: Mapping[str, tuple[int, ...]] | None = None,
) -> Task:
    """Cut missing splits, count duplicates, apply limits and return the task."""
    _refuse_what_means_nothing(settings, options)
    said = list(notes)
    _cut_missing(splits, options.seed, said)
    duplicates = _shared_sources(splits)
    said.append(f"{duplicates} of {len(splits['test'])} test sources also stand in train.")
    if options.loss == "replies":  # each is generated, with the true history before it
        splits["test"] = every_reply(splits["test"])
    new_tokens = options.max_new_tokens or settings.max_new_tokens
    train = limit_pairs(splits["train"], options.limit, options.seed)
    validation = splits["validation"][: options.limit]
    test = splits["test"][: options.test_limit or options.limit]
    content = fingerprint(train, validation, test)
    labels = checked_labels(
        options.labels or options.choices or settings.labels, splits, settings.own_options
    )
    choices = choices_of(labels, settings.own_options, options, said)
    refuse_metrics(options.metrics or (), choices)
    _check_schema(options, choices, chain(train, validation, test))
    if choices is not None and options.loss == "replies":
        raise InputError(
            "loss=replies trains every reply, and choices are of the last: leave one out."
        )
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
            options.metrics, _usual_metrics(settings, options, choices), test, said
        ),
        max_new_tokens=new_tokens or _USUAL_TOKENS,
        guesses_length=new_tokens is None,
        long=options.long,
        source=Provenance(
            settings.kind, settings.location, content, settings.config, settings.revision
        ),
        instruction=settings.instruction if options.instruction is None else options.instruction,
        request=settings.request if asks else "",
        decoding=_decoding(settings.decoding, options.json_schema),
        framing=framing,
        labels=labels,
        choices=choices,
        subsets=_within(subsets or {}, len(test)),
        duplicates=duplicates,
        notes=tuple(said),
        test_is_limited=options.test_limit is not None,
    )


def _decoding(decoding: Decoding, schema: str | None) -> Decoding:
    """A schema says itself what comes next and when it ends; what a task has for that gives way."""
    if not schema:
        return decoding
    return replace(
        decoding,
        json_schema=schema,
        beams=1,
        no_repeat_ngram=0,
        min_new_tokens=0,
        no_newlines=False,
    )


def _check_schema(options: Options, choices: Choices | None, rows: Iterable[Example]) -> None:
    if not options.json_schema:
        return
    if choices is not None:
        raise InputError(
            "schema is of replies that are written, and choices are weighed: leave one out."
        )
    for target in (target for example in rows for target in example.targets):
        try:
            json.loads(target)
        except (ValueError, RecursionError):
            raise InputError(
                f"schema asks for JSON, and a target is {target!r:.60}: targets that are JSON were "
                "expected."
            ) from None


def _usual_metrics(
    settings: Settings, options: Options, choices: Choices | None
) -> tuple[str, ...] | None:
    if choices is not None:
        return USUAL
    return OF_JSON if options.json_schema else settings.metrics


def _shared_sources(splits: Splits) -> int:
    """Return how many test examples have a source that also stands in train."""
    train, test = source_hashes(splits["train"]), source_hashes(splits["test"])
    return int(among(test, train).sum())


def _refuse_what_means_nothing(settings: Settings, options: Options) -> None:
    if not settings.turns and (options.loss == "replies" or options.conversations):
        asked = "loss=replies" if options.loss == "replies" else "conversations=true"
        raise InputError(
            f"{asked} is of conversations, and the rows of {settings.name} are a source and a "
            "target each (-o conversations=true reads a file's as a message and its reply)."
        )
    if options.choices and len(options.choices) < FEWEST and not settings.own_options:
        raise InputError(
            f"choices={options.choices[0]}: two options at least were expected, or, of a file with "
            "a source and a target, the column that holds them."
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
        sources = distinct(hashes)  # rows of one source stay together
        if len(sources) == 1:
            hashes = range(len(rows))
            sources = distinct(hashes)
        count = min(_HELD_OUT_MOST, max(1, int(len(sources) * _HELD_OUT_SHARE)))
        if count >= len(sources):
            raise InputError(
                f"There is no {split} split, and {len(rows)} training example(s) are too few to "
                "cut one from. Give more rows, or a file for it."
            )
        places = random.Random(f"{seed}/{split}").sample(range(len(sources)), count)
        chosen = among(hashes, sources[places])
        splits[split] = take(rows, chosen.nonzero()[0].tolist())
        splits["train"] = take(rows, (i for i, out in enumerate(chosen) if not out))
        cut = len(splits[split])
        notes.append(f"There was no {split} split: {cut} examples are cut from train by seed.")
