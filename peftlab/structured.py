"""Replies that follow a structure: a JSON Schema, a regular expression, a choice or a grammar.

Which tokens may come next is llguidance's to say (https://github.com/guidance-ai/llguidance), from
the bytes that a tokenizer's tokens stand for; here a structure is compiled once a tokenizer, and a
`Guide` follows what a row has written.
"""

from __future__ import annotations

import json
import threading
import warnings
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol
from weakref import WeakKeyDictionary, ref

from peftlab.errors import InputError
from peftlab.lazy import torch

Tokenizer = Any
"""A fast tokenizer of transformers."""
Kind = Literal["json", "regex", "choice", "grammar", "enclosed", "tagged"]
_MOST_CHARACTERS = 1 << 17
_MOST_OF_A_GRAMMAR = 1 << 14  # GBNF is rewritten in Python, in time that grows by the square
_MOST_COMPILED = 128
# What nicely printed JSON needs: a model that may write blanks for ever sometimes does.
_WHITE_SPACE = r"\x20|\n[\x20\t]{0,16}"
_LED = r"""start: LEAD? @body
LEAD: /[ \n]{1,2}/
"""
_NOTHING_MORE = "NoExtension"  # the beginning of what is said where no token fits
_SAID = 300  # characters of what is wrong with a structure


@dataclass(frozen=True)
class Structure:
    """What a reply has to be.

    Attributes:
        text: of json, a JSON Schema; of choice, a JSON list of texts; of regex, an expression of
            Rust's regex crate, which the whole reply matches; of grammar, one in Lark or GBNF; of
            enclosed, a JSON list of a text, a JSON Schema and another text; of tagged the same,
            with free text wherever the first of them does not stand.
    """

    kind: Kind
    text: str

    def __post_init__(self) -> None:
        most = _MOST_OF_A_GRAMMAR if self.kind == "grammar" else _MOST_CHARACTERS
        if len(self.text) > most:
            raise InputError(
                f"the {self.kind} has {len(self.text):,} characters; at most {most:,} were expected"
            )
        try:
            self.text.encode()
        except UnicodeEncodeError as error:
            raise InputError(
                f"the {self.kind} holds half of a character at position {error.start:,} (a lone "
                "surrogate); Unicode text was expected"
            ) from error

    @classmethod
    def of_schema(cls, schema: Mapping[str, Any] | bool | str) -> Structure:
        """Of a JSON Schema, as a value or as text. Raises `InputError` for what is none."""
        if isinstance(schema, str):
            try:
                schema = json.loads(schema)
            except (ValueError, RecursionError) as error:
                raise InputError(f"the JSON Schema is no JSON: {error}") from error
        if not isinstance(schema, Mapping | bool):
            raise InputError(f"the JSON Schema is {schema!r:.60}; an object was expected")
        try:
            return cls("json", json.dumps(schema, sort_keys=False))
        except (ValueError, RecursionError) as error:
            raise InputError(f"the JSON Schema cannot be written: {error}") from error

    @classmethod
    def of_choices(cls, texts: Sequence[str]) -> Structure:
        """One of several texts."""
        if not texts or not all(isinstance(one, str) and one for one in texts):
            raise InputError(f"choice is {texts!r:.60}; texts were expected, none of them empty")
        return cls("choice", json.dumps(list(texts)))

    @classmethod
    def of_enclosed(cls, before: str, schema: Mapping[str, Any], after: str) -> Structure:
        """JSON of a schema between two texts."""
        return cls("enclosed", json.dumps([before, json.loads(cls.of_schema(schema).text), after]))

    @classmethod
    def of_tagged(cls, before: str, schema: Mapping[str, Any], after: str) -> Structure:
        """Any text, in which JSON of a schema and another text follow wherever `before` stands.

        Where `before` is nothing but white space, text that begins as an object is such JSON.
        """
        return cls("tagged", cls.of_enclosed(before, schema, after).text)

    def _body(self) -> dict[str, Any]:
        """In llguidance's words."""
        if self.kind == "json":
            return {"json_schema": _guided(json.loads(self.text))}
        if self.kind == "enclosed":
            before, schema, after = json.loads(self.text)
            texts = [json.dumps(one) if one else "" for one in (before, after)]
            inner = json.dumps(_guided(schema))
            return {"lark_grammar": f"start: {texts[0]} object {texts[1]}\nobject: %json {inner}\n"}
        if self.kind == "tagged":
            return {"lark_grammar": _tagged(*json.loads(self.text))}
        if self.kind == "choice":
            options = " | ".join(json.dumps(one) for one in json.loads(self.text))
            return {"lark_grammar": f"start: {options}"}
        if self.kind == "regex":
            from llguidance import regex_to_lark

            return {"lark_grammar": f"start: /{regex_to_lark(self.text)}/"}
        from llguidance.gbnf_to_lark import gbnf_to_lark

        try:
            is_gbnf = "::=" in self.text
            return {"lark_grammar": gbnf_to_lark(self.text) if is_gbnf else self.text}
        except Exception as error:  # its parser's own, whatever that raises
            raise InputError(f"the grammar cannot be read: {error!s:.{_SAID}}") from error

    def grammars(self) -> tuple[str, str]:
        """What llguidance compiles: alone, and with the white space that targets may begin with,
        and that replies lose again.
        """
        body = {"name": "body", **self._body()}
        led = [{"name": "main", "lark_grammar": _LED}, body]
        return json.dumps({"grammars": [body]}), json.dumps({"grammars": led})


