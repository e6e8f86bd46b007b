"""Editing an instruction phrase by phrase, without gradients; what comes out can be read.

After GrIPS (Prasad et al. 2022, arXiv:2203.07281, section 3): delete, swap, substitute and add.
There phrases come from a parser and substitutes from a paraphrasing model; here a phrase is a run
of up to three words, and substitutes are recombined from the examples and common words of requests.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from peftlab.lazy import torch
from peftlab.methods.base import Examples
from peftlab.methods.search.prompt import asked

_LONGEST_PHRASE = 3
_REQUESTS = (
    "Write", "Answer", "Describe", "Summarise", "Read", "Use", "Given", "the text", "the facts",
    "the following", "below", "above", "in one line", "in one sentence", "short", "only", "exactly",
    "first", "then", "as", "into", "with", "without", "and", "for", "to", "the", "a", ":", "->",
)  # fmt: skip


def phrases(
    examples: Examples, text: str, removed: Sequence[str], width: int, longest: int
) -> tuple[str, float, list[str], dict[str, int]]:
    """The best of `width` edited instructions, or the instruction itself.

    Args:
        removed: phrases that earlier steps have taken out; they can come back.
        longest: tokens that an instruction may have.

    Returns:
        the instruction, its loss, what is removed by now, and numbers for the trace.
    """
    editor = _Editor(examples, removed)
    edited = dict(editor.edit(text) for _ in range(width))
    count = examples.model.tokenizer.encode
    short = [each for each in edited if each and len(count(each)) <= longest and each != text]
    tried = [text, *short]
    losses = examples.losses([asked(examples, each) for each in tried])
    best = min(range(len(tried)), key=losses.__getitem__)
    chosen = tried[best]
    gone = edited[chosen] if best else ""
    kept = [*removed, gone] if gone and gone not in removed else list(removed)
    return chosen, losses[best], kept, {"candidates": width, "survived": len(short)}


class _Editor:
    """Draws edits of an instruction; a word keeps the white space before it."""

    def __init__(self, examples: Examples, removed: Sequence[str]) -> None:
        self._rng = examples.rng
        tokenizer = examples.model.tokenizer
        rows = examples.encode(examples.template)
        words = [_words(tokenizer.decode(row.ids[:-1])) for row in rows]
        self._bank = [self._span(each) for each in words if each]
        self._common, self._removed = [[f" {p}"] for p in _REQUESTS], [[p] for p in removed]

    def edit(self, text: str) -> tuple[str, str]:
        """An edited text, and what it has lost by deletion."""
        words = _words(text)
        change = (self._deleted, self._swapped, self._substituted, self._added)[self._draw(4)]
        changed, lost = change(words)
        return "".join(changed).strip(), "".join(lost)

    def _deleted(self, words: list[str]) -> tuple[list[str], list[str]]:
        start, stop = self._place(words)
        return words[:start] + words[stop:], words[start:stop]

    def _swapped(self, words: list[str]) -> tuple[list[str], list[str]]:
        (a, b), (c, d) = sorted((self._place(words), self._place(words)))
        if b > c:
            return words, []
        return words[:a] + words[c:d] + words[b:c] + words[a:b] + words[d:], []

    def _substituted(self, words: list[str]) -> tuple[list[str], list[str]]:
        start, stop = self._place(words)
        return words[:start] + self._phrase() + words[stop:], []

    def _added(self, words: list[str]) -> tuple[list[str], list[str]]:
        at = self._draw(len(words) + 1)
        return words[:at] + self._phrase() + words[at:], []

    def _phrase(self) -> list[str]:
        banks = [bank for bank in (self._bank, self._common, self._removed) if bank]
        bank = banks[self._draw(len(banks))]
        return bank[self._draw(len(bank))]

    def _span(self, words: list[str]) -> list[str]:
        start, stop = self._place(words)
        return words[start:stop]

    def _place(self, words: list[str]) -> tuple[int, int]:
        start = self._draw(len(words))
        return start, min(len(words), start + 1 + self._draw(_LONGEST_PHRASE))

    def _draw(self, count: int) -> int:
        return int(torch.randint(count, (1,), generator=self._rng))


def _words(text: str) -> list[str]:
    return re.findall(r"\s*\S+", f" {text}")
