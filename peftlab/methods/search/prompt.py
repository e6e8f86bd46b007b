"""Prompts of token ids that are text: what their text is tokenised to, in its row, is those ids.

A prompt that is found as ids and used as text must survive re-tokenisation beside what stands
round it (Zou et al. 2023, arXiv:2307.15043, in nanoGCG `filter_ids`): "ing" + "s" would come back
as "ings". Prompts that do not survive are no candidates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from peftlab.edits import Edits
from peftlab.errors import InputError
from peftlab.lazy import torch
from peftlab.methods.base import Candidate, Examples
from peftlab.tasks import markup

if TYPE_CHECKING:
    from peftlab.frozen.model import FrozenLM
    from peftlab.tasks import Encoded, Template

Ids = tuple[int, ...]
Encode = Callable[["Template", int | None], list["Encoded"]]


@dataclass(frozen=True)
class Prompt:
    """Token ids, and the text that gives them."""

    ids: Ids
    text: str


class Frame:
    """The rows of some examples with a prompt in the place of the instruction.

    Rows in which a neighbour merges with the prompt are left out: they have no slots of its own.

    Args:
        encode: the rows of the examples in a template, all or the first so many.
        template: the task's.

    Raises:
        InputError: that is so in all rows.
    """

    def __init__(self, encode: Encode, template: Template, tokenizer: Any, prompt: Prompt) -> None:
        self._encode, self._template, self._tokenizer = encode, template, tokenizer
        self._ids = prompt.ids
        rows = encode(template.with_instruction(prompt.text), None)
        marked = encode(_marked(template, prompt.text), None)
        places = [_place(*pair, prompt.ids) for pair in zip(rows, marked, strict=True)]
        self._placed = [(row, at) for row, at in zip(rows, places, strict=True) if at is not None]
        if not self._placed:
            raise InputError(
                f"the prompt {prompt.text!r} merges with what stands beside it; put line "
                "breaks round {instruction} in the template"
            )
        self._first = next(i for i, at in enumerate(places) if at is not None)

    def survivor(self, ids: Ids) -> Prompt | None:
        """The prompt of these ids, as many as before, or None where its text gives others."""
        text = _text_of(ids, self._tokenizer)
        row = self._encode(self._template.with_instruction(text), self._first + 1)[-1]
        return Prompt(ids, text) if row.ids == self._exchanged(*self._placed[0], ids) else None

    def with_pseudo_tokens(self) -> list[Encoded]:
        """The rows, with pseudo token j where the prompt has its token j."""
        pseudo = tuple(-(j + 1) for j in range(len(self._ids)))
        return [replace(row, ids=self._exchanged(row, at, pseudo)) for row, at in self._placed]

    def _exchanged(self, row: Encoded, at: int, ids: Ids) -> Ids:
        return (*row.ids[:at], *ids, *row.ids[at + len(self._ids) :])


def settled(encode: Encode, template: Template, tokenizer: Any, ids: Ids) -> Prompt | None:
    """The prompt of these ids if its text gives them in the first row, else None."""
    text = _text_of(ids, tokenizer)
    (row,) = encode(template.with_instruction(text), 1)
    (marked,) = encode(_marked(template, text), 1)
    return None if not ids or _place(row, marked, ids) is None else Prompt(ids, text)


def asked(examples: Examples, text: str) -> Candidate:
    """The examples with this instruction: an owner that edits text alone."""
    return Candidate(Edits(), examples.encode(examples.template.with_instruction(text)))


def token_gradient(examples: Examples, frame: Frame, ids: Ids) -> torch.Tensor:
    """The gradient by the embeddings of `ids`, put in the prompt's place [L, D]."""
    vectors = examples.model.embed(torch.tensor(ids))
    return examples.gradient(Candidate(Edits(embeddings=vectors), frame.with_pseudo_tokens()))


def embedding_table(model: FrozenLM) -> torch.Tensor:
    """[V, D], as stored."""
    table: torch.Tensor = model.model.get_input_embeddings().weight.detach()
    return table


@lru_cache(maxsize=8)
def not_text(tokenizer: Any, vocabulary: int) -> tuple[int, ...]:
    """The ids that no prompt has: special tokens, parts of characters, rows without a token."""
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    have = min(len(tokenizer), vocabulary)
    texts = tokenizer.batch_decode([[i] for i in range(have)], clean_up_tokenization_spaces=False)
    broken = {i for i, text in enumerate(texts) if "\ufffd" in text}
    return tuple(sorted({i for i in special if i < have} | broken | {*range(have, vocabulary)}))


def _text_of(ids: Ids, tokenizer: Any) -> str:
    text: str = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    return text


def _marked(template: Template, text: str) -> Template:
    """The template with this instruction, and a pseudo token right behind it."""
    empty = template.with_instruction("")
    before, _, after = empty.text.partition("{instruction}")
    gap = "" if after[:1].isspace() else "\n"  # as an instruction is followed in a template
    return replace(empty, text=f"{before}{markup.escape(text)}{{p:1}}{gap}{after}")


def _place(row: Encoded, marked: Encoded, ids: Ids) -> int | None:
    """Where `ids` begin in a row, told by the mark behind them, or None.

    A row that is cut has its mark further left: the mark takes a token's room.
    """
    first = next(at for at, token in enumerate(marked.ids) if token < 0) - len(ids)
    last = first + marked.dropped - row.dropped
    places = range(max(first, 0), last + 1)
    return next((at for at in places if row.ids[at : at + len(ids)] == ids), None)
