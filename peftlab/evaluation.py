"""Evaluation: the loss of a split, scores of what the adapted model really generates, and the loss
of text that belongs to no task.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import TYPE_CHECKING, Any, Protocol

from peftlab import choosing
from peftlab.choosing import ReadsTargets
from peftlab.edits import Edits
from peftlab.errors import InputError
from peftlab.frozen.model import FrozenLM
from peftlab.generation import Reply, Request, generate, read_targets
from peftlab.generation.targets import Target
from peftlab.loss import mean_loss, mean_of, row_losses
from peftlab.methods.adaptation import Adaptation
from peftlab.tasks import Decoding, Encoded, Example, Task, Template
from peftlab.tasks.fit import fitted, shortened
from peftlab.tasks.framing import as_trained
from peftlab.tasks.plain import TEXT_TOKENS, TEXT_WINDOW, text_rows
from peftlab.token_limits import max_row_tokens

if TYPE_CHECKING:
    from peftlab.metrics import Scores
    from peftlab.trunk import TrunkStore


@dataclass(frozen=True)
class SplitLoss:
    """The loss of a split: per target token, and each row's sum in nats and count of tokens."""

    loss: float
    sums: list[float]
    counts: list[int]
    truncated: int

    @property
    def error(self) -> float | None:
        """The loss's standard error over rows of their kind; None of a single one."""
        return mean_of(self.sums, self.counts).error


@dataclass(frozen=True)
class Evaluation:
    """What an adaptation generates for a split, and how good it is.

    Attributes:
        options: of choices, each example's options with their log-likelihoods in nats.
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
    options: list[dict[str, float]] = field(default_factory=list)


class Adapted(ReadsTargets, Protocol):
    """A base with one adaptation on it: what losses and replies are taken from.

    Attributes:
        prefix: positions before a prompt that `Reply.prompt_tokens` does not count.
    """

    prefix: int

    def max_row_tokens(self, max_length: int | None) -> int:
        """The most tokens of a row, its target or reply included."""

    def replies(
        self,
        task: Task,
        examples: Sequence[Example],
        decoding: Decoding,
        *,
        targets: Sequence[Sequence[Target]] = (),
        batch_size: int,
        max_length: int | None,
        seed: int,
        done: Callable[[int], None] | None,
    ) -> list[Reply]:
        """A reply to every example.

        Args:
            targets: of every example, whose losses come with the replies where that saves reading.
        """


class AdaptedLM:
    """Our frozen model with an adaptation.

    Args:
        store: of sources, for one that begins at the cue.
    """

    def __init__(
        self, model: FrozenLM, adaptation: Adaptation, store: TrunkStore | None = None
    ) -> None:
        self.model, self.adaptation = model, adaptation
        self.edits, self.tokenizer = adaptation.edits(model), model.tokenizer
        self.store = store if self.edits.begin == "cue" else None
        self.prefix = sum(own.prefix_length for own in self.edits.each)

    def template(self, task: Task) -> Template:
        """The adaptation's own: what the method has made of the task's in training."""
        return self.edits.template or self.adaptation.template

    def max_row_tokens(self, max_length: int | None) -> int:
        """What the adaptation's prefix leaves of the context."""
        return max_row_tokens(self.model.shape.context, max_length, self.edits.prefix_length)

    def row_losses(self, encoded: Sequence[Encoded]) -> tuple[list[float], list[int]]:
        """See `peftlab.loss.row_losses`."""
        return row_losses(self.model, self.edits, encoded, store=self.store)

    def replies(
        self,
        task: Task,
        examples: Sequence[Example],
        decoding: Decoding,
        *,
        targets: Sequence[Sequence[Target]] = (),
        **how: Any,
    ) -> list[Reply]:
        """See `peftlab.generation.generate`."""
        each = targets or [()] * len(examples)
        requests = [
            Request(self.adaptation, one, task.max_new_tokens, targets=tuple(own))
            for one, own in zip(examples, each, strict=True)
        ]
        return generate(self.model, requests, decoding, store=self.store, **how)

    def target_losses(
        self,
        task: Task,
        examples: Sequence[Example],
        targets: Sequence[Sequence[Target]],
        **how: Any,
    ) -> list[Reply]:
        """See `peftlab.generation.read_targets`."""
        longest = max(len(ids) for own in targets for ids in own)
        requests = [
            Request(self.adaptation, one, longest, targets=tuple(own))
            for one, own in zip(examples, targets, strict=True)
        ]
        return read_targets(self.model, requests, store=self.store, **how)


