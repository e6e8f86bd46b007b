"""A task shown to its user: rendered rows with what is trained on marked, lengths, truncation."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from peftlab.errors import InputError
from peftlab.tasks.example import Encoded, Example
from peftlab.tasks.fit import fitted, shortened
from peftlab.tasks.task import SPLITS, Decoding, Task
from peftlab.tasks.tokens import Tokenizer
from peftlab.token_limits import max_row_tokens

SHOWN = 3
"""How many rendered examples `describe` prints."""

MEASURED = 2000
"""Rows of a split that are tokenised for its lengths; more are drawn from by seed."""

_BARS = " ▏▎▍▌▋▊▉█"
_BINS, _WIDTH = 8, 24


@dataclass(frozen=True)
class Lengths:
    """Token lengths of some rows of a split.

    split, rows: the split and its rows: (example, target) pairs of train, examples of the others.
        The lists below are of those that were measured.
    prompt, target: tokens before the target and of it, its end included. cut: how many rows lose
    source tokens in this context, and dropped: how many tokens these lose in all. misfits: rows
    that do not fit even without their source. lost: trained replies that go with those tokens.
    """

    split: str
    rows: int
    prompt: tuple[int, ...]
    target: tuple[int, ...]
    cut: int
    dropped: int
    misfits: int
    lost: int


def describe(task: Task, tokenizer: Tokenizer, context: int) -> str:
    """Return what `peftlab tasks show` prints: facts, three rows, lengths, truncation.

    context: tokens that the model can take. What is trained on stands between ⟦ and ⟧.
    """
    task = fitted(task, tokenizer)
    task = shortened(task, task.template, tokenizer, context, SPLITS)
    parts = [_facts(task)]
    for number, example in enumerate(task.train[:SHOWN], start=1):
        row = task.template.encode(tokenizer, example, example.targets[0], context)
        parts.append(
            f"Example {number} of train ({len(row.ids)} tokens):\n{marked(tokenizer, row)}"
        )
    measured = (measure(task, tokenizer, context, split) for split in SPLITS)
    parts.extend(_lengths_text(lengths, context) for lengths in measured)
    return "\n\n".join(parts) + "\n"


def _facts(task: Task) -> str:
    sizes = ", ".join(
        f"{split} {len(task.split(split)):,} ({len(task.pairs(split)):,} targets)"
        for split in SPLITS
    )
    default = asdict(Decoding())
    decoding = {k: v for k, v in asdict(task.decoding).items() if v != default[k]}
    settings = ", ".join(f"{name} {value!s:.60}" for name, value in decoding.items()) or "greedy"
    words = task.instruction or (task.request if task.template.chat else "")
    lines = [
        f"Task {task.name} ({task.source.kind}: {task.source.location})",
        f"Examples: {sizes}",
        f"Template: {task.template.text!r}",
        *([f"Instruction (for hard prompts): {words!r}"] if words else []),
        f"Scored by: {', '.join(task.metrics)}",
        _answered(task, settings),
        *([f"Labels: {', '.join(task.labels)}"] if task.labels else []),
        *([f"Subsets of test: {_subsets(task)}"] if task.subsets else []),
        *task.notes,
    ]
    return "\n".join(lines)


def _answered(task: Task, settings: str) -> str:
    if task.choices is None:
        return f"Generated: up to {task.max_new_tokens} tokens, {settings}"
    return f"Chosen: the likeliest option, by its log-likelihood ({task.choices.score})"


def _subsets(task: Task) -> str:
    return ", ".join(f"{name} {len(rows):,}" for name, rows in task.subsets.items())


def marked(tokenizer: Tokenizer, row: Encoded) -> str:
    """Return a row as text: pseudo tokens as `<p1>`, what is trained on between ⟦ and ⟧."""
    text, at = "", 0
    for start, stop in row.spans:
        text += f"{_text(tokenizer, row.ids[at:start])}⟦{_text(tokenizer, row.ids[start:stop])}⟧"
        at = stop
    return text + _text(tokenizer, row.ids[at:])


def _text(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    pieces: list[str] = []
    run: list[int] = []
    for token in (*ids, None):
        if token is not None and token >= 0:
            run.append(token)
            continue
        if run:
            pieces.append(str(tokenizer.decode(run)))
            run = []
        if token is not None:
            pieces.append(f"<p{-token}>")
    return "".join(pieces)


def measure(task: Task, tokenizer: Tokenizer, context: int, split: str) -> Lengths:
    """Return the token lengths of a split: of training rows, or of prompts with room to generate.

    Rows beyond `MEASURED` are sampled.
    """
    rows, pairs = _drawn(task, split)
    prompts, targets, cut, dropped, misfits, lost = [], [], 0, 0, 0, 0
    for example, target in pairs:
        whole = task.template.encode(tokenizer, example, target, sys.maxsize)
        prompts.append(len(whole.ids) - whole.targets + whole.dropped)
        targets.append(whole.targets)
        try:
            if split == "train":
                row = task.template.encode(tokenizer, example, target, context)
            else:
                limit = max_row_tokens(context, taken=task.max_new_tokens)
                row = task.template.encode(tokenizer, example, None, limit)
        except InputError:
            misfits += 1
            continue
        cut += row.dropped > 0
        dropped += row.dropped
        lost += len(whole.spans) - len(row.spans) if split == "train" else 0
    return Lengths(split, rows, tuple(prompts), tuple(targets), cut, dropped, misfits, lost)


def _drawn(task: Task, split: str) -> tuple[int, list[tuple[Example, str]]]:
    """Return how many rows a split has, and those to measure.

    In training every pair is a row; for generation every example is one prompt.
    """
    rows, pairs = task.split(split), task.pairs(split)
    count = len(pairs) if split == "train" else len(rows)
    chosen = sorted(random.Random(0).sample(range(count), min(count, MEASURED)))
    if split == "train":
        return count, [pairs[index] for index in chosen]
    return count, [(row, row.targets[0]) for row in (rows[index] for index in chosen)]


def _lengths_text(lengths: Lengths, context: int) -> str:
    of = "rows" if lengths.split == "train" else "prompts, with room to generate,"
    measured = len(lengths.prompt)
    sample = f" ({measured:,} of {lengths.rows:,} drawn)" if measured < lengths.rows else ""
    total = [p + t for p, t in zip(lengths.prompt, lengths.target, strict=True)]
    cut = f"{lengths.cut:,} of {measured:,} {of} lose source tokens in a context of {context}"
    if lengths.cut:
        cut += f" ({lengths.dropped / lengths.cut:.0f} each on average)"
    if lengths.lost:
        cut += f", and with them {lengths.lost:,} replies that would be trained on"
    lines = [
        f"Tokens of {lengths.split}{sample}: prompt {_spread(lengths.prompt)}, target "
        f"{_spread(lengths.target)}",
        *histogram(total),
        f"{cut}.",
    ]
    if lengths.misfits:
        lines.append(f"{lengths.misfits:,} do not fit even without their source.")
    return "\n".join(lines)


def _spread(values: Sequence[int]) -> str:
    ordered = sorted(values)
    middle, most = ordered[len(ordered) // 2], ordered[-1]
    return f"{middle} (median; up to {most})"


def histogram(values: Iterable[int]) -> list[str]:
    """Return lines such as `  32-47  ███▌  120`, in at most eight steps of equal width."""
    ordered = sorted(values)
    low, high = ordered[0], ordered[-1]
    step = max(1, -(-(high - low + 1) // _BINS))
    counts = [0] * (-(-(high - low + 1) // step))
    for value in ordered:
        counts[(value - low) // step] += 1
    most, digits = max(counts), len(str(low + step * len(counts)))
    return [
        f"  {low + i * step:>{digits}}-{low + (i + 1) * step - 1:<{digits}}  "
        f"{_bar(count / most):<{_WIDTH}}  {count:,}"
        for i, count in enumerate(counts)
    ]


def _bar(share: float) -> str:
    eighths = round(share * _WIDTH * 8)
    return _BARS[8] * (eighths // 8) + _BARS[eighths % 8].strip()
