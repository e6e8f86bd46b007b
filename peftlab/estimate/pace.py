"""What a row costs that is read, and one that is answered: measured on a few rows."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import TYPE_CHECKING

import torch

from peftlab.edits import Edits
from peftlab.frozen.mixing import mixed_each
from peftlab.generation import Session, prepare_each, rows_of
from peftlab.generation.choose import greedy
from peftlab.loss import row_losses
from peftlab.tasks.example import start_of

if TYPE_CHECKING:
    from peftlab.frozen.model import FrozenLM
    from peftlab.tasks import Encoded, Example, Template
    from peftlab.trunk import TrunkStore

READ = 2048  # tokens: a whole pack of evaluation
_PROMPT, _DECODED = 48, 3  # tokens of a prompt, and those made after it


@dataclass(frozen=True)
class Pace:
    """Seconds of evaluation with one method's adaptation.

    read: of a token whose loss is taken. step: in which every row of a full batch decodes a token.
    """

    read: float
    step: float


@torch.no_grad()
def reading(
    model: FrozenLM, edits: Edits, rows: list[Encoded], store: TrunkStore | None = None
) -> float:
    """Seconds a token of a pack of the longest rows, whose memory is the most of any.

    store: of sources; that they are read once is nothing that comes again.
    """
    chosen = list(_whole_pack(sorted(rows, key=lambda row: -len(row.ids))))
    if store is not None:
        row_losses(model, edits, chosen, store=store)
    begun = time.perf_counter()
    row_losses(model, edits, chosen, store=store)
    return (time.perf_counter() - begun) / sum(len(row.ids) for row in chosen)


def _whole_pack(rows: list[Encoded]) -> Iterator[Encoded]:
    taken = 0
    for row in rows:
        if taken and taken + len(row.ids) > READ:
            return
        taken += len(row.ids)
        yield row


@torch.no_grad()
def decoding(
    model: FrozenLM, edits: Edits, template: Template, examples: Sequence[Example], rows: int
) -> float:
    """Seconds in which so many rows decode a token each.

    Their prompts are short: what a longer past adds to a step is little beside the weights.
    """
    few = islice(cycle(examples), rows)
    most = model.shape.context - edits.prefix_length - _DECODED
    prompts = [start_of(template.encode(model.tokenizer, one, None, most), _PROMPT) for one in few]
    owners = prepare_each(model, edits, prompts)
    replies = [rows_of(model, owners, prompt) for prompt in prompts]
    states = [state for reply in replies for state in reply]
    longest = max(state.length for state in states)
    session = Session(model, len(states), longest + _DECODED)
    logits = session.join(states)
    begun = time.perf_counter()
    for _ in range(_DECODED):
        chosen = greedy(mixed_each(logits, [edits.shares] * len(replies)))
        for reply, token in zip(replies, chosen, strict=True):
            reply[0].tokens.append(token)
        logits = session.step(states)
    return (time.perf_counter() - begun) / _DECODED
