"""Training any method: it resumes exactly, learns, runs in bf16, and leaves the base alone."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from peftlab.bases.fingerprint import fingerprint
from peftlab.laws.law import law, require, untrained
from peftlab.training import TrainConfig, Trained, train

if TYPE_CHECKING:
    from peftlab.laws.trial import Trial
    from peftlab.methods.adaptation import Adaptation
    from peftlab.training.display import Display, Show

_SHORT = TrainConfig(
    steps=5,
    batch_size=2,
    accumulation=2,
    evaluate_every=2,
    validation_limit=2,
    checkpoint_seconds=0,
)
_CUTS = (1, 4)  # the steps after which the process ends
_FALL = 0.05  # of the loss of four rows in 30 steps; a rate too low by 100 gives less than 0.02


class _Killed(BaseException):
    """Stands for whatever ends a process between two instructions."""


def _killed_at(step: int) -> Display:
    """After the optimiser's step and before anything of it is written."""

    @contextmanager
    def display(*_: object) -> Iterator[Show]:
        def show(at: int, *_: float) -> None:
            if at == step:
                raise _Killed

        yield show

    return display


def logged(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without what a clock has measured."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    clock = "tokens_per_second"
    return [{k: v for k, v in json.loads(line).items() if k != clock} for line in lines]


def same_tensors(first: Trained[Adaptation], second: Trained[Adaptation]) -> bool:
    """Whether two trainings gave the same adaptation, bit for bit."""
    one, other = first.adaptation.state.tensors, second.adaptation.state.tensors
    return one.keys() == other.keys() and all(torch.equal(one[n], t) for n, t in other.items())


@law("interrupted and resumed is uninterrupted")
def interrupted(it: Trial) -> None:
    with tempfile.TemporaryDirectory() as parent:
        whole, cut = Path(parent) / "whole", Path(parent) / "cut"
        expected = train(it.model, it.method, it.task, _SHORT, folder=whole)
        steps = it.method.trains or it.method.searches
        exact = it.model.device.type == "cpu"  # other kernels need not give the same bits twice
        for step in _CUTS if steps else ():
            with suppress(_Killed):
                train(it.model, it.method, it.task, _SHORT, folder=cut, display=_killed_at(step))
                require(False, f"it takes no step {step}")
        resumed = train(it.model, it.method, it.task, _SHORT, folder=cut)
        if steps:
            checkpoint = (cut / "checkpoint.safetensors").exists()
            require(checkpoint, "no checkpoint is written")
            require(not exact or logged(cut) == logged(whole), "its log differs")
            trained = [line["step"] for line in logged(cut) if "loss" in line]
            require(trained == [1, 2, 3, 4, 5], f"the log tells of the steps {trained}")
    if not exact:
        return
    require(same_tensors(expected, resumed), "the tensors differ")
    same = expected.adaptation.state.text == resumed.adaptation.state.text
    require(same, "the text differs")
    for name in ("steps", "best_step", "validation_loss"):
        one, other = getattr(expected, name), getattr(resumed, name)
        require(one == other, f"{name} is {other} instead of {one}")


@law("it learns at its own rate", untrained)
def learns(it: Trial) -> None:
    """Four rows, again and again: their loss falls, with nothing but the method's defaults."""
    config = TrainConfig(steps=30, batch_size=4, evaluate_every=0, validation_limit=1)
    few = replace(it.task, train=it.task.train[:4])
    with tempfile.TemporaryDirectory() as folder:
        train(it.model, it.method, few, config, folder=Path(folder))
        losses = [line["loss"] for line in logged(Path(folder)) if "loss" in line]
    told = f"the loss of four rows went from {losses[0]:.3f} to {losses[-1]:.3f} in 30 steps"
    require(losses[-1] < losses[0] - _FALL, told)


@law("under bf16 autocast it trains nearly as in fp32", untrained)
def autocast(it: Trial) -> None:
    losses = []
    for precision in ("fp32", "bf16"):
        config = TrainConfig(steps=2, batch_size=3, validation_limit=4, precision=precision)
        trained = train(it.model, it.method, it.task, config)
        require(trained.validation_loss is not None, "there is no validation loss")
        losses.append(trained.validation_loss or 0.0)
        kinds = {tensor.dtype for tensor in trained.adaptation.state.tensors.values()}
        require(kinds == {torch.float32}, f"its tensors are {kinds}, float32 expected")
    # More where a trial's model rounds more: Adam's first steps have the rate's size, also where
    # rounding has turned a gradient's sign.
    bound = max(0.1, 500 * it.tolerance)
    near = 0 < abs(losses[1] - losses[0]) < bound * losses[0]
    require(near, f"the validation loss is {losses[0]} in fp32 and {losses[1]} in bf16")


@law("the base stays untouched")
def base_untouched(it: Trial) -> None:
    with suppress(Exception):  # a training that fails breaks the laws above
        trained = train(it.model, it.method, it.task, TrainConfig(steps=2, batch_size=2))
        trained.adaptation.edits(it.model)
    after = fingerprint(it.model.model.named_parameters())
    require(after == it.before, "the base's weights have been changed")
    parameters = it.model.model.named_parameters()
    loose = [name for name, p in parameters if p.requires_grad or p.grad is not None]
    require(not loose, f"{', '.join(loose)} of the base want gradients, or have some")
