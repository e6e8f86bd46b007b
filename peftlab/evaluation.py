"""Evaluation: the loss of a split, scores of what the adapted model really generates, and the loss
of text that belongs to no task.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import TYPE_CHECKING

from peftlab.edits import Edits
from peftlab.errors import InputError
from peftlab.frozen.model import FrozenLM
from peftlab.generation import Reply, Request, generate
from peftlab.loss import mean_loss, row_losses
from peftlab.methods.adaptation import Adaptation
from peftlab.tasks import Decoding, Example, Task, Template
from peftlab.tasks.fit import fitted, shortened
from peftlab.tasks.framing import as_trained
from peftlab.tasks.plain import text_rows
from peftlab.token_limits import max_row_tokens

if TYPE_CHECKING:
    from peftlab.metrics import Scores

TEXT_WINDOW, TEXT_TOKENS = 256, 8192
"""Plain text is read in windows of at most so many tokens, and so many tokens of it in all."""


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
        subsets: the corpus numbers of the task's named parts of its test split.
        skipped: examples that were left out, since they are longer than fits.
        context_tokens: mean positions before the target that are not the source's: instruction,
            exemplars, soft prompt, prefix, cue.
        truncated: prompts that lost source tokens.
    """

    split: str
    replies: list[Reply]
    scores: Scores
    context_tokens: float
    truncated: int
    subsets: dict[str, dict[str, float]] = field(default_factory=dict)
    skipped: int = 0


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
    template, most = _template_and_limit(model, adaptation, edits, max_length)
    task = _taken(model, task, template, most, split)
    pairs = task.pairs(split)[:limit]
    if not pairs:
        raise InputError(f"the {split} split of {task.name} is empty: there is no loss to compute")
    tokenizer = model.tokenizer
    encoded = [template.encode(tokenizer, example, target, most) for example, target in pairs]
    sums, counts = row_losses(model, edits, encoded)
    return SplitLoss(sum(sums) / sum(counts), sums, counts, sum(e.dropped > 0 for e in encoded))


def taken(
    model: FrozenLM,
    adaptation: Adaptation,
    task: Task,
    split: str = "test",
    *,
    max_length: int | None = None,
) -> Task:
    """The task as the base and the adaptation take its split: see `tasks.fit`.

    Raises:
        InputError: rows are longer than fits, and the task refuses such; or they were asked to be
            framed otherwise than the adaptation's.
    """
    edits = adaptation.edits(model)
    return _taken(model, task, *_template_and_limit(model, adaptation, edits, max_length), split)


def _template_and_limit(
    model: FrozenLM, adaptation: Adaptation, edits: Edits, max_length: int | None
) -> tuple[Template, int]:
    most = max_row_tokens(model.shape.context, max_length, edits.prefix_length)
    return edits.template or adaptation.template, most


def _taken(model: FrozenLM, task: Task, template: Template, most: int, split: str) -> Task:
    own = fitted(as_trained(task, template), model.tokenizer, (split,))
    return shortened(own, template, model.tokenizer, most, (split,))


def text_loss(
    model: FrozenLM,
    adaptation: Adaptation | None,
    documents: Sequence[str],
    *,
    window: int | None = None,
    most: int = TEXT_TOKENS,
) -> float:
    """The loss in nats per token of plain text, with an adaptation on; None: of the bare base.

    The adaptation is on as in use: prefixes are attended to and a soft prompt's pseudo tokens stand
    before every window, wherever its template has them. Words of a template or of a hard prompt
    belong to the task and are left out. A window's first token is not predicted, so the same tokens
    count whatever stands before them.

    Args:
        documents: texts; each is cut into windows that do not overlap.
        window: text tokens of a row; by default 256, or half of a shorter context.

    Raises:
        InputError: prompt and window exceed the context, or there is nothing to predict.
    """
    edits = Edits() if adaptation is None else replace(adaptation.edits(model), template=None)
    lead = () if edits.embeddings is None else tuple(-j - 1 for j in range(len(edits.embeddings)))
    context, before = model.shape.context, edits.prefix_length + len(lead)
    window = window or text_window(context)
    if before + window > context:
        raise InputError(
            f"{before} positions of the prompt and a window of {window} tokens exceed the context "
            f"of {context}; take a shorter window"
        )
    rows = text_rows(model.tokenizer, documents, window, most)
    led = [replace(r, ids=lead + r.ids, target_start=len(lead) + r.target_start) for r in rows]
    return mean_loss(model, edits, led)


def text_window(context: int, taken: int = 0) -> int:
    """Tokens of a window of plain text in a context of which a prompt has `taken` some."""
    return min(TEXT_WINDOW, context // 2, context - taken)


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
    task = taken(model, adaptation, task, split, max_length=max_length)
    examples = examples_of(task, split, limit)
    replies = generate(
        model,
        [Request(adaptation, example, task.max_new_tokens) for example in examples],
        decoding or task.decoding,
        batch_size=batch_size,
        seed=seed,
        max_length=max_length,
        done=done,
    )
    context = _context_tokens(model, adaptation, examples, replies)
    return scored(task, split, metrics, examples, replies, context)


def examples_of(task: Task, split: str, limit: int | None) -> list[Example]:
    """The examples of a split, or the first `limit` of them, to generate for.

    Raises:
        InputError: there are none.
    """
    examples = list(task.split(split)[:limit])
    if not examples:
        raise InputError(
            f"the {split} split of {task.name} is empty: there is nothing to generate for"
        )
    return examples


def scored(
    task: Task,
    split: str,
    metrics: Sequence[str] | None,
    examples: Sequence[Example],
    replies: list[Reply],
    context_tokens: float,
) -> Evaluation:
    """Replies to examples of a split with their scores; `metrics` are the task's own where None.

    Raises:
        InputError: a metric is unknown.
    """
    from peftlab.metrics import score

    names, texts = metrics or task.metrics, [reply.text for reply in replies]
    references = [example.targets for example in examples]
    return Evaluation(
        split,
        replies,
        score(names, texts, references),
        subsets=_subset_scores(task, names, texts, references) if split == "test" else {},
        context_tokens=context_tokens,
        truncated=sum(reply.dropped > 0 for reply in replies),
        skipped=task.skipped.get(split, 0),
    )


def _subset_scores(
    task: Task, metrics: Sequence[str], texts: Sequence[str], references: Sequence[Sequence[str]]
) -> dict[str, dict[str, float]]:
    """The corpus numbers of each named part of the test split, of which `texts` are the first."""
    from peftlab.metrics import score

    found = {}
    for name, places in task.subsets.items():
        inside = [i for i in places if i < len(texts)]
        if inside:
            own = [texts[i] for i in inside], [references[i] for i in inside]
            found[name] = score(metrics, *own).corpus
    return found


def _context_tokens(
    model: FrozenLM, adaptation: Adaptation, examples: Sequence[Example], replies: Sequence[Reply]
) -> float:
    tokenizer = model.tokenizer
    prefix = adaptation.edits(model).prefix_length
    sources = (len(tokenizer.encode(e.source, add_special_tokens=False)) for e in examples)
    pairs = zip(replies, sources, strict=True)
    return prefix + fmean(reply.prompt_tokens - (source - reply.dropped) for reply, source in pairs)
