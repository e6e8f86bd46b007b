"""How long one waits: for the first token, and from one token to the next.

Rows of real test prompts decode greedily for a fixed number of tokens, one row at a time and
sixteen together. An adaptation that changes linear maps only is also timed merged: with the
changed matrices in place of the base's.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import cycle, islice
from statistics import median
from typing import TYPE_CHECKING

import torch

from peftlab.bases.number_formats import QUANTISED
from peftlab.edits import Edits
from peftlab.frozen.mixing import mixed_each
from peftlab.frozen.weight_changes import changed_weights, changes_weights_alone
from peftlab.generation import Owner, Session, prepare_each, rows_of
from peftlab.generation.choose import greedy
from peftlab.guests import is_guest
from peftlab.records.record import Delay, Delays, Latency
from peftlab.tasks.example import Encoded, start_of
from peftlab.token_limits import max_row_tokens

if TYPE_CHECKING:
    from peftlab.comparison.plan import Run
    from peftlab.frozen.model import FrozenLM
    from peftlab.methods.adaptation import Adaptation
    from peftlab.tasks import Task

_BATCH = 16
_REPEATS = {1: 3, _BATCH: 2}  # by rows; a batch's steps vary less, and take longer
_LONG = 4.0  # seconds after which nothing is repeated: it varies little
_WARM_UP = 16  # tokens of a prompt that are read before anything is timed


def latency(
    model: FrozenLM, adaptation: Adaptation, task: Task, tokens: int, max_length: int | None = None
) -> Latency:
    """Time the adaptation on prompts of the test split.

    Args:
        tokens: how many each row produces; fewer where the context is too short.
    """
    edits = adaptation.edits(model)
    prompts = _prompts(model, adaptation, edits, task, _BATCH, max_length)
    tokens = min(tokens, task.max_new_tokens)
    plain = _delays(model, edits, prompts, tokens)
    whole = merged(model, edits)
    return Latency(
        **plain.model_dump(),
        merged=_delays(model, whole, prompts, tokens) if whole is not None else None,
    )


def of_one_row(
    model: FrozenLM, adaptation: Adaptation, task: Task, tokens: int, max_length: int | None = None
) -> Delay:
    """The same of a single row, the adaptation beside the base."""
    edits = adaptation.edits(model)
    prompts = _prompts(model, adaptation, edits, task, 1, max_length)
    return _delay(model, edits, prompts, min(tokens, task.max_new_tokens))


def _prompts(
    model: FrozenLM,
    adaptation: Adaptation,
    edits: Edits,
    task: Task,
    count: int,
    max_length: int | None,
) -> list[Encoded]:
    """So many of the test split, again from its first where it has fewer."""
    template = edits.template or adaptation.template
    limit = max_row_tokens(model.shape.context, max_length, edits.prefix_length)
    return [
        template.encode(model.tokenizer, example, None, limit - task.max_new_tokens)
        for example in islice(cycle(task.test), count)
    ]


def expected(run: Run, prompt: float, step: float) -> float:
    """Seconds that a run's latency will take to measure.

    Args:
        prompt: seconds in which one is read. step: in which a batch decodes a token each.
    """
    tokens = min(run.evaluation.latency_tokens, run.task.max_new_tokens)
    if not tokens:
        return 0.0
    linear = is_guest(run.method) or tuple(run.method.sites) == ("linear",)
    found = 0.0
    for rows, repeats in _REPEATS.items():
        once = rows * prompt + tokens * step
        found += once * min(repeats, 1 + int(_LONG / once))
    return found * (2 if linear and run.base.dtype not in QUANTISED else 1)


def merged(model: FrozenLM, edits: Edits) -> Edits | None:
    """The same edits as replaced weights; None where no linear map of whole rows alone changes.

    None on a quantised base too: merged, its weights would no longer be quantised.
    """
    if model.base_dtype in QUANTISED:
        return None
    if edits.begin == "cue":
        return None  # the weights would change what comes before it too
    if not edits.linear or not changes_weights_alone(edits):
        return None
    weights = changed_weights(model, edits)
    if not weights.keys() <= model.shape.parameters.keys():
        return None  # a bias that the base has no place for
    return replace(edits, linear={}, weights=weights)


def _delays(model: FrozenLM, edits: Edits, prompts: list[Encoded], tokens: int) -> Delays:
    one = _delay(model, edits, prompts[:1], tokens)
    many = _delay(model, edits, prompts, tokens)
    return Delays(first_token=one.first_token, token=one.token, batch_16=many)


def _delay(model: FrozenLM, edits: Edits, prompts: list[Encoded], tokens: int) -> Delay:
    """Medians over repeats, after a single token of a short row that warms up."""
    owners = prepare_each(model, edits, prompts)
    longest_lead = max(len(owner.lead) for owner in owners)
    warming = [start_of(prompts[0], longest_lead + _WARM_UP)]
    _times(model, edits.shares, owners, warming, 1)
    timed = partial(_times, model, edits.shares, owners, prompts, tokens)
    begun, measured = time.perf_counter(), [timed()]
    while len(measured) < _REPEATS[len(prompts)] and time.perf_counter() - begun < _LONG:
        measured.append(timed())
    return Delay(
        first_token=median(times[1] - times[0] for times in measured),
        token=median((times[-1] - times[1]) / max(1, len(times) - 2) for times in measured),
    )


@torch.no_grad()
def _times(
    model: FrozenLM,
    shares: tuple[float, ...],
    owners: Sequence[Owner],
    prompts: list[Encoded],
    tokens: int,
) -> list[float]:
    """When the replies began, and when they had each of their tokens."""
    replies = [rows_of(model, owners, prompt) for prompt in prompts]
    rows = [row for reply in replies for row in reply]
    session = Session(model, len(rows), max(row.length for row in rows) + tokens)
    times = [_now(model)]
    logits = session.join(rows)
    for _ in range(tokens):
        chosen = greedy(mixed_each(logits, [shares] * len(replies)))
        for reply, token in zip(replies, chosen, strict=True):
            reply[0].tokens.append(token)
        times.append(_now(model))
        logits = session.step(rows)
    return times


def _now(model: FrozenLM) -> float:
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
    return time.perf_counter()