def split_loss(
    adapted: Adapted,
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
    task = taken(adapted, task, split, max_length=max_length)
    pairs = task.pairs(split)[:limit]
    if not pairs:
        raise InputError(f"the {split} split of {task.name} is empty: there is no loss to compute")
    template, most = adapted.template(task), adapted.max_row_tokens(max_length)
    encoded = [template.encode(adapted.tokenizer, e, target, most) for e, target in pairs]
    sums, counts = adapted.row_losses(encoded)
    return SplitLoss(sum(sums) / sum(counts), sums, counts, sum(e.dropped > 0 for e in encoded))


def taken(
    adapted: Adapted, task: Task, split: str = "test", *, max_length: int | None = None
) -> Task:
    """The task as the base and the adaptation take its split: see `tasks.fit`.

    Raises:
        InputError: rows are longer than fits, and the task refuses such; or they were asked to be
            framed otherwise than the adaptation's.
    """
    template, most = adapted.template(task), adapted.max_row_tokens(max_length)
    if template is not task.template:  # the adaptation's own, which it keeps
        task = as_trained(task, template)
    own = fitted(task, adapted.tokenizer, (split,))
    return shortened(own, adapted.template(own), adapted.tokenizer, most, (split,))


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
    edits = Edits() if adaptation is None else adaptation.edits(model)
    template = edits.template or Template("{source}{target}")
    lead = max(one.pseudo_tokens for one in (template, *template.beside))
    context, before = model.shape.context, edits.prefix_length + lead
    window = window or text_window(context)
    if before + window > context:
        raise InputError(
            f"{before} positions of the prompt and a window of {window} tokens exceed the context "
            f"of {context}; take a shorter window"
        )
    rows = text_rows(model.tokenizer, documents, window, most)
    led = [template.unprompted(row.ids, row.target_start) for row in rows]
    return mean_loss(model, edits, led)


def text_window(context: int, taken: int = 0) -> int:
    """Tokens of a window of plain text in a context of which a prompt has `taken` some."""
    return min(TEXT_WINDOW, context // 2, context - taken)


def evaluate(
    adapted: Adapted,
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
    task = taken(adapted, task, split, max_length=max_length)
    examples = _examples(task, split, limit)
    if task.choices is not None:
        how = {"batch_size": batch_size, "max_length": max_length, "done": done}
        return _chosen(adapted, task, split, metrics, examples, how)[0]
    replies = adapted.replies(
        task,
        examples,
        decoding or task.decoding,
        batch_size=batch_size,
        max_length=max_length,
        seed=seed,
        done=done,
    )
    return _scored(adapted, task, split, metrics, examples, replies)


def evaluate_once(
    adapted: Adapted,
    task: Task,
    split: str = "test",
    *,
    batch_size: int = 16,
    max_length: int | None = None,
    seed: int = 0,
    done: Callable[[int], None] | None = None,
) -> tuple[Evaluation, SplitLoss]:
    """Both `evaluate` and `split_loss`, each source read once.

    A prompt's keys and values serve its targets and its reply. A target before which more of the
    source had to be cut than before a reply is read on its own, as are a guest's.

    Raises:
        InputError: the split is empty.
    """
    task = taken(adapted, task, split, max_length=max_length)
    examples = _examples(task, split, None)
    if task.choices is not None:
        how = {"batch_size": batch_size, "max_length": max_length, "done": done}
        return _chosen(adapted, task, split, None, examples, how)
    template, most = adapted.template(task), adapted.max_row_tokens(max_length)
    read = [_targets(adapted, template, one, most, task.max_new_tokens) for one in examples]
    replies = adapted.replies(
        task,
        examples,
        task.decoding,
        targets=[own.shared for own in read],
        batch_size=batch_size,
        max_length=max_length,
        seed=seed,
        done=done,
    )
    losses = _losses(adapted, read, replies)
    return _scored(adapted, task, split, None, examples, replies), losses


def _chosen(
    adapted: Adapted,
    task: Task,
    split: str,
    metrics: Sequence[str] | None,
    examples: Sequence[Example],
    how: Mapping[str, Any],
) -> tuple[Evaluation, SplitLoss]:
    """Choices by likelihood, scored, and the loss of the right ones."""
    from peftlab.metrics import metric_spec

    assert task.choices is not None
    names, template = metrics or task.metrics, adapted.template(task)
    weighed, replies = choosing.weigh(adapted, task, examples, names, **how)
    own = choosing.scores(names, task.choices, weighed, examples)
    others = [name for name in names if not metric_spec(name).of_choices]
    evaluation = _scored(adapted, task, split, others, examples, replies)
    for part in ("corpus", "per_example", "rows"):
        getattr(evaluation.scores, part).update(getattr(own, part))
    if split == "test":
        for name, places in task.subsets.items():
            inside = [i for i in places if i < len(examples)]
            parts = [weighed[i] for i in inside], [examples[i] for i in inside]
            if inside:
                found = choosing.scores(names, task.choices, *parts).corpus
                evaluation.subsets.setdefault(name, {}).update(found)
    options = [
        dict(zip(one.options, map(float, one.log_likelihoods), strict=True)) for one in weighed
    ]
    sums = [loss for reply in replies for loss in reply.target_losses]
    counts = [
        len(template.target_ids(adapted.tokenizer, target, example))
        for example in examples
        for target in example.targets
    ]
    losses = SplitLoss(
        mean_of(sums, counts).loss, sums, counts, sum(reply.dropped > 0 for reply in replies)
    )
    return replace(evaluation, options=options), losses


def _examples(task: Task, split: str, limit: int | None) -> list[Example]:
    examples = list(task.split(split)[:limit])
    if not examples:
        raise InputError(
            f"the {split} split of {task.name} is empty: there is nothing to generate for"
        )
    return examples


@dataclass(frozen=True)
class _Targets:
    """An example's rows, and which of them begin with the very prompt that is answered."""

    rows: list[Encoded]
    alike: list[bool]

    @property
    def shared(self) -> list[Target]:
        """The targets of those that do."""
        pairs = zip(self.rows, self.alike, strict=True)
        return [row.trained for row, same in pairs if same]


def _targets(
    adapted: Adapted, template: Template, example: Example, most: int, reply: int
) -> _Targets:
    tokenizer = adapted.tokenizer
    prompt = template.encode(tokenizer, example, None, most - reply)
    rows = [template.encode(tokenizer, example, target, most) for target in example.targets]
    return _Targets(rows, [_begins_with(row, prompt) for row in rows])


def _begins_with(row: Encoded, prompt: Encoded) -> bool:
    pairs = zip(row.rows, prompt.rows, strict=True)
    return all(own.ids[: own.target_start] == asked.ids for own, asked in pairs)


def _losses(adapted: Adapted, read: Sequence[_Targets], replies: Sequence[Reply]) -> SplitLoss:
    """Of all targets, in their order: those taken beside the replies, and of the others now."""
    rows = [row for one in read for row in one.rows]
    beside = [
        same and bool(reply.target_losses)
        for one, reply in zip(read, replies, strict=True)
        for same in one.alike
    ]
    apart = [row for row, same in zip(rows, beside, strict=True) if not same]
    others = iter(adapted.row_losses(apart)[0] if apart else [])
    shared = (loss for reply in replies for loss in reply.target_losses)
    sums = [next(shared) if same else next(others) for same in beside]
    counts = [row.targets for row in rows]
    return SplitLoss(mean_of(sums, counts).loss, sums, counts, sum(r.dropped > 0 for r in rows))


def _scored(
    adapted: Adapted,
    task: Task,
    split: str,
    metrics: Sequence[str] | None,
    examples: Sequence[Example],
    replies: list[Reply],
) -> Evaluation:
    """Replies with their scores; `metrics` are the task's own where None."""
    from peftlab.metrics import score

    names = task.metrics if metrics is None else metrics
    texts = [reply.text for reply in replies]
    references = [example.targets for example in examples]
    return Evaluation(
        split,
        replies,
        score(names, texts, references),
        subsets=subset_scores(task, names, texts, references) if split == "test" else {},
        context_tokens=_context_tokens(adapted, examples, replies),
        truncated=sum(reply.dropped > 0 for reply in replies),
        skipped=task.skipped.get(split, 0),
    )


def subset_scores(
    task: Task, metrics: Sequence[str], texts: Sequence[str], references: Sequence[Sequence[str]]
) -> dict[str, dict[str, float]]:
    """The corpus numbers of each named part of the test split, of which `texts` are the first."""
    from peftlab.metrics import score

    scores = {}
    for name, places in task.subsets.items():
        inside = [i for i in places if i < len(texts)]
        if inside:
            own = [texts[i] for i in inside], [references[i] for i in inside]
            scores[name] = score(metrics, *own).corpus
    return scores


def _context_tokens(
    adapted: Adapted, examples: Sequence[Example], replies: Sequence[Reply]
) -> float:
    tokenizer = adapted.tokenizer
    sources = (
        sum(len(tokenizer.encode(text, add_special_tokens=False)) for text in e.texts)
        for e in examples
    )
    own = fmean(r.prompt_tokens - (n - r.dropped) for r, n in zip(replies, sources, strict=True))
    return adapted.prefix + own
