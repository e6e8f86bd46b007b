"""Choosing the next token: greedy, or sampling with transformers' own warpers.

A row's draws come from a generator of its own, so they do not depend on who else is in the batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import (
    LogitsProcessorList,
    NoRepeatNGramLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from peftlab.tasks import Decoding
from peftlab.tasks.tokens import Tokenizer, pieces

_BREAKS = ("\n", "\n\n")
_BLOCK = 256


def banned_tokens(decoding: Decoding, tokenizer: Tokenizer) -> list[int]:
    """What a decoding setting forbids altogether: where asked, line breaks that are one token."""
    if not decoding.no_newlines:
        return []
    encoded = (pieces(tokenizer, text, plain=True, begun=True)[0] for text in _BREAKS)
    return [ids[0] for ids in encoded if len(ids) == 1]


def greedy(logits: torch.Tensor) -> list[int]:
    """The place of each row's largest score in [R, V].

    A CPU looks for a maximum's place number by number, but for a maximum alone by vectors: the best
    block of each row is found first, and the place in that block alone. That takes half of the
    time of `max(-1)`, a sixth of that of `argmax`.
    """
    size = logits.shape[-1]
    if logits.device.type != "cpu" or size < 2 * _BLOCK:
        return logits.argmax(-1).tolist()  # type: ignore[no-any-return]
    whole = size // _BLOCK * _BLOCK
    blocks = [logits[:, :whole].unflatten(-1, (-1, _BLOCK)).amax(-1)]
    if whole < size:
        blocks.append(logits[:, whole:].amax(-1, keepdim=True))
    best = torch.cat(blocks, -1).argmax(-1, keepdim=True)
    places = (best * _BLOCK + torch.arange(_BLOCK)).clamp(max=size - 1)
    within = logits.gather(-1, places).argmax(-1, keepdim=True)
    chosen: list[int] = places.gather(-1, within).flatten().tolist()
    return chosen


class Chooser:
    """Turns logits into next tokens under one decoding setting.

    banned: tokens that never come, see `banned_tokens`.
    """

    def __init__(self, decoding: Decoding, banned: Sequence[int] = ()) -> None:
        self.decoding, self.banned = decoding, list(banned)
        self._warpers = LogitsProcessorList()
        if decoding.sample:
            if decoding.temperature != 1.0:
                self._warpers.append(TemperatureLogitsWarper(decoding.temperature))
            if decoding.top_k:
                self._warpers.append(TopKLogitsWarper(decoding.top_k))
            if decoding.top_p < 1.0:
                self._warpers.append(TopPLogitsWarper(decoding.top_p))
        size = decoding.no_repeat_ngram
        self._no_repeat = NoRepeatNGramLogitsProcessor(size) if size else None

    def restrict(
        self,
        logits: torch.Tensor,
        tokens: Sequence[Sequence[int]],
        ends: Sequence[Sequence[int]],
        least: Sequence[int],
    ) -> torch.Tensor:
        """Forbid repeated n-grams, ends that come too early, and banned tokens.

        Args:
            logits: [R, V], changed in place. tokens: what each row has produced.
            ends: each row's end tokens. least: how many tokens each row must produce before one.
        """
        early = [i for i, made in enumerate(tokens) if len(made) < least[i]]
        if self.banned:
            logits[:, self.banned] = float("-inf")
        for i in early:
            logits[i, list(ends[i])] = float("-inf")
        if self._no_repeat is not None:
            for i, made in enumerate(tokens):
                if made:
                    ids = torch.tensor([made], device=logits.device)
                    logits[i : i + 1] = self._no_repeat(ids, logits[i : i + 1])
        return logits

    def next(self, logits: torch.Tensor, generators: Sequence[torch.Generator]) -> list[int]:
        """One token a row from [R, V]."""
        if not self.decoding.sample:
            return greedy(logits)
        scores = self._warpers(torch.empty(len(logits), 0, dtype=torch.long), logits.float())
        chances = scores.softmax(-1).cpu()
        return [
            int(torch.multinomial(row, 1, generator=own))
            for row, own in zip(chances, generators, strict=True)
        ]
