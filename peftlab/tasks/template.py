"""Templates: how an example becomes a row of token ids.

Contiguous text is tokenised as one string. Text is split only at pseudo tokens and before the
target, so that the prompt's ids never depend on the target. White space right before `{target}`
belongs to the target: " word" is then one token of a byte-level BPE.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from typing import Annotated, Any, Literal

from peftlab.errors import InputError, nearest
from peftlab.options import Since, identity
from peftlab.tasks import chat, conversation, encode, markup
from peftlab.tasks.chat import Frame
from peftlab.tasks.encode import ContextIds, Part, last_place
from peftlab.tasks.example import Begin, Encoded, Example, Loss
from peftlab.tasks.markup import Markup
from peftlab.tasks.similar import TfIdf
from peftlab.tasks.tokens import Tokenizer, end_of_sequence


@dataclass(frozen=True)
class Template:
    """A text with slots, and what fills those slots that do not come from the example.

    text: for example `"{instruction}{exemplars}{source}\\nSummary: {target}"`. `{p:5}` stands for
        five pseudo tokens, numbered left to right over the template; `{bos}` and `{eos}` for the
        tokenizer's own; other names for an example's `fields`. It ends with `{target}`.
    instruction: followed by a line break where neither it nor the text after it brings white space.
    exemplars: the pool of few-shot examples; each is shown as the part of `text` from
        `{exemplars}` to `{target}`, then `separator`. An example is never shown to itself.
    shots: show only so many, those most similar to the source (tf-idf), the most similar last;
        None shows the whole pool in its order.
    truncate: which end of an over-long source is cut; nothing but the source ever is.
    source_tokens: keep at most this many tokens of a source, even where there is room for more.
    chat: put the text before the target, as the user's message, into a chat.
    begin: where edits begin: row, or cue: the words after the source, or, in a chat, all from the
        end of the user's message on. `{begin}` in the text names another place.
    infix: so many pseudo tokens stand there, after those of the text.
    invocation: with begin=cue, token ids at whose last place in a prompt edits begin, wherever the
        text has its cue; nowhere in a prompt that lacks them (PEFT's aLoRA, which comes with them).
    loss: of conversations, which replies rows are trained on. With replies, the cue is that of the
        first one.
    joint: targets are options, tokenised together with what precedes them and parted where that
        ends by itself (lm-evaluation-harness's rule), so that all of a row share its ids.
    beside: of a mixture, the templates of its other experts; each row has one in each of them.
    frame: of that chat, see `peftlab.tasks.chat`; None takes what the tokenizer's chat template is
        at the time. What has been fitted to a base has its frame, so that it keeps it.
    """

    text: str
    instruction: str = ""
    exemplars: tuple[Example, ...] = ()
    shots: int | None = None
    truncate: Literal["start", "end"] = "end"
    source_tokens: int | None = None
    chat: bool = False
    separator: str = "\n\n"
    frame: Annotated[Frame | None, Since(None)] = None
    begin: Annotated[Begin, Since("row")] = "row"
    infix: Annotated[int, Since(0)] = field(default=0, repr=False)
    invocation: Annotated[tuple[int, ...], Since(())] = field(default=(), repr=False)
    loss: Annotated[Loss, Since("last")] = field(default="last", repr=False)
    joint: Annotated[bool, Since(False)] = field(default=False, repr=False)
    beside: Annotated[tuple[Template, ...], Since(())] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        for name in ("text", "instruction", "separator"):
            if not isinstance(getattr(self, name), str):
                raise InputError(f"{name} is {getattr(self, name)!r:.100}; a text was expected.")
        if self.truncate not in ("start", "end"):
            raise InputError(f'truncate is {self.truncate!r}; "start" or "end" was expected.')
        for name in ("shots", "source_tokens"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                raise InputError(f"{name} is {value!r:.40}; a whole number from 1 on was expected.")
        if self.loss not in ("last", "replies"):
            raise InputError(f"loss is {self.loss!r:.40}; last or replies was expected.")
        if self.loss == "replies" and self.markup.has("begin"):
            raise InputError(
                "with loss=replies edits begin at the cue of the first reply; {begin} in the "
                "template names another place: leave one out."
            )
        if any(example.turns for example in self.exemplars):
            raise InputError(
                "an exemplar is a conversation, which cannot be shown inside of another: leave "
                "exemplars (shots) out."
            )
        if self.begin not in ("row", "cue"):
            raise InputError(f"begin is {self.begin!r:.40}; row or cue was expected.")
        if type(self.infix) is not int or self.infix < 0 or (self.infix and self.begin == "row"):
            raise InputError(
                f"infix is {self.infix!r:.40} with begin={self.begin}; a whole number was "
                "expected, and 0 where there is no cue to stand at."
            )
        if self.invocation and (self.begin == "row" or self.infix):
            raise InputError(
                f"invocation names token ids at which edits begin, and this template has "
                f"begin={self.begin} and {self.infix} pseudo tokens at its cue; begin=cue and none "
                "were expected."
            )
        if self.frame is not None and not self.chat:
            raise InputError("A template has a chat frame, and its rows stand in no chat.")
        for name in ("instruction", "exemplars"):
            if getattr(self, name) and not self.markup.has(name):
                raise InputError(
                    f"The template {self.text!r} has no {{{name}}}, so its {name} would never be "
                    f"shown. Put {{{name}}} into the text."
                )

    @property
    def markup(self) -> Markup:
        """The parsed text."""
        return markup.parse(self.text)

    @property
    def pseudo_tokens(self) -> int:
        """How many pseudo tokens a row has."""
        return self.markup.pseudo_tokens + self.infix

    @cached_property
    def _index(self) -> TfIdf:
        return TfIdf([example.source for example in self.exemplars])

    def framed(self, frame: Frame, text: str | None = None) -> Template:
        """Return this template in a chat, its text the user's message."""
        return replace(self, text=self.text if text is None else text, chat=True, frame=frame)

    def framing(self, tokenizer: Tokenizer) -> Frame | None:
        """Return the frame that rows stand in; None outside of a chat."""
        return (self.frame or chat.frame(tokenizer)) if self.chat else None

    def with_prompt(self, length: int, begin: Begin = "row") -> Template:
        """Return this template with `length` pseudo tokens before everything, or at the cue."""
        if begin == "cue":
            return replace(self, begin=begin, infix=self.infix + length)
        made = self.beginning(begin)
        return replace(made, text=f"{{p:{length}}}{self.text}") if length else made

    def beginning(self, begin: Begin) -> Template:
        """Return this template for edits that begin there."""
        made = replace(self, begin=begin, infix=0, invocation=())
        return self if begin == self.begin else made

    def with_instruction(self, instruction: str) -> Template:
        """Return this template with another instruction, in a slot at the front if it has none."""
        return replace(self, text=self._text_with("instruction"), instruction=instruction)

    def with_exemplars(self, exemplars: Sequence[Example], shots: int | None = None) -> Template:
        """Return this template with a pool of few-shot examples, after the instruction."""
        text = self._text_with("exemplars")
        return replace(self, text=text, exemplars=tuple(exemplars), shots=shots)

    def _text_with(self, name: str) -> str:
        if self.markup.has(name):
            return self.text
        front, after = "", self.text
        if name == "exemplars" and self.markup.has("instruction"):
            before, _, after = self.text.partition("{instruction}")
            front = before + "{instruction}"
        return f"{front}{{{name}}}{after}"

    @property
    def alone(self) -> Template:
        """This template without those beside it."""
        return replace(self, beside=()) if self.beside else self

    def encode(
        self, tokenizer: Tokenizer, example: Example, target: str | None, max_tokens: int
    ) -> Encoded:
        """Return the row of `example` with `target`, or its prompt alone where target is None.

        max_tokens: of the whole row, pseudo tokens, target and its end included. The
        source gives way until the row fits; a prompt for generation therefore equals the prompt
        part of a training row wherever both had as many tokens left for it.

        Raises `InputError` for a column that the example lacks, a row that does not fit even
        without its source, and tokenizers without offsets or without an end-of-sequence token.
        """
        context = self._context_ids(tokenizer, example)
        tail = [] if target is None else self.target_ids(tokenizer, target, example)
        room = max_tokens - self.infix - len(tail)
        context, gone = self._fitting(tokenizer, example, context, room)
        ids, sources, begin, spans = context
        if not ids:
            raise InputError(
                f"The template {self.text!r} leaves nothing before the target of the example "
                f'"{example.excerpt()}"; a model needs at least one token to predict from.'
            )
        over = len(ids) + self.infix + len(tail) - max_tokens
        if self.source_tokens is not None:
            over = max(over, len(sources) - self.source_tokens)
        if over > 0:
            cut = encode.cut(sources, over, self.truncate, example, max_tokens)
            ids = [token for position, token in enumerate(ids) if position not in cut]
            begin -= sum(position < begin for position in cut)
            gone += len(cut)
        row = self.row(ids, begin, tail, gone, spans if tail else ())
        if not self.beside:
            return row
        return row.with_beside(
            [other.encode(tokenizer, example, target, max_tokens) for other in self.beside]
        )

    def unprompted(self, ids: Sequence[int], start: int) -> Encoded:
        """Return the row of ids before which only the pseudo tokens stand, trained from `start`."""
        lead = tuple(-j - 1 for j in range(self.pseudo_tokens))
        row = Encoded.trained_from((*lead, *ids), len(lead) + start)
        return row.with_beside([other.unprompted(ids, start) for other in self.beside])

    def _fitting(
        self, tokenizer: Tokenizer, example: Example, context: ContextIds, room: int
    ) -> tuple[ContextIds, int]:
        """The context, of a conversation without its oldest exchanges, as many as have to go; and
        how many tokens these have.
        """
        whole = len(context.ids)
        least: int | None = None
        while (less := conversation.shorter(example)) is not None:
            over = len(context.ids) - room
            if self.source_tokens is not None:  # earlier turns are source too
                least = self._least(tokenizer, less) if least is None else least
                earlier = len(context.ids) - least
                over = max(over, earlier + len(context.sources) - self.source_tokens)
            if over <= 0:
                break
            example, context = less, self._context_ids(tokenizer, less)
        return context, whole - len(context.ids)

    def _least(self, tokenizer: Tokenizer, example: Example) -> int:
        """Tokens of the context of a conversation's last message alone."""
        while (less := conversation.shorter(example)) is not None:
            example = less
        return len(self._context_ids(tokenizer, example).ids)

    def row(
        self,
        ids: Sequence[int],
        begin: int,
        tail: Sequence[int] = (),
        dropped: int = 0,
        spans: Sequence[tuple[int, int]] = (),
    ) -> Encoded:
        """Return the row of a context's ids, with the pseudo tokens of the cue where that begins.

        tail: the target and its end. dropped: tokens of the source that were cut before. spans: of
        earlier replies that are trained.
        """
        context: tuple[int, ...] = tuple(ids)
        at: int | None = 0
        if self.begin == "cue" and self.invocation:
            at = last_place(ids, self.invocation)
        elif self.begin == "cue":
            context, at = self._at_cue(context, begin)
            later = self.infix  # every earlier reply stands after its cue
            spans = [(start + later, stop + later) for start, stop in spans]
        last = ((len(context), len(context) + len(tail)),) if tail else ()
        return Encoded((*context, *tail), (*spans, *last), dropped, at)

    def _at_cue(self, ids: tuple[int, ...], begin: int) -> tuple[tuple[int, ...], int]:
        """The context with the cue's pseudo tokens, and where that begins."""
        # The state that predicts the first target token is an edited one, whatever the template.
        begin = min(begin, len(ids) - (not self.infix))
        first = self.markup.pseudo_tokens
        infix = range(-first - 1, -first - 1 - self.infix, -1)
        return (*ids[:begin], *infix, *ids[begin:]), begin

    def end_id(self, tokenizer: Tokenizer) -> int:
        """Return the id that ends every target."""
        return self.end_ids(tokenizer)[0]

    def end_ids(self, tokenizer: Tokenizer) -> tuple[int, ...]:
        """Return the ids at which generation has to stop, that of `end_id` first."""
        frame = self.framing(tokenizer)
        return (end_of_sequence(tokenizer),) if frame is None else frame.end_ids(tokenizer)

    def ends(self, tokenizer: Tokenizer) -> tuple[str, ...]:
        """Return the texts of the tokens that end a target, which data often bring along."""
        ids = (end_of_sequence(tokenizer), *self.end_ids(tokenizer))
        return tuple(dict.fromkeys(str(tokenizer.convert_ids_to_tokens(one)) for one in ids))

    def target_ids(
        self, tokenizer: Tokenizer, target: str, example: Example | None = None
    ) -> list[int]:
        """Return the ids of a target and of its one end, which `target` may end in or not.

        example: whose it is, which decides where options are tokenised together with it (`joint`).
        """
        if self.joint and example is not None:
            (ids,) = self.option_ids(tokenizer, example, [target])
        else:
            ids = encode.target_ids(tokenizer, self._led(tokenizer, target))
        return [*ids, self.end_id(tokenizer)]

    def option_ids(
        self, tokenizer: Tokenizer, example: Example, options: Sequence[str]
    ) -> list[list[int]]:
        """Return the ids of each option after the example's words, without an end, see `joint`."""
        texts = [self._led(tokenizer, option) for option in options]
        if not self.joint:
            return [encode.target_ids(tokenizer, text) for text in texts]
        return encode.joint_ids(tokenizer, self.parts(tokenizer, example), texts)

    def option_alone(self, tokenizer: Tokenizer, option: str) -> list[int]:
        """Return the ids of an option that nothing precedes."""
        return encode.alone_ids(tokenizer, self._led(tokenizer, option))

    def _led(self, tokenizer: Tokenizer, target: str) -> str:
        """A target's text without its end, with the white space that belongs to it."""
        frame = self.framing(tokenizer)
        lead = self.markup.lead if frame is None else frame.lead
        return lead + encode.without_end(target.strip(), self.ends(tokenizer))

    def parts(self, tokenizer: Tokenizer, example: Example) -> list[Part]:
        """Return the row before its target: chunks of text, and pseudo tokens."""
        shown, frame = self._shown(example), self.framing(tokenizer)
        filler = encode.Filler(tokenizer, self.instruction, self.markup)
        if frame is not None:
            filler = replace(filler, strips=frame.strips)
        if shown:
            between = (self.markup.lead, self.separator) if frame is None else frame.exchange()
            ends = self.ends(tokenizer)
            filler = replace(filler, exemplars=shown, between=between, ends=ends)
        filled = filler.fill(example)
        if example.turns or example.tools:
            filled = conversation.parts(tokenizer, self._shows_turns(frame), example, filled)
        elif frame is not None:
            filled = encode.framed(filled, frame)
        if self.begin == "row":
            return filled
        return encode.with_begin(filled, self.chat, first_reply=self.loss == "replies")

    def _shows_turns(self, frame: Frame | None) -> Frame:
        if frame is None or not frame.jinja:
            raise InputError(
                "these rows are conversations, and this template was made for one message and its "
                "reply: train on conversations, or send the last message alone"
            )
        return frame

    def _context_ids(self, tokenizer: Tokenizer, example: Example) -> ContextIds:
        parts = self.parts(tokenizer, example)
        return encode.context_ids(tokenizer, parts, self.chat)

    def _shown(self, example: Example) -> tuple[Example, ...]:
        others = [i for i, other in enumerate(self.exemplars) if other.source != example.source]
        if self.shots is not None and self.shots < len(others):
            near = self._index.similarities(example.source)
            others.sort(key=lambda i: near.get(i, 0.0), reverse=True)
            others = others[: self.shots][::-1]
        return tuple(self.exemplars[i] for i in others)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values from which `from_dict` makes this template again."""
        values = {**asdict(self), "exemplars": [example.to_dict() for example in self.exemplars]}
        # Later than the first files of templates:
        later: dict[str, Any] = {"frame": None, "begin": "row", "infix": 0, "invocation": ()}
        later |= {"loss": "last", "joint": False, "beside": []}
        values["beside"] = [other.to_dict() for other in self.beside]
        return {n: v for n, v in values.items() if n not in later or v != later[n]}

    def identity(self) -> dict[str, Any]:
        """The values that decide a result, see `options.Since`."""
        values = self.to_dict()
        if self.frame is not None:
            values["frame"] = identity(self.frame)
        return identity(self, values)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Template:
        """Return the template that `to_dict` wrote. Raises `InputError` for an unknown setting."""
        known = {item.name for item in fields(cls)}
        for name in values:
            if name not in known:
                raise InputError(f'A template has no "{name}".{nearest(name, known)}')
        stored, frame = values.get("exemplars", []), values.get("frame")
        if "text" not in values or not isinstance(stored, list | tuple):
            raise InputError(f"A template is stored as {dict(values)!r:.100}; it is damaged.")
        shown = tuple(Example.from_dict(e) for e in stored)
        frame = None if frame is None else Frame.from_dict(frame)
        beside = _templates(values)
        made = {"exemplars": shown, "frame": frame, "invocation": _ids(values), "beside": beside}
        return cls(**{**values, **made})


def _templates(values: Mapping[str, Any]) -> tuple[Template, ...]:
    stored = values.get("beside", ())
    if not isinstance(stored, list | tuple) or not all(isinstance(one, Mapping) for one in stored):
        raise InputError(f"A template's beside is {stored!r:.60}; templates were expected.")
    return tuple(Template.from_dict(one) for one in stored)


def _ids(values: Mapping[str, Any]) -> tuple[int, ...]:
    stored = values.get("invocation", ())
    if not isinstance(stored, list | tuple) or any(type(one) is not int for one in stored):
        raise InputError(f"A template's invocation is {stored!r:.60}; token ids were expected.")
    return tuple(stored)
