"""How much of each split a comparison reads: evaluation costs at most a share of training.

Everything is counted in tokens through the base, a backward pass once more, so the sizes follow
from settings, rows and tokenizer alone: no clock has a say, and all methods have the same. The rule
and its numbers: docs/statistics.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from statistics import fmean
from typing import Any

from peftlab.comparison.plan import Plan, Samples
from peftlab.comparison.trials import trial_config
from peftlab.tasks import Task
from peftlab.tasks.plain import TEXT_TOKENS
from peftlab.tasks.rows import spaced
from peftlab.tasks.sample import sampled
from peftlab.tasks.tokens import Tokenizer
from peftlab.training import Budget, TrainConfig
from peftlab.training.config import OF_SECONDS

SHARE = 1 / 3
"""Of training's tokens, for evaluation in all, where nobody asks for another share."""
PARTS = {"validation": 0.2, "train": 0.1, "test": 0.4, "general": 0.1}
"""What each part gets of that; the plan's trial steps, loading and latency take the rest."""
STEERING = 128
"""Validation pairs; among so many, half a per cent of the loss is eight standard errors."""
LEAST = {"validation": 8, "train": 8, "test": 8, "general": 1024}
"""Fewer say nothing, whatever they cost."""
FREE = 1e12
"""Operations, some ten seconds of a core, that are not worth saving: small bases read all."""
DECODED = 3
"""Tokens that are read in the time in which one is decoded, in batches of sixteen."""
_COUNTED = 200  # pairs whose tokens are counted
_OF_SECONDS = 300  # steps that a budget of seconds counts as


@dataclass(frozen=True)
class Costs:
    """Tokens through the base.

    Attributes:
        training: of all of it. free: as many as are read in passing. row: of one read pair.
        example: of one test example, read with its targets and answered. validations: of one
            training, or of the share of it that a trial of a search has, whichever is more.
    """

    training: float
    free: float
    row: float
    example: float
    validations: float


def costs(plan: Plan, task: Task, tokenizer: Tokenizer, room: int, parameters: int) -> Costs:
    """Count a plan's tokens on some of its rows.

    Args:
        task: whole, as the base takes it. room: most tokens of a row. parameters: of the base;
            reading a token takes twice as many operations.
    """
    rows = [
        task.template.encode(tokenizer, example, target, room)
        for example, target in spaced(task.pairs("train"), _COUNTED)
    ]
    row = fmean(len(one.ids) for one in rows)
    reply = fmean(one.targets for one in rows)
    budget = Budget.of(plan.config, len(task.pairs("train")))
    a_step = 2 * plan.config.rows_a_step * row
    training = {
        "steps": budget.amount * a_step,
        "tokens": budget.amount,
        "seconds": _OF_SECONDS * a_step,
    }[budget.kind]
    targets = len(task.pairs("test")) / max(1, len(task.test))
    written = DECODED * task.decoding.beams * min(reply, task.max_new_tokens)
    answered = task.options_read() * reply if task.choices else written
    return Costs(
        training=training,
        free=FREE / (2 * parameters),
        row=row,
        example=row - reply + targets * reply + answered,
        validations=_validations(plan, math.ceil(training / a_step), len(task.pairs("train"))),
    )


def validations(config: TrainConfig, steps: int) -> int:
    """How many a training of so many steps has, the one at its end included."""
    if config.seconds is not None and config.evaluate_every:
        return OF_SECONDS
    return math.ceil(steps / (config.evaluate_every or steps))


def _validations(plan: Plan, steps: int, pairs: int) -> float:
    """Those of a run, or of the share of it that a trial has, whichever cost more."""
    own = validations(plan.config, steps)
    if not plan.search.trials:
        return own
    share = plan.search.share
    trial = trial_config(plan.config, share, pairs)
    return max(own, validations(trial, max(1, int(steps * share))) / share)


def decided(plan: Plan, task: Task, found: Costs) -> Samples:
    """The samples of a plan whose tokens were counted.

    Of each split as many rows as its part of the share pays for; no more of validation than tell
    states apart that differ, of the test split all that is paid for.
    """
    share = SHARE if plan.sampling.share is None else plan.sampling.share
    evaluation, pairs = plan.evaluation, len(task.pairs("train"))
    asked = min(evaluation.train_rows, pairs)
    if not share:
        return Samples(drawn=asked < pairs)
    paid = {n: part * max(share * found.training, found.free) for n, part in PARTS.items()}

    def size(name: str, cost: float, whole: int, most: int | None = None) -> int | None:
        count = max(LEAST[name], int(paid[name] / cost))
        count = count if most is None else min(count, most)
        return count if count < whole else None

    validation, steers = len(task.pairs("validation")), plan.config.validation_limit is None
    train = size("train", found.row, asked)
    return Samples(
        train=train,
        drawn=(train or asked) < pairs,
        validation=size("validation", found.validations * found.row, validation, STEERING)
        if steers
        else None,
        test=size("test", found.example, len(task.test)) if plan.sampling.test else None,
        general=size("general", 1, TEXT_TOKENS) if plan.general_text else None,
    )


def kept(
    decided: Samples, settings: Sequence[Mapping[str, Any]], share_is_given: bool = False
) -> Samples:
    """The samples of earlier runs that differ in nothing else; those decided where there are none.

    Args:
        settings: of these runs, as `Run.resolved` has them.
        share_is_given: sizes are then those decided; which training pairs are read is kept.
    """
    names = {item.name for item in fields(Samples)}
    earlier = [
        Samples(**{name: size for name, size in values.get("samples", {}).items() if name in names})
        for values in settings
    ]
    for known in (decided, replace(decided, drawn=False)):
        if known in earlier:
            return known
    return decided if share_is_given or not earlier else earlier[0]


def apply(task: Task, samples: Samples) -> Task:
    """The task with the samples in the place of its splits."""
    return sampled(task, validation=samples.validation, test=samples.test)
