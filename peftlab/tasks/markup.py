"""The language of templates: `{name}` slots, `{p:5}` pseudo tokens, `{{` and `}}` for braces."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from string import Formatter

from peftlab.errors import InputError

_DIGITS = 6  # more pseudo tokens than any context has room for
OWN_SLOTS = frozenset({"instruction", "exemplars", "source", "target", "bos", "eos", "begin"})


@dataclass(frozen=True)
class Literal:
    """Text of the template itself."""

    text: str


@dataclass(frozen=True)
class Slot:
    """A place that is filled per example."""

    name: str


@dataclass(frozen=True)
class Pseudo:
    """`count` neighbouring pseudo tokens; the first of them is number `first` of the row."""

    first: int
    count: int


Segment = Literal | Slot | Pseudo


@dataclass(frozen=True)
class Markup:
    """A parsed template: what stands before the target, and the white space that goes with it."""

    context: tuple[Segment, ...]
    lead: str

    @property
    def pseudo_tokens(self) -> int:
        """How many pseudo tokens a row has."""
        return sum(part.count for part in self.context if isinstance(part, Pseudo))

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the slots that only an example's `fields` can fill, each once."""
        names = (part.name for part in self.context if isinstance(part, Slot))
        return tuple(dict.fromkeys(name for name in names if name not in OWN_SLOTS))

    def has(self, name: str) -> bool:
        """Say whether the slot `name` stands in the context."""
        return Slot(name) in self.context


@lru_cache(maxsize=256)
def parse(text: str) -> Markup:
    """Read a template. Raises `InputError` that says what is wrong with it."""
    segments = _segments(text)
    targets = [i for i, segment in enumerate(segments) if segment == Slot("target")]
    if len(targets) != 1 or targets[0] != len(segments) - 1:
        raise InputError(
            f"The template {text!r} must hold {{target}} once, as its very end: the target and "
            "the end-of-sequence token are what is trained on, so nothing can follow them."
        )
    for name in ("source", "exemplars", "instruction", "begin"):
        if segments.count(Slot(name)) > 1:
            raise InputError(f"The template {text!r} holds {{{name}}} more than once.")
    context = segments[:-1]
    lead = ""
    if context and isinstance(context[-1], Literal):
        last = context[-1].text
        lead = last[len(last.rstrip()) :]
        context[-1:] = [Literal(last.rstrip())] if last.rstrip() else []
    return Markup(tuple(context), lead)


def _segments(text: str) -> list[Segment]:
    segments: list[Segment] = []
    pseudo = 0
    try:
        fields = list(Formatter().parse(text))
    except ValueError as error:
        raise InputError(
            f"The template {text!r} cannot be read ({error}). Write {{{{ and }}}} for braces that "
            "are meant as text."
        ) from error
    for literal, name, spec, conversion in fields:
        if literal:
            segments.append(Literal(literal))
        if name is None:
            continue
        if name == "p" and spec:
            count = _length(text, spec)
            segments.append(Pseudo(pseudo, count))
            pseudo += count
        elif not name or spec or conversion:
            raise InputError(
                f"The template {text!r} holds a slot that is neither a column such as {{source}} "
                "nor pseudo tokens such as {p:5}."
            )
        else:
            segments.append(Slot(name))
    return _joined(segments)


def _length(text: str, spec: str) -> int:
    if not spec.isdecimal() or len(spec) > _DIGITS or int(spec) < 1:
        raise InputError(
            f"The template {text!r:.200} asks for {spec!r:.40} pseudo tokens; a whole number from "
            f"1 to {10**_DIGITS - 1:,} was expected, as in {{p:5}}."
        )
    return int(spec)


def _joined(segments: list[Segment]) -> list[Segment]:
    """Join neighbouring literals, which `Formatter` splits at doubled braces."""
    joined: list[Segment] = []
    for segment in segments:
        if joined and isinstance(segment, Literal) and isinstance(joined[-1], Literal):
            joined[-1] = Literal(joined[-1].text + segment.text)
        else:
            joined.append(segment)
    return joined


def escape(text: str) -> str:
    """Return `text` so that it stands for itself inside a template."""
    return text.replace("{", "{{").replace("}", "}}")
