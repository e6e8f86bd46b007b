"""Any adaptation into one of any method that has tensors, by distillation over one base.

The student learns the teacher's whole distribution at the target's tokens (Hinton et al. 2015,
arXiv:1503.02531, at temperature 1; of prompts it is context distillation: Snell et al. 2022,
arXiv:2209.15189).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from peftlab.conversion.fidelity import Fidelity, divergence, measured
from peftlab.conversion.low_rank import Fit, changes_weights, fit
from peftlab.conversion.replies import answered
from peftlab.edits import Edits
from peftlab.errors import InputError
from peftlab.methods.adaptation import Adaptation, base_of
from peftlab.methods.base import Method, State
from peftlab.methods.lora import LoRA
from peftlab.tasks import Encoded, Example, Task
from peftlab.tasks.fit import fitted
from peftlab.tasks.framing import as_trained
from peftlab.token_limits import max_row_tokens
from peftlab.training import TrainConfig, train
from peftlab.training.display import Display, silent
from peftlab.training.teacher import Teacher

if TYPE_CHECKING:
    from peftlab.frozen.model import FrozenLM

Replies = Literal["targets", "teacher"]
STEPS = 100
"""That a conversion takes where nothing else is said."""
_LOOKED_AT = 32  # training rows whose inputs weigh a low-rank fit, and that show a change at all
_FROM_A_FIT = 0.3  # of the method's own rate, docs/interop.md
_NOTHING = 1e-7  # nats a token: less is rounding


@dataclass(frozen=True)
class Converted:
    """What a conversion has made.

    Attributes:
        left_out: of a change of weights that LoRA was fitted to, before any step.
        steps: that the adaptation took; 0 where its start came closest.
        cut: sources of which the teacher's prompt left no room for all.
    """

    adaptation: Adaptation
    fidelity: Fidelity
    left_out: Fit | None
    steps: int
    cut: int


def convert(
    model: FrozenLM,
    adaptation: Adaptation,
    method: Method,
    task: Task,
    config: TrainConfig,
    *,
    fit_only: bool = False,
    replies: Replies = "targets",
    folder: Path | None = None,
    batch_size: int = 16,
    display: Display = silent,
) -> Converted:
    """Make an adaptation of a method that does what another one does.

    Where that one changes weights and the method is LoRA, training starts from the best low-rank
    fit. The start is kept where no step brings it closer.

    Args:
        task: whose training sources are learnt on, and whose test split measures fidelity; its
            rows stand in the adaptation's template.
        fit_only: take no step.
        replies: learn on the task's targets, or on replies that the adaptation samples, once.
        folder: for the checkpoint and the sampled replies; a conversion that was cut off continues.

    Raises:
        InputError: an adaptation of another base, one that does what the base does, a method that
            has no tensors, or no step where nothing is there to start from.
        Diverged, Interrupted: see `training`.
    """
    _check(model, adaptation, method, config)
    teacher = Teacher(model, adaptation, config.max_length)
    own = _in_its_template(task, adaptation, model)
    _check_change(teacher, own)
    if replies == "teacher":
        own = answered(teacher, own, config, folder, batch_size)
    start = method.init(model, own, torch.Generator().manual_seed(config.seed))
    fitting = _fit(teacher, method, own, start)
    if fit_only and fitting is None:
        raise InputError(
            "no step was asked for, and only a change of weights becomes lora (begin=row) without "
            f"any; this is {adaptation.method.label} into {method.label}: give --steps"
        )
    start = start if fitting is None else fitting.state
    if fitting is not None and config.learning_rate is None:
        rate = _FROM_A_FIT * method.rate_on(model.scale)
        config = replace(config, learning_rate=rate)
    made, steps = _as_it_starts(model, method, own, start), 0
    if not fit_only:
        trained = train(
            model, method, own, config, folder=folder, display=display, start=start, teacher=teacher
        )
        if _is_closer(trained.adaptation, made, teacher, own, config):
            made, steps = trained.adaptation, trained.best_step
    cut = len(teacher.cut)
    fidelity = measured(teacher, made, task, batch_size=batch_size)
    return Converted(made, fidelity, fitting, steps, cut)


def _check(model: FrozenLM, adaptation: Adaptation, method: Method, config: TrainConfig) -> None:
    adaptation.check(model)
    if config.label_smoothing:
        raise InputError(
            "label smoothing is of targets, and a conversion learns a distribution: leave it out"
        )
    if not method.trains:
        raise InputError(
            f"{method.name} has no tensors, so nothing can be converted into it; lora, "
            "prompt_tuning, prefix_tuning, … have"
        )
    for site in method.sites:
        model.conformance.require(site, method.name)
    method.check(model.shape)


def _in_its_template(task: Task, adaptation: Adaptation, model: FrozenLM) -> Task:
    """The task's rows in an adaptation's template, before its method changes that; one reply each.

    Choices are learnt as the replies that they are.
    """
    own = as_trained(task, adaptation.template)
    template = replace(adaptation.template, loss="last")
    return fitted(replace(own, template=template, framing=None, choices=None), model.tokenizer)


def _check_change(teacher: Teacher, task: Task) -> None:
    """Refuse a teacher that does what the bare base does on the task's rows."""
    sums, counts = teacher.divergences(Edits(), *_first_rows(teacher, task))
    if sum(sums) <= _NOTHING * sum(counts):
        raise InputError(
            f"this {teacher.adaptation.method.name} does what the bare base does: it is untrained, "
            "and there is nothing to convert"
        )


def _first_rows(teacher: Teacher, task: Task) -> tuple[list[Encoded], list[Example]]:
    model, pairs = teacher.model, task.pairs("train")[:_LOOKED_AT]
    if not pairs:
        raise InputError(
            f"the training split of {task.name} is empty: there is nothing to learn on"
        )
    room = max_row_tokens(model.shape.context, teacher.max_length)
    rows = [task.template.encode(model.tokenizer, *pair, room) for pair in pairs]
    return rows, [example for example, _ in pairs]


def _fit(teacher: Teacher, method: Method, task: Task, start: State) -> Fit | None:
    """The low-rank fit of a change of weights, where LoRA is to hold it."""
    if not isinstance(method, LoRA) or method.begin != "row" or not changes_weights(teacher.edits):
        return None
    rows = zip(*_first_rows(teacher, task), strict=True)
    batches = [teacher.batch([row], [example]) for row, example in rows]
    return fit(teacher.model, teacher.edits, method, start, batches)


def _as_it_starts(model: FrozenLM, method: Method, task: Task, start: State) -> Adaptation:
    with torch.no_grad():
        made = method.materialise(start, model)
    tensors = {name: tensor.detach().cpu().clone() for name, tensor in made.tensors.items()}
    return Adaptation(method, State(tensors, made.text), task.template, base_of(model))


def _is_closer(
    trained: Adaptation, start: Adaptation, teacher: Teacher, task: Task, config: TrainConfig
) -> bool:
    """Whether training has brought it closer than its start, on the validation split."""
    examples = list(task.validation)[: config.validation_limit]
    if not examples:
        return True
    return divergence(teacher, trained, examples) <= divergence(teacher, start, examples)
