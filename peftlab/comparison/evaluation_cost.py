"""What a run will cost besides its training: tokens counted, at a pace that was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean
from typing import TYPE_CHECKING

from peftlab.comparison import latency
from peftlab.comparison.plan import Run, searches
from peftlab.comparison.samples import validations
from peftlab.estimate import Prediction
from peftlab.tasks import Example
from peftlab.token_limits import max_row_tokens

if TYPE_CHECKING:
    from peftlab.frozen.model import FrozenLM

_COUNTED = 100  # pairs whose tokens are counted; of more, evenly spaced ones


def replies_together(run: Run) -> int:
    """Rows that decode in one step, beams among them."""
    beams = run.task.decoding.beams
    return min(run.evaluation.batch_size // beams or 1, len(run.task.test)) * beams


def with_evaluation(run: Run, model: FrozenLM, found: Prediction) -> Prediction:
    """The prediction with what validations, losses, texts and the rest take."""
    if found.pace is None:
        return found
    task, pace = run.task, found.pace
    count = _Counted(run, model)
    train, reply = count.mean("train")
    validation, _ = count.mean("validation")
    test, target = count.mean("test")
    prompt, reply = test - target, min(reply, task.max_new_tokens)
    steered = len(task.pairs("validation")[: run.config.validation_limit])
    own = bool(found.step_seconds) and run.method.trains  # a search validates when it has moved
    steps = round((found.train_seconds or 0.0) / found.step_seconds) if found.step_seconds else 0
    times = validations(run.config, steps) if steps else 0
    finals = min(run.samples.train or run.evaluation.train_rows, len(task.pairs("train"))) * train
    if not (own and run.validates_all):
        finals += min(len(task.pairs("validation")), run.evaluation.validation_rows) * validation
    read = len(task.test) * prompt + len(task.pairs("test")) * target
    rounds = max(1.0, len(task.test) * task.decoding.beams / run.evaluation.batch_size)
    general = 0 if run.general is None else run.general.tokens
    validated = times * steered * validation * pace.read
    searched = 0.0
    if searches(run):
        searched = run.search.trials * (run.search.share * (found.train_seconds or 0.0) + validated)
    return replace(
        found,
        search_seconds=searched,
        validation_seconds=validated,
        evaluate_seconds=finals * pace.read,
        generate_seconds=read * pace.read + rounds * reply * pace.step,
        besides_seconds=model.load_seconds
        + general * pace.read
        + latency.expected(run, prompt * pace.read, pace.step),
    )


class _Counted:
    """Mean tokens of some of the rows of a split."""

    def __init__(self, run: Run, model: FrozenLM) -> None:
        self.task, self.tokenizer = run.task, model.tokenizer
        self.most = max_row_tokens(model.shape.context, run.config.max_length)

    def mean(self, split: str) -> tuple[float, float]:
        """Of a row, and of its target."""
        pairs: Sequence[tuple[Example, str]] = self.task.pairs(split)
        chosen = pairs[:: max(1, -(-len(pairs) // _COUNTED))]
        rows = [self.task.template.encode(self.tokenizer, *pair, self.most) for pair in chosen]
        if not rows:
            return 0.0, 0.0
        return fmean(len(row.ids) for row in rows), fmean(
            len(row.ids) - row.target_start for row in rows
        )