def _tagged(before: str, schema: Any, after: str) -> str:
    from llguidance import StructTag

    inner, mark = json.dumps(_guided(schema)), before.strip()
    if mark:
        tag = StructTag(trigger=mark, begin=before.lstrip(), grammar=inner, end=after)
        return str(StructTag.to_grammar([tag], assume_special=False))
    end = json.dumps(after) if after else ""
    return (
        f"start: call | TEXT\ncall: object {end}\nobject: %json {inner}\n"
        "TEXT: /[ \\n\\t\\r]*([^{ \\n\\t\\r](.|\\n)*)?/\n"
    )


def _guided(schema: Any) -> dict[str, Any]:
    """A schema that tells llguidance what white space there may be."""
    own = schema if isinstance(schema, dict) else {"allOf": [schema]}
    asked = own.get("x-guidance", {})
    if not isinstance(asked, dict):
        raise InputError(f"x-guidance is {asked!r:.60}; an object was expected")
    return {**own, "x-guidance": {"whitespace_pattern": _WHITE_SPACE, **asked}}


def schema_of(value: Any) -> str:
    """The text of a JSON Schema that a file holds, or that stands there itself.

    Raises:
        ValueError: what was expected.
    """
    if isinstance(value, Mapping):
        return Structure.of_schema(value).text
    if not isinstance(value, str):
        raise ValueError("a file that holds a JSON Schema, or its text,")
    if value.lstrip().startswith("{") or not value:
        return value and Structure.of_schema(value).text
    try:
        text = Path(value).expanduser().read_text(encoding="utf-8")
    except (OSError, ValueError, RuntimeError) as error:  # of a home that there is not, too
        raise ValueError(
            "a file that holds a JSON Schema, or its text,", f" It cannot be read: {error}"
        ) from error
    return Structure.of_schema(text).text


class DeadEnd(UserWarning):
    """A reply ends inside of its structure, since no token of the base's can go on there."""


class Guide:
    """What one row may write next, by what it has written.

    It follows rows wherever they go: what does not go on from what it saw last is read anew.
    """

    def __init__(self, matcher: Any, ends_of_text: Sequence[int], width: int) -> None:
        self._matcher, self._ends_of_text, self._width = matcher, list(ends_of_text), width
        self._made: list[int] = []

    def allowed(self, made: Sequence[int], ends: Sequence[int]) -> torch.Tensor:
        """Which tokens may follow, [V] of booleans; ends where the structure may be over.

        Raises:
            InputError: none may: the tokenizer has no token for what has to come, or the grammar
                is more than its limits hold.
        """
        self._follow(made)
        if self._matcher.is_stopped() or self._matcher.is_error():
            found = torch.zeros(self._width, dtype=torch.bool)
        else:
            import numpy as np

            bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
            whole = np.unpackbits(bits, bitorder="little", count=self._width)
            found = torch.from_numpy(whole.view(bool))
            found[self._ends_of_text] = False
        self._check()
        found[list(ends)] = self._matcher.is_accepting()
        if not (bool(found.any()) or self._matcher.is_accepting()):
            raise InputError(
                "what the structure asks for next cannot be written: nothing satisfies it, or this "
                "base's tokenizer has no token for it"
            )
        return found

    def accepts(self, ids: Sequence[int]) -> bool:
        """Whether a whole reply could be these tokens."""
        self._matcher.reset()
        taken = self._matcher.try_consume_tokens(list(ids))
        whole = taken == len(ids) and bool(self._matcher.is_accepting())
        self._matcher.reset()
        self._made = []
        return whole

    def is_complete(self, made: Sequence[int]) -> bool:
        """Whether the structure is over, and nothing could be added to it."""
        self._follow(made)
        return bool(self._matcher.is_stopped())

    def _follow(self, made: Sequence[int]) -> None:
        known = len(self._made)
        if list(made[:known]) != self._made:
            self._matcher.reset()
            self._made, known = [], 0
        if known < len(made):
            self._matcher.consume_tokens(list(made[known:]))
            self._made = list(made)
            self._check()

    def _check(self) -> None:
        if self._matcher.is_error() and not _said(self._matcher).startswith(_NOTHING_MORE):
            raise InputError(f"the structure cannot be followed: {_said(self._matcher)}")


