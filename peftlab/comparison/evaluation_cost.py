"""What a run will cost besides its training: tokens counted, at a pace that was measured."""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING

from peftlab.comparison import latency
from peftlab.comparison.plan import Run, searches
from peftlab.comparison.samples import validations
from peftlab.comparison.trials import trial_config
from peftlab.estimate import Prediction
from peftlab.tasks.rows import spaced
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
    pace, tokens = found.pace, _Tokens.of(run, model)
    trained = found.train_seconds or 0.0
    steps = round(trained / found.step_seconds) if found.step_seconds else 0
    validation = pace.read * tokens.steering
    validated = validation * validations(run.config, steps) if steps else 0.0
    final = 0.0 if steps and run.validates_all else tokens.final
    general = 0 if run.general is None else run.general.tokens
    trials, share = (run.search.trials, run.search.share) if searches(run) else (0, 0.0)
    return replace(
        found,
        search_seconds=trials * (share * trained + validation * _of_a_trial(run, steps)),
        validation_seconds=validated,
        evaluate_seconds=pace.read * (tokens.train + final),
        generate_seconds=pace.read * tokens.test + pace.step * tokens.rounds,
        besides_seconds=model.load_seconds
        + pace.read * general
        + latency.expected(run, pace.read * tokens.prompt, pace.step),
    )


def _of_a_trial(run: Run, steps: int) -> int:
    """Validations of a trial of the search for a run's rate."""
    if not searches(run):
        return 0
    share = run.search.share
    trial = trial_config(run.config, share, len(run.task.pairs("train")))
    return validations(trial, max(1, int(steps * share)))


@dataclass(frozen=True)
class _Tokens:
    """How many are read.

    Attributes:
        steering: by one validation in training. train, final: for the losses at the end, of
            training and of validation pairs. test: prompts and targets. prompt: one of them.
        rounds: steps of decoding, each of a token for every row of a batch.
    """

    steering: float
    train: float
    final: float
    test: float
    prompt: float
    rounds: float

    @classmethod
    def of(cls, run: Run, model: FrozenLM) -> _Tokens:
        """Counted on some rows of each split; a reply is taken to be as long as a target."""
        task, evaluation = run.task, run.evaluation
        train, reply = _mean(run, model, "train")
        validation, _ = _mean(run, model, "validation")
        row, target = _mean(run, model, "test")
        pairs = len(task.pairs("validation"))
        trained = min(run.samples.train or evaluation.train_rows, len(task.pairs("train")))
        at_once = max(1.0, len(task.test) * task.decoding.beams / evaluation.batch_size)
        return cls(
            steering=validation * min(pairs, run.config.validation_limit or pairs),
            train=train * trained,
            final=validation * min(pairs, evaluation.validation_rows),
            test=len(task.test) * (row - target + task.options_read() * target)
            + len(task.pairs("test")) * target,
            prompt=row - target,
            rounds=0.0 if task.choices else at_once * min(reply, task.max_new_tokens),
        )


def _mean(run: Run, model: FrozenLM, split: str) -> tuple[float, float]:
    """Tokens of a row of a split, and of its target; of none where it is empty."""
    most = max_row_tokens(model.shape.context, run.config.max_length)
    pairs = spaced(run.task.pairs(split), _COUNTED)
    rows = [run.task.template.encode(model.tokenizer, *pair, most) for pair in pairs]
    if not rows:
        return 0.0, 0.0
    targets = fmean(row.targets for row in rows)
    return fmean(len(row.ids) for row in rows), targets
