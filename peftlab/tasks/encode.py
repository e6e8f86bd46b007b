"""The steps of encoding: slots to text, text to ids, and which of the source's tokens give way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal as OneOf
from typing import NamedTuple

from peftlab.errors import InputError, nearest
from peftlab.tasks.chat import Frame
from peftlab.tasks.example import Example
from peftlab.tasks.markup import OWN_SLOTS, Literal, Markup, Pseudo, Slot
from peftlab.tasks.tokens import (
    Pieces,
    Tokenizer,
    end_of_sequence,
    pieces,
    pieces_between,
    traits,
)


@dataclass(frozen=True)
class Chunk:
    """A stretch of text. kind: who wrote it, which decides what is special and what may be cut.

    One of kind `begin` is empty: edits that begin at the cue begin where it stands.
    """

    text: str
    kind: OneOf["template", "data", "source", "begin"]


@dataclass(frozen=True)
class Reply:
    """An earlier reply of a conversation, tokenised by itself, as where it is the last.

    end: the id of the token that ends it, where it is trained; else the template's text has it.
    """

    chunks: tuple[Chunk, ...]
    end: int | None = None


Part = Chunk | Pseudo | Reply
BEGIN = Chunk("", "begin")


class SourceToken(NamedTuple):
    """A token that stands for nothing but source: where it is in the row, and its characters."""

    position: int
    start: int
    end: int


@dataclass(frozen=True)
class Filler:
    """Fills a template's slots for one example.

    ends: what exemplars' targets do not end in. between: what stands before and after these
    targets. strips: sources lose the white space round them, as a chat template takes it off.
    """

    tokenizer: Tokenizer
    instruction: str
    markup: Markup
    exemplars: Sequence[Example] = ()
    ends: tuple[str, ...] = ()
    between: tuple[str, str] = ("", "")
    strips: bool = False

    def fill(self, example: Example) -> list[Part]:
        """Return the parts of the row before the target, empty ones left out."""
        parts: list[Part] = []
        context = self.markup.context
        for index, segment in enumerate(context):
            match segment:
                case Pseudo():
                    parts.append(segment)
                case Literal(text):
                    parts.append(Chunk(text, "template"))
                case Slot("instruction"):
                    parts.append(Chunk(self._instruction(context[index + 1 :]), "template"))
                case Slot("begin"):
                    self._check_column("begin", example)
                    parts.append(BEGIN)
                case Slot("exemplars"):
                    parts += self._exemplars(index)
                case Slot(name):
                    parts.append(self._value(name, example))
        return [part for part in parts if not isinstance(part, Chunk) or part.text or part == BEGIN]

    def _instruction(self, following: Sequence[Literal | Slot | Pseudo]) -> str:
        text = self.instruction
        spaced = text[-1:].isspace() or (
            bool(following) and isinstance(following[0], Literal) and following[0].text[0].isspace()
        )
        return text if not text or spaced else text + "\n"

    def _exemplars(self, slot: int) -> list[Part]:
        after_slot = self.markup.context[slot + 1 :]
        shape = [s for s in after_slot if not isinstance(s, Pseudo) and s != Slot("begin")]
        before, after = self.between
        chunks: list[Part] = []
        for exemplar in self.exemplars:
            for segment in shape:
                if isinstance(segment, Literal):
                    chunks.append(Chunk(segment.text, "template"))
                elif segment.name != "instruction":
                    value = self._value(segment.name, exemplar)
                    # Another example's source is never cut.
                    chunks.append(replace(value, kind="data") if value.kind == "source" else value)
            chunks.append(Chunk(before, "template"))
            chunks.append(Chunk(without_end(exemplar.targets[0].strip(), self.ends), "data"))
            chunks.append(Chunk(after, "template"))
        return chunks

    def _check_column(self, name: str, example: Example) -> None:
        """Refuse a column whose name says something else in a template."""
        if name in example.fields:
            raise InputError(
                f"{{{name}}} in a template says where edits begin, and the data have a column "
                f"called {name}: give that another name"
            )

    def _value(self, name: str, example: Example) -> Chunk:
        if name == "source":
            return Chunk(example.source.strip() if self.strips else example.source, "source")
        if name in ("bos", "eos"):
            return Chunk(self._special(name), "template")
        if name not in example.fields:
            known = sorted({*example.fields, *OWN_SLOTS})
            raise InputError(
                f'The template names the column {{{name}}}, which the example "{example.excerpt()}"'
                f" lacks; it has {', '.join(known)}.{nearest(name, known)}"
            )
        return Chunk(example.fields[name], "data")

    def _special(self, name: str) -> str:
        if name == "eos":
            end_of_sequence(self.tokenizer)
            return str(self.tokenizer.eos_token)
        if self.tokenizer.bos_token is None:
            raise InputError(
                "The template names {bos}, and the tokenizer "
                f"{type(self.tokenizer).__name__} has no beginning-of-sequence token. Use {{eos}}."
            )
        return str(self.tokenizer.bos_token)


def framed(parts: list[Part], frame: Frame) -> list[Part]:
    """Put `parts` into a chat frame; pseudo tokens that lead stay before everything."""
    lead = next((i for i, part in enumerate(parts) if not isinstance(part, Pseudo)), len(parts))
    head, bridge = Chunk(frame.head, "template"), Chunk(frame.bridge, "template")
    return [*parts[:lead], head, *parts[lead:], bridge]


def with_begin(parts: list[Part], in_chat: bool, first_reply: bool = False) -> list[Part]:
    """Mark where the cue begins, if nothing does: after the source, in a chat after the message.

    A row without a source has its cue after whatever else stands before its last words.

    Args:
        first_reply: of a conversation, that of its first reply.
    """
    if BEGIN in parts:
        return parts
    replies = [i for i, part in enumerate(parts) if isinstance(part, Reply)]
    if first_reply and replies:
        before = replies[0] - 1
        return [*parts[:before], BEGIN, *parts[before:]]
    kinds = [part.kind if isinstance(part, Chunk) else "" for part in parts]
    last = len(parts) - 1 if in_chat else next(
        (i + 1 for i, kind in enumerate(kinds) if kind == "source"), len(parts) - 1
    )  # fmt: skip
    return [*parts[:last], BEGIN, *parts[last:]]


class ContextIds(NamedTuple):
    """The ids of everything before the target, which of them are the source's, where the cue
    begins: at the last token boundary that is not after its mark, and which earlier replies are
    trained, as ranges.
    """

    ids: list[int]
    sources: list[SourceToken]
    begin: int
    spans: list[tuple[int, int]]


def context_ids(tokenizer: Tokenizer, parts: Sequence[Part], chat: bool) -> ContextIds:
    """Return the ids of everything before the target, and what is known of them.

    The tokenizer's own beginning-of-sequence token goes right before the first text, after
    leading pseudo tokens; a chat template writes its own.
    """
    bos = [] if chat else list(traits(tokenizer).bos)
    made = ContextIds([], [], 0, [])
    ids, begun, index = made.ids, False, 0
    while index < len(parts):
        part = parts[index]
        if isinstance(part, Pseudo):
            ids += [-(part.first + j + 1) for j in range(part.count)]
            index += 1
            continue
        if isinstance(part, Reply):
            _append_reply(tokenizer, part, made)
            index += 1
            continue
        stop = index
        while stop < len(parts) and isinstance(parts[stop], Chunk):
            stop += 1
        if not begun:
            ids += bos
        run = [chunk for chunk in parts[index:stop] if isinstance(chunk, Chunk)]
        begin = _append_run(tokenizer, run, begun, made)
        made = made if begin is None else made._replace(begin=begin)
        begun, index = True, stop
    return made if begun else made._replace(ids=ids + bos)


def _append_reply(tokenizer: Tokenizer, reply: Reply, made: ContextIds) -> None:
    start = len(made.ids)
    made.ids.extend(_tokenised(tokenizer, reply.chunks, True)[0])
    if reply.end is not None:
        made.ids.append(reply.end)
        made.spans.append((start, len(made.ids)))


def _append_run(
    tokenizer: Tokenizer,
    run: Sequence[Chunk],
    begun: bool,
    made: ContextIds,
) -> int | None:
    """Tokenise contiguous chunks as one string and append their ids and source tokens.

    Returns the place in the row where the cue begins, if its mark is in the run.
    """
    text = "".join(chunk.text for chunk in run)
    row, offsets = _tokenised(tokenizer, run, begun)
    begin, end = _span(run, "source")
    mark, marked = _span(run, "begin")[0], None
    extents = _extents(offsets, len(text))
    for token, offset, (left, right) in zip(row, offsets, extents, strict=True):
        if begin <= left and right <= end:
            made.sources.append(SourceToken(len(made.ids), *offset))
        if marked is None and right > mark:
            marked = len(made.ids)
        made.ids.append(token)
    return (len(made.ids) if marked is None else marked) if BEGIN in run else None


def _span(run: Sequence[Chunk], kind: str) -> tuple[int, int]:
    """Return where the chunk of a kind stands in the run, or a span that holds nothing."""
    start = 0
    for chunk in run:
        if chunk.kind == kind:
            return start, start + len(chunk.text)
        start += len(chunk.text)
    return start + 1, start + 1


def _extents(offsets: Sequence[tuple[int, int]], length: int) -> list[tuple[int, int]]:
    """Return for each token all characters that it may stand for.

    Byte-level tokenizers leave white space out of their offsets: a gap belongs to the token after
    it, and one of nothing but white space, whose offsets are empty, to somewhere in its gap.
    """
    following = [length] * (len(offsets) + 1)
    for index in range(len(offsets) - 1, -1, -1):
        left, right = offsets[index]
        following[index] = left if left < right else following[index + 1]
    extents: list[tuple[int, int]] = []
    reached = 0
    for index, (left, right) in enumerate(offsets):
        if left < right:
            extents.append((min(left, reached), right))
            reached = max(reached, right)
        else:
            extents.append((reached, following[index]))
    return extents


def _tokenised(tokenizer: Tokenizer, run: Sequence[Chunk], begun: bool) -> Pieces:
    """Tokenise a run as one string; special tokens are the template's, data's are mere text."""
    text, special = "".join(chunk.text for chunk in run), traits(tokenizer).special
    if not any(special.search(chunk.text) for chunk in run if chunk.kind != "template"):
        return pieces(tokenizer, text, False, begun)
    marks, at = [], 0
    for chunk in run:
        found = special.finditer(chunk.text) if chunk.kind == "template" else ()
        marks += [(at + mark.start(), at + mark.end()) for mark in found]
        at += len(chunk.text)
    return pieces_between(tokenizer, text, marks, begun)


def target_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """Return the ids of a target's text, in which no special token is recognised."""
    plain = traits(tokenizer).special.search(text) is not None
    return pieces(tokenizer, text, plain, begun=True)[0]