class Grammars:
    """Structures compiled for one tokenizer, the most recent ones kept; for any thread.

    Args:
        width: V, of logits.

    Raises:
        InputError: llguidance is not installed, or the tokenizer is no fast one.
    """

    def __init__(self, tokenizer: Tokenizer, width: int) -> None:
        self._tokenizer = ref(tokenizer)  # which is the key that these are kept under
        self._width = width
        self._compiled: OrderedDict[Structure, Any] = OrderedDict()
        self._lock = threading.Lock()

    def guide(self, structure: Structure) -> Guide:
        """A guide for a row that has written nothing yet.

        Raises:
            InputError: what does not compile, or nothing satisfies.
        """
        with self._lock:
            known = self._compiled.get(structure)
            if known is not None:
                self._compiled.move_to_end(structure)
        if known is None:
            known = self._compile(structure)
            with self._lock:
                self._compiled[structure] = known
                while len(self._compiled) > _MOST_COMPILED:
                    self._compiled.popitem(last=False)
        return self._guide(known)

    @cached_property
    def _words(self) -> Any:
        try:
            from llguidance import hf
        except ImportError as error:
            raise InputError(
                f"structured replies need llguidance ({error}): pip install 'peftlab[structured]'"
            ) from error
        try:
            tokenizer = self._tokenizer()
            assert tokenizer is not None
            return hf.from_tokenizer(tokenizer, n_vocab=max(self._width, len(tokenizer)))
        except ValueError as error:
            raise InputError(f"llguidance cannot take this base's tokenizer: {error}") from error

    def _compile(self, structure: Structure) -> Any:
        words = self._words
        from llguidance import LLMatcher, LLParserLimits

        limits = LLParserLimits(verbose_errors=False)
        for grammar in structure.grammars():
            made = LLMatcher(words, grammar, log_level=0, limits=limits)
            if made.is_error():
                of_tools = structure.kind in ("enclosed", "tagged")
                what = "tools[].function.parameters" if of_tools else f"the {structure.kind}"
                raise InputError(f"{what} does not compile: {_said(made)}")
            self._guide(made).allowed((), ())  # unless nothing satisfies it, or exceeds its limits
        return made

    def _guide(self, compiled: Any) -> Guide:
        return Guide(compiled.deep_copy(), self._words.eos_tokens, self._width)


_GRAMMARS: WeakKeyDictionary[Any, Grammars] = WeakKeyDictionary()


def grammars_of(tokenizer: Tokenizer, width: int) -> Grammars:
    """The grammars of a tokenizer, made once."""
    known = _GRAMMARS.get(tokenizer)
    if known is None or known._width != width:
        known = _GRAMMARS[tokenizer] = Grammars(tokenizer, width)
    return known


class Guided(Protocol):
    """A row that may have a guide; `ends` are the tokens that end it."""

    @property
    def made(self) -> Sequence[int]: ...
    @property
    def ends(self) -> Sequence[int]: ...
    @property
    def guide(self) -> Guide | None: ...


def restrict(logits: torch.Tensor, rows: Sequence[Guided], *, lenient: bool = False) -> None:
    """Forbid what rows' guides do not allow, in place, in their logits [R, V].

    Args:
        lenient: a row that cannot go on ends, with the warning `DeadEnd`, so that no other is lost.

    Raises:
        InputError: see `Guide.allowed`.
    """
    for i, row in enumerate(rows):
        if row.guide is None:
            continue
        try:
            allowed = row.guide.allowed(row.made, row.ends)
        except InputError as error:
            if not lenient:
                raise
            warnings.warn(f"a reply ends inside of its structure: {error}", DeadEnd, stacklevel=2)
            allowed = torch.zeros(logits.shape[-1], dtype=torch.bool)
            allowed[list(row.ends)] = True
        logits[i].masked_fill_(~allowed.to(logits.device), float("-inf"))


def _said(matcher: Any) -> str:
    """What is wrong, on one line."""
    words = " ".join(str(matcher.get_error()).partition("<non-verbose/>")[0].split())
    return words if len(words) <= _SAID else words[: _SAID - 1] + "…"
