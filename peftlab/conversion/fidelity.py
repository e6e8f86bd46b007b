"""How close a converted adaptation is to the one that it was made from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import Any

import numpy as np
from scipy.stats import bootstrap

from peftlab.comparison.latency import of_one_row
from peftlab.evaluation import AdaptedLM, Evaluation, evaluate
from peftlab.methods.adaptation import Adaptation
from peftlab.tasks import Example, Task
from peftlab.training.teacher import Teacher
from peftlab.units import size

_RESAMPLES = 2000
_AT_ONCE = 10**6  # numbers of resamples in memory
_LATENCY_TOKENS = 24


@dataclass(frozen=True)
class Side:
    """One of the two, and what it costs to use it.

    Attributes:
        method: in words. scores: on the test split, by metric. bytes: of its tensors.
        prompt_tokens: the mean of what is read before a reply, positions of prefixes among them.
        first_token, each_token: seconds to the first token of one row, and from one to the next.
    """

    method: str
    scores: dict[str, float]
    bytes: int
    prompt_tokens: float
    first_token: float
    each_token: float

    def told(self) -> str:
        """One line."""
        return (
            f"{self.method}: {size(self.bytes)}, reads {self.prompt_tokens:.0f} tokens a reply, "
            f"first token after {1e3 * self.first_token:.0f} ms, then one in "
            f"{1e3 * self.each_token:.1f} ms"
        )


@dataclass(frozen=True)
class Fidelity:
    """A student beside its teacher, on the test split.

    Attributes:
        divergence: KL(teacher ‖ student) in nats, the mean over the first targets' tokens.
        equal: share of examples to which both give the same greedy reply.
        difference: student less teacher by `metric`, the mean over examples, with its 95 % interval
            (paired bootstrap, bias-corrected and accelerated); None of a single example.
    """

    teacher: Side
    student: Side
    examples: int
    divergence: float
    equal: float
    metric: str
    difference: float
    interval: tuple[float, float] | None

    def values(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    def told(self) -> list[str]:
        """A line each."""
        interval = ""
        if self.interval is not None:
            low, high = self.interval
            interval = f" (95 % interval {low:+.3f} to {high:+.3f})"
        own, theirs = (side.scores[self.metric] for side in (self.student, self.teacher))
        return [
            f"{self.examples} test examples: divergence {self.divergence:.4f} nats a token, "
            f"{self.equal:.0%} of replies equal",
            f"{self.metric} {own:.3f}, its teacher's {theirs:.3f}; by example "
            f"{self.difference:+.3f}{interval}",
            self.student.told(),
            self.teacher.told(),
        ]


def divergence(teacher: Teacher, student: Adaptation, examples: Sequence[Example]) -> float:
    """The mean divergence of a student from its teacher over first targets, in nats a token."""
    adapted = AdaptedLM(teacher.model, student)
    template = adapted.edits.template or student.template
    most = adapted.max_row_tokens(teacher.max_length)
    rows = [template.encode(adapted.tokenizer, one, one.targets[0], most) for one in examples]
    sums, counts = teacher.divergences(adapted.edits, rows, examples)
    return sum(sums) / sum(counts)


def measured(teacher: Teacher, student: Adaptation, task: Task, *, batch_size: int) -> Fidelity:
    """Both on the test split of a fitted task, by its metrics; replies are greedy."""
    beams = 1 if teacher.edits.experts else task.decoding.beams  # a mixture has none
    decoding = replace(task.decoding, sample=False, beams=beams)
    one, other = (
        evaluate(
            AdaptedLM(teacher.model, each),
            task,
            decoding=decoding,
            batch_size=batch_size,
            max_length=teacher.max_length,
        )
        for each in (teacher.adaptation, student)
    )
    metric = task.metrics[0]
    theirs, own = (np.array(found.scores.per_example[metric]) for found in (one, other))
    replies = zip(one.replies, other.replies, strict=True)
    return Fidelity(
        teacher=_side(teacher, teacher.adaptation, one, task),
        student=_side(teacher, student, other, task),
        examples=len(own),
        divergence=divergence(teacher, student, list(task.test)),
        equal=fmean(a.text == b.text for a, b in replies),
        metric=metric,
        difference=float((own - theirs).mean()),
        interval=_interval(own - theirs),
    )


def _side(teacher: Teacher, one: Adaptation, found: Evaluation, task: Task) -> Side:
    edits = one.edits(teacher.model)
    waits = of_one_row(teacher.model, one, task, _LATENCY_TOKENS, teacher.max_length)
    return Side(
        method=one.method.label,
        scores=dict(found.scores.corpus),
        bytes=sum(tensor.nbytes for tensor in one.state.tensors.values()),
        prompt_tokens=sum(own.prefix_length for own in edits.each)
        + fmean(reply.prompt_tokens for reply in found.replies),
        first_token=waits.first_token,
        each_token=waits.token,
    )


def _interval(apart: np.ndarray) -> tuple[float, float] | None:
    if len(apart) < 2:
        return None
    if np.ptp(apart) == 0:
        return float(apart[0]), float(apart[0])
    how: dict[str, Any] = {"n_resamples": _RESAMPLES, "batch": max(1, _AT_ONCE // len(apart))}
    for method in ("BCa", "percentile"):  # where all but one are alike, BCa is not defined
        found = bootstrap((apart,), np.mean, method=method, rng=0, **how)
        low, high = (float(end) for end in found.confidence_interval)
        if math.isfinite(low) and math.isfinite(high):
            break
    return low, high