def joint_ids(tokenizer: Tokenizer, parts: Sequence[Part], texts: Sequence[str]) -> list[list[int]]:
    """Return the ids of options' texts as each stands after the row's last words.

    They are those of both beyond the number that the words have by themselves.
    """
    run: list[Chunk] = []
    for part in reversed(parts):
        if not isinstance(part, Chunk):
            break
        run.insert(0, part)
    begun = not all(isinstance(part, Pseudo) for part in parts[: len(parts) - len(run)])
    before = len(_tokenised(tokenizer, run, begun)[0]) if run else 0
    both = ([*run, Chunk(text, "data")] for text in texts)
    return [_tokenised(tokenizer, one, begun)[0][before:] for one in both]


def alone_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """Return the ids of a text that begins a row."""
    plain = traits(tokenizer).special.search(text) is not None
    return pieces(tokenizer, text, plain, begun=False)[0]


def without_end(text: str, ends: Sequence[str]) -> str:
    """Return `text` without the end-of-sequence texts that it ends in, if there are any."""
    bare = text.rstrip()
    while (end := next((end for end in ends if bare.endswith(end)), None)) is not None:
        text = bare = bare.removesuffix(end).rstrip()
    return text


def cut(
    sources: Sequence[SourceToken],
    over: int,
    end: OneOf["start", "end"],
    example: Example,
    max_tokens: int,
) -> set[int]:
    """Return the positions of source tokens that give way: `over` of them, or a few more.

    A character of several tokens (an emoji in a byte-level BPE) is never cut in two.
    """
    if over >= len(sources):
        raise InputError(
            f'The example "{example.excerpt()}" does not fit: without its source the row takes '
            f"{max_tokens + over - len(sources)} tokens, which leaves none of the {max_tokens} for "
            "the source. Shorten the template, the exemplars, the prompt or the target, or take a "
            "model with a longer context."
        )
    ordered = list(sources) if end == "start" else list(sources)[::-1]
    while over < len(ordered) and _overlap(ordered[over - 1], ordered[over]):
        over += 1
    return {token.position for token in ordered[:over]}


def _overlap(one: SourceToken, other: SourceToken) -> bool:
    return max(one.start, other.start) < min(one.end, other.end)


def last_place(ids: Sequence[int], wanted: Sequence[int]) -> int | None:
    """Where `wanted` stands in `ids` for the last time."""
    starts = range(len(ids) - len(wanted), -1, -1)
    return next((i for i in starts if list(ids[i : i + len(wanted)]) == list(wanted)), None)
