"""Choices by likelihood: every option of an example after one reading of its source."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
from scipy.special import softmax

from peftlab.errors import InputError
from peftlab.generation import Reply
from peftlab.tasks import Encoded, Example, Task, Template
from peftlab.tasks.choices import METRICS, Choices, ChoiceScore

if TYPE_CHECKING:
    from peftlab.generation.targets import Target
    from peftlab.metrics import Scores
    from peftlab.tasks.tokens import Tokenizer

Array = npt.NDArray[np.float64]


class ReadsTargets(Protocol):
    """A base with one adaptation on it, as far as it takes losses of given texts."""

    tokenizer: Tokenizer

    def template(self, task: Task) -> Template:
        """The template in which it takes the rows of a task."""

    def row_losses(self, encoded: Sequence[Encoded]) -> tuple[list[float], list[int]]:
        """Every row's summed loss in nats and its number of target tokens."""

    def target_losses(
        self,
        task: Task,
        examples: Sequence[Example],
        targets: Sequence[Sequence[Target]],
        *,
        batch_size: int,
        max_length: int | None,
        done: Callable[[int], None] | None,
    ) -> list[Reply]:
        """Replies without a text, with the summed losses of every example's targets."""


@dataclass(frozen=True)
class Weighed:
    """An example's options and their log-likelihoods in nats, [options].

    tokens: of each option, its end not counted. alone: log-likelihoods without the source, where
    they were asked for.
    """

    options: tuple[str, ...]
    log_likelihoods: Array
    tokens: Array
    alone: Array | None = None

    def scored(self, score: ChoiceScore) -> Array:
        """What is chosen by. Lengths are of the option, without the space before it."""
        if score == "mutual":
            assert self.alone is not None
            return self.log_likelihoods - self.alone
        lengths = {
            "sum": lambda: np.ones(len(self.options)),
            "char": lambda: np.array([float(len(option)) for option in self.options]),
            "byte": lambda: np.array([float(len(option.encode())) for option in self.options]),
            "token": lambda: self.tokens,
        }
        return self.log_likelihoods / lengths[score]()

    def chosen(self, score: ChoiceScore) -> int:
        """The place of the first option with the highest score."""
        return int(self.scored(score).argmax())


def weigh(
    adapted: ReadsTargets,
    task: Task,
    examples: Sequence[Example],
    names: Sequence[str],
    *,
    batch_size: int,
    max_length: int | None,
    done: Callable[[int], None] | None,
) -> tuple[list[Weighed], list[Reply]]:
    """Every example's options with their log-likelihoods, and replies that are the chosen ones.

    A reply's `target_losses` are those of the example's targets, their ends included.

    Args:
        names: of the metrics that are wanted.

    Raises:
        InputError: an option has no token.
    """
    choices, tokenizer = _choices(task), adapted.tokenizer
    template = adapted.template(task)
    options = [choices.of(example) for example in examples]
    ids = [
        _ids(template, tokenizer, example, own)
        for example, own in zip(examples, options, strict=True)
    ]
    targets = [
        [template.target_ids(tokenizer, target, example) for target in example.targets]
        for example in examples
    ]
    asked = [[*map(tuple, own), *map(tuple, more)] for own, more in zip(ids, targets, strict=True)]
    read = adapted.target_losses(
        task, examples, asked, batch_size=batch_size, max_length=max_length, done=done
    )
    alone = _alone(adapted, template, options) if _wants_alone(choices, names) else None
    weighed, replies = [], []
    for reply, own, own_ids in zip(read, options, ids, strict=True):
        losses = np.array(reply.target_losses)
        one = Weighed(
            own,
            -losses[: len(own)],
            np.array([float(len(each)) for each in own_ids]),
            None if alone is None else np.array([alone[option] for option in own]),
        )
        place = one.chosen(choices.score)
        weighed.append(one)
        replies.append(
            replace(
                reply,
                text=own[place],
                tokens=tuple(own_ids[place]),
                finished="end",
                target_losses=tuple(reply.target_losses[len(own) :]),
            )
        )
    return weighed, replies


def _choices(task: Task) -> Choices:
    assert task.choices is not None
    return task.choices


def _ids(
    template: Template, tokenizer: object, example: Example, options: Sequence[str]
) -> list[list[int]]:
    found = template.option_ids(tokenizer, example, options)
    for option, ids in zip(options, found, strict=True):
        if not ids:
            raise InputError(f"the option {option!r} has no token after {example.excerpt()!r}")
    return found


def _wants_alone(choices: Choices, names: Sequence[str]) -> bool:
    return choices.score == "mutual" or METRICS["mutual"] in names


def _alone(
    adapted: ReadsTargets, template: Template, options: Sequence[Sequence[str]]
) -> dict[str, float]:
    """Log-likelihoods of options after nothing but the token that begins a text."""
    tokenizer = adapted.tokenizer
    first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    distinct = list(dict.fromkeys(option for own in options for option in own))
    rows = []
    for option in distinct:
        ids = template.option_alone(tokenizer, option)
        ids = ids[1:] if ids[:1] == [first] else ids  # never doubled
        rows.append(template.unprompted((first, *ids), 1))
    sums, _ = adapted.row_losses(rows)
    return {option: -loss for option, loss in zip(distinct, sums, strict=True)}


def scores(
    names: Sequence[str], choices: Choices, weighed: Sequence[Weighed], examples: Sequence[Example]
) -> Scores:
    """Scores of metrics that are of options' likelihoods, among `names`."""
    from peftlab.metrics import Scores, build_metric

    kinds = {metric: kind for kind, metric in METRICS.items()}
    scored = Scores()
    for name in names:
        if name == "calibration_error":
            rows = _calibration(choices, weighed, examples)
        elif name in kinds:
            right = [
                float(one.options[one.chosen(kinds[name])] in example.targets)
                for one, example in zip(weighed, examples, strict=True)
            ]
            rows = np.array(right).reshape(-1, 1)
        else:
            continue
        scored.rows[name] = rows
        scored.corpus[name] = build_metric(name).aggregate(rows)
        each = np.abs(rows[:, 0] - rows[:, 1]) if rows.shape[1] == 2 else rows[:, 0]
        scored.per_example[name] = each.tolist()
    return scored


def rescored(names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The corpus numbers of those metrics that options give, of stored predictions."""
    from peftlab.metrics import build_metric, metric_spec

    right = [row["prediction"] in row["references"] for row in rows]
    found = {}
    for name in names:
        if metric_spec(name).of_choices:
            scorer: Any = build_metric(name)
            each = [row["scores"][name] for row in rows]
            found[name] = scorer.aggregate(scorer.stored(each, right))
    return found


def _calibration(
    choices: Choices, weighed: Sequence[Weighed], examples: Sequence[Example]
) -> Array:
    rows = []
    for one, example in zip(weighed, examples, strict=True):
        place = one.chosen(choices.score)
        chance = softmax(one.scored(choices.score))[place]
        rows.append([chance, float(one.options[place] in example.targets)])
    return np.array(rows)
