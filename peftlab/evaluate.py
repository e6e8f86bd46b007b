"""Evaluation: the loss of a split, and scores of what the adapted model really generates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from peftlab.errors import InputError
from peftlab.frozen.model import FrozenLM
from peftlab.generate import Reply, Request, generate
from peftlab.loss import row_losses
from peftlab.methods.adaptation import Adaptation
from peftlab.tasks import Decoding, Example, Task

if TYPE_CHECKING:
    from peftlab.metrics import Scores


@dataclass(frozen=True)
class SplitLoss:
    """The loss of a split: per target token, and each row's sum in nats and count of tokens."""

    loss: float
    sums: list[float]
    counts: list[int]
    truncated: int


@dataclass(frozen=True)
class Evaluation:
    """What an adaptation generates for a split, and how good it is.

    Attributes:
        context_tokens: mean positions before the target that are not the source's: instruction,
            exemplars, soft prompt, prefix, cue.
        truncated: prompts that lost source tokens.
    """

    split: str
    replies: list[Reply]
    scores: Scores
    context_tokens: float
    truncated: int


def split_loss(
    model: FrozenLM,
    adaptation: Adaptation,
    task: Task,
    split: str,
    *,
    limit: int | None = None,
    max_length: int | None = None,
) -> SplitLoss:
    """The loss over every (example, target) pair of a split, or the first `limit` of them.

    Raises:
        InputError: the split is empty.
    """
    edits = adaptation.edits(model)
    template = edits.template or adaptation.template
    room = min(max_length or model.shape.context, model.shape.context) - edits.prefix_length
    pairs = task.pairs(split)[:limit]
    if not pairs:
        raise InputError(f"the {split} split of {task.name} is empty: there is no loss to compute")
    tokenizer = model.tokenizer
    encoded = [template.encode(tokenizer, example, target, room) for example, target in pairs]
    sums, counts = row_losses(model, edits, encoded)
    return SplitLoss(sum(sums) / sum(counts), sums, counts, sum(e.dropped > 0 for e in encoded))


def evaluate(
    model: FrozenLM,
    adaptation: Adaptation,
    task: Task,
    split: str = "test",
    *,
    metrics: Sequence[str] | None = None,
    decoding: Decoding | None = None,
    limit: int | None = None,
    batch_size: int = 16,
    max_length: int | None = None,
    seed: int = 0,
    done: Callable[[int], None] | None = None,
) -> Evaluation:
    """Generate for every example of a split and score the texts against all its references.

    Args:
        metrics, decoding: the task's own where None.

    Raises:
        InputError: the split is empty, or a metric is unknown.
    """
    from peftlab.metrics import score

    examples = list(task.split(split)[:limit])
    if not examples:
        raise InputError(
            f"the {split} split of {task.name} is empty: there is nothing to generate for"
        )
    replies = generate(
        model,
        [Request(adaptation, example, task.max_new_tokens) for example in examples],
        decoding or task.decoding,
        batch_size=batch_size,
        seed=seed,
        max_length=max_length,
        done=done,
    )
    scores = score(
        metrics or task.metrics, [r.text for r in replies], [e.targets for e in examples]
    )
    return Evaluation(
        split,
        replies,
        scores,
        context_tokens=_context_tokens(model, adaptation, examples, replies),
        truncated=sum(reply.dropped > 0 for reply in replies),
    )


def _context_tokens(
    model: FrozenLM, adaptation: Adaptation, examples: Sequence[Example], replies: Sequence[Reply]
) -> float:
    tokenizer = model.tokenizer
    prefix = adaptation.edits(model).prefix_length
    sources = (len(tokenizer.encode(e.source, add_special_tokens=False)) for e in examples)
    pairs = zip(replies, sources, strict=True)
    return prefix + fmean(reply.prompt_tokens - (source - reply.dropped) for reply, source in pairs)
