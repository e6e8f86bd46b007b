"""Any adaptation into one of any method that has tensors, by distillation over one base.

The student learns the teacher's whole distribution at the target's tokens (Hinton et al. 2015,
arXiv:1503.02531, at temperature 1; of prompts it is context distillation: Snell et al. 2022,
arXiv:2209.15189).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from peftlab.conversion.fidelity import Fidelity, divergence, measured
from peftlab.conversion.low_rank import LeftOut, fit
from peftlab.conversion.replies import answered
from peftlab.edits import Edits
from peftlab.errors import InputError
from peftlab.frozen.weight_changes import changes_weights_alone
from peftlab.methods.adaptation import Adaptation, base_of
from peftlab.methods.base import Method, State
from peftlab.methods.lora import LoRA
from peftlab.records.folders import ADAPTER
from peftlab.tasks import Encoded, Example, Task
from peftlab.tasks.fit import fitted, shortened
from peftlab.tasks.framing import as_trained
from peftlab.tasks.rows import spaced
from peftlab.tasks.task import SPLITS
from peftlab.token_limits import max_row_tokens
from peftlab.training import TrainConfig, train
from peftlab.training.display import Display, silent
from peftlab.training.teacher import Teacher
from peftlab.trunk import TrunkStore

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
        truncated, skipped: training rows that lost source tokens, or were left out, since they were
            too long; cut: that lost more to the teacher's prompt.
    """

    adaptation: Adaptation
    fidelity: Fidelity
    left_out: LeftOut | None
    steps: int
    truncated: int
    skipped: int
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
        folder: for the checkpoint, sampled replies and, as `adapter`, what was made; a conversion
            that was cut off continues.

    Raises:
        InputError: an adaptation of another base, one that does what the base does, a method that
            has no tensors, no step where nothing is there to start from, or a split that is empty.
        Diverged, Interrupted: see `training`.
    """
    _check(model, adaptation, method, config)
    store = TrunkStore(config.trunk_memory)
    teacher = Teacher(model, adaptation, config.max_length, store)
    if fit_only:
        _check_fit(teacher, method, replies)
    task = _whole_rows(teacher, method, in_its_template(task, adaptation, model), config)
    own = _as_replies(task, adaptation)
    _check_change(teacher, own)
    if replies == "teacher":
        own = answered(teacher, own, config, folder, batch_size)
    start, left_out, config = _start(teacher, method, own, config)
    made, steps, truncated = _as_it_starts(model, method, own, start), 0, 0
    if not fit_only:
        how: dict[str, Any] = {"folder": folder, "display": display, "start": start}
        trained = train(model, method, own, config, teacher=teacher, **how)
        truncated = trained.truncated
        if _is_closer(trained.adaptation, made, teacher, own, config):
            made, steps = trained.adaptation, trained.best_step
    if folder is not None:
        made.save(folder / ADAPTER)
    cut = len(teacher.cut)
    return Converted(
        made,
        measured(teacher, made, task, batch_size=batch_size),
        left_out,
        steps,
        truncated,
        task.skipped.get("train", 0),
        cut,
    )


def in_its_template(task: Task, adaptation: Adaptation, model: FrozenLM) -> Task:
    """A task as an adaptation has it: in the template and the chat that it was trained in.

    Raises:
        InputError: the task was asked to be framed otherwise.
    """
    own = as_trained(task, adaptation.template)
    return fitted(replace(own, template=adaptation.template, framing=None), model.tokenizer)


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


def _check_fit(teacher: Teacher, method: Method, replies: Replies) -> None:
    """Refuse to take no step where that gives nothing, or not all."""
    own = teacher.adaptation
    its_text = teacher.template.beginning("row") != own.template.beginning("row")
    if not _can_fit(teacher, method) or its_text:
        raise InputError(
            "no step was asked for, and only a change of weights without words becomes lora "
            f"(begin=row) without any; this is {own.method.label} into {method.label}: give steps"
        )
    if replies == "teacher":
        raise InputError("no step was asked for, so no reply is learnt on: leave replies out")


def _can_fit(teacher: Teacher, method: Method) -> bool:
    if not isinstance(method, LoRA):
        return False
    whole_rows = method.begin == "row" == teacher.edits.begin
    return whole_rows and changes_weights_alone(teacher.edits)


def _whole_rows(teacher: Teacher, method: Method, task: Task, config: TrainConfig) -> Task:
    """The task without rows that are too long for either side, where it asks for that."""
    for split in ("train", "test"):
        if not len(task.split(split)):
            raise InputError(
                f"the {split} split of {task.name} is empty, and a conversion needs it"
            )
    if task.long == "cut":
        return task
    model, start = teacher.model, torch.Generator().manual_seed(config.seed)
    state = method.materialise(method.init(model, task, start), model)
    taken = method.edits(state, model).prefix_length
    room = max_row_tokens(model.shape.context, config.max_length, taken)
    own = method.template(task.template, state)
    task = shortened(task, teacher.template, model.tokenizer, teacher.max_row_tokens, SPLITS)
    return shortened(task, own, model.tokenizer, room, SPLITS)


def _as_replies(task: Task, adaptation: Adaptation) -> Task:
    """One reply a row, in the template before any method changes it; choices are replies too."""
    template = replace(adaptation.template, loss="last", begin="row", infix=0, invocation=())
    return replace(task, template=template, choices=None)


def _check_change(teacher: Teacher, task: Task) -> None:
    """Refuse a teacher that does what the bare base does on the task's rows."""
    sums, counts = teacher.divergences(Edits(), *_some_rows(teacher, task))
    if sum(sums) <= _NOTHING * sum(counts):
        raise InputError(
            f"this {teacher.adaptation.method.name} does what the bare base does: it is untrained, "
            "and there is nothing to convert"
        )


def _some_rows(teacher: Teacher, task: Task) -> tuple[list[Encoded], list[Example]]:
    """Training rows, evenly spaced, as the bare base has them."""
    model, pairs = teacher.model, spaced(task.pairs("train"), _LOOKED_AT)
    room = max_row_tokens(model.shape.context, teacher.max_length)
    rows = [task.template.encode(model.tokenizer, *pair, room) for pair in pairs]
    return rows, [example for example, _ in pairs]


def _start(
    teacher: Teacher, method: Method, task: Task, config: TrainConfig
) -> tuple[State, LeftOut | None, TrainConfig]:
    """The method's own start, or the fit of a change of weights, and the rate that goes with it."""
    model = teacher.model
    start = method.init(model, task, torch.Generator().manual_seed(config.seed))
    if not _can_fit(teacher, method):
        return start, None, config
    assert isinstance(method, LoRA)
    batches = [teacher.batch([row]) for row in teacher.rows(*_some_rows(teacher, task))]
    start, left_out = fit(model, teacher.edits, method, start, batches)
    if config.learning_rate is None:
        config = replace(config, learning_rate=_FROM_A_FIT * method.rate_on(model.scale))
    return start, left_out, config


def _as_it_starts(model: FrozenLM, method: Method, task: Task, start: State) -> Adaptation:
    """Before any step, in memory of its own: training moves what it starts from."""
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
