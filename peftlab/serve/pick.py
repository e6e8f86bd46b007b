"""The next token of every row, each under its own decoding; rows without finite scores are told."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache

import torch

from peftlab import structured
from peftlab.generation.choose import Chooser, Written
from peftlab.serve.request import Token
from peftlab.serve.running import Running
from peftlab.tasks import Decoding


def pick(logits: torch.Tensor, rows: Sequence[Running]) -> list[Token | None]:
    """A token a row from logits [R, V]; None where they are not numbers."""
    chosen: list[Token | None] = [None] * len(rows)
    written = [row.written for row in rows]
    structured.restrict(logits, written)
    groups: dict[Decoding, list[int]] = defaultdict(list)
    for i, row in enumerate(rows):
        groups[row.request.decoding].append(i)
    for members in groups.values():
        own = logits if len(members) == len(rows) else logits[members]
        found = _group(own, [rows[i] for i in members], [written[i] for i in members])
        for i, token in zip(members, found, strict=True):
            chosen[i] = token
    return chosen


def _group(
    logits: torch.Tensor, rows: Sequence[Running], written: Sequence[Written]
) -> list[Token | None]:
    chooser = _chooser(rows[0].request.decoding)
    told = any(row.request.logprobs is not None for row in rows)
    free = [one._replace(guide=None) for one in written]  # structures are followed already
    allowed = chooser.restrict(logits.clone() if told else logits, free)
    possible = allowed.amax(-1, keepdim=True).isfinite()
    if not possible.all():  # drawing from what is no distribution would fail for all
        allowed = torch.where(possible, allowed, 0.0)
    tokens = chooser.next(allowed, [r.generator for r in rows])
    places = torch.tensor(tokens, device=logits.device)[:, None]
    good = (logits.gather(1, places).isfinite() & possible).flatten().tolist()
    return [
        (_told(logits[i], token, row.request.logprobs) if fine else None)
        for i, (token, row, fine) in enumerate(zip(tokens, rows, good, strict=True))
    ]


def _told(logits: torch.Tensor, token: int, wanted: int | None) -> Token:
    """The token with its log-probability under the model itself, before any warping; under a
    structure, among what that allows.
    """
    if wanted is None:
        return Token(token)
    scores = logits.float().log_softmax(-1)
    best = scores.topk(wanted)
    pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    possible = tuple(pair for pair in pairs if pair[1] > float("-inf"))
    return Token(token, float(scores[token]), possible)


@lru_cache(maxsize=256)
def _chooser(decoding: Decoding) -> Chooser:
    return Chooser(decoding)
