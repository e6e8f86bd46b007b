"""An adaptation made ready for decoding: what its rows start with is computed once."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from peftlab.edits import Edits, KeysValues
from peftlab.frozen.model import FrozenLM
from peftlab.tasks import Encoded

# A common start of ordinary text is worth keys and values of its own from this many tokens on.
_WORTH_KEEPING = 16
_PAIR = ("keys", "values")


@dataclass(frozen=True)
class Owner:
    """Edits whose rows start without their first `lead` tokens.

    Attributes:
        edits: with everything that comes before a row among the plain keys and values.
        lead: the tokens that rows of this owner no longer have.
        prefix: by block, what is written into a row's slot of the cache before it begins; where
            edits begin at the cue, keys of position 0, written there.
        lowest_block: below it the rows, and what comes before them, are the frozen model's.
        kind: the same for owners that edit the same places; their rows are cheaper side by side.
    """

    edits: Edits
    lead: tuple[int, ...]
    prefix: dict[int, KeysValues]
    lowest_block: int
    kind: int

    @property
    def prefix_length(self) -> int:
        """Positions of a slot that the prefix takes."""
        return self.edits.prefix_length


def bare(model: FrozenLM) -> Owner:
    """The frozen model, of rows in which an adaptation's edits begin nowhere."""
    edits = Edits()
    return Owner(edits, (), {}, edits.lowest_block(model.shape), _kind(edits))


@torch.no_grad()
def prepare(model: FrozenLM, edits: Edits, prompts: Sequence[Sequence[int]]) -> Owner:
    """Run what all prompts have in common at their start through the model once.

    Exact: keys and values of a token do not depend on what follows it. What comes before the cue
    is no owner's: where edits begin there, sessions read it.
    """
    lead = tuple(common_lead(prompts)) if edits.begin == "row" else ()
    ready = model.with_lead(edits, lead)
    dtype = model.model.dtype  # of the cache: a trained prefix is in float32 on any base
    prefix = {}
    for block, several in ready.attention.items():
        if plain := [kv for kv in several if kv.gate is None]:
            keys, values = (torch.cat([getattr(kv, x) for kv in plain], -2) for x in _PAIR)
            prefix[block] = KeysValues(keys.to(dtype), values.to(dtype))
    return Owner(ready, lead, prefix, edits.lowest_block(model.shape), _kind(ready))


def prepare_each(model: FrozenLM, edits: Edits, prompts: Sequence[Encoded]) -> list[Owner]:
    """One owner, of a mixture one an expert, see `prepare`."""
    return [
        prepare(model, own, [prompt.rows[number].ids for prompt in prompts])
        for number, own in enumerate(edits.each)
    ]


def _kind(edits: Edits) -> int:
    gated = [block for block, several in edits.attention.items() if several[-1].gate is not None]
    places = [*edits.linear, *map(str, edits.sublayer), *edits.weights, *map(str, gated)]
    return zlib.crc32(" ".join(sorted(places)).encode())


def common_lead(prompts: Sequence[Sequence[int]]) -> Sequence[int]:
    """The pseudo tokens at the start, or all that the prompts share where that is long."""
    first = prompts[0]
    limit = min(len(prompt) for prompt in prompts) - 1
    shared = next((i for i in range(limit) if any(p[i] != first[i] for p in prompts)), limit)
    pseudo = next((i for i in range(limit) if first[i] >= 0), limit)
    worth = len(prompts) > 1 and shared >= _WORTH_KEEPING
    return first[: shared if worth else min(pseudo, shared)]
