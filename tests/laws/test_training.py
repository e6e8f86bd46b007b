"""Training any method: it resumes exactly, leaves the base alone, weighs by tokens, learns."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from peftlab.bases.fingerprint import fingerprint
from peftlab.frozen.packing import pack
from peftlab.loss import mean_loss, token_losses, training_row
from peftlab.training import TrainConfig, Trained, optimise, train
from peftlab.training.display import Display, Show
from tests.laws.cases import CASES, TRAINED, leaves, made, method
from tests.laws.world import FAMILIES, model, task

each_case = pytest.mark.parametrize("case", CASES)
each_trained = pytest.mark.parametrize("case", TRAINED)

_CONFIG = TrainConfig(
    steps=5,
    batch_size=2,
    accumulation=2,
    evaluate_every=2,
    validation_limit=2,
    checkpoint_seconds=0,
)


class Killed(BaseException):
    """Stands for whatever ends a process between two instructions."""


def _killed_at(step: int) -> Display:
    """After the optimiser's step and before anything of it is written."""

    @contextmanager
    def display(*_: object) -> Iterator[Show]:
        def show(at: int, *_: float) -> None:
            if at == step:
                raise Killed

        yield show

    return display


def _metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without what a clock has measured."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [
        {key: value for key, value in json.loads(line).items() if key != "tokens_per_second"}
        for line in lines
    ]


def _takes_steps(case: str) -> bool:
    return method(case).trains or method(case).searches


def same_tensors(first: Trained, second: Trained) -> bool:
    """Whether two trainings gave the same adaptation, bit for bit."""
    one, other = first.adaptation.state.tensors, second.adaptation.state.tensors
    return one.keys() == other.keys() and all(torch.equal(one[n], t) for n, t in other.items())


@each_case
def test_interrupted_and_resumed_equals_uninterrupted(
    case: str, tmp_path: Path, family: str | None = None
) -> None:
    lm = model(family or FAMILIES[CASES.index(case) % len(FAMILIES)])
    whole = train(lm, method(case), task(), _CONFIG, folder=tmp_path / "whole")
    if _takes_steps(case):
        for step in (1, 4):
            with pytest.raises(Killed):
                train(
                    lm, method(case), task(), _CONFIG,
                    folder=tmp_path / "cut", display=_killed_at(step),
                )  # fmt: skip
        assert (tmp_path / "cut" / "checkpoint.safetensors").exists()
    resumed = train(lm, method(case), task(), _CONFIG, folder=tmp_path / "cut")
    assert same_tensors(whole, resumed)
    assert whole.adaptation.state.text == resumed.adaptation.state.text
    assert (whole.steps, whole.best_step) == (resumed.steps, resumed.best_step)
    assert whole.validation_loss == resumed.validation_loss
    if _takes_steps(case):
        assert _metrics(tmp_path / "cut") == _metrics(tmp_path / "whole")
        trained = [line["step"] for line in _metrics(tmp_path / "cut") if "loss" in line]
        assert trained == [1, 2, 3, 4, 5]


@each_case
def test_the_base_is_the_same_after_training_and_evaluation(
    case: str, family: str = "llama"
) -> None:
    lm = model(family)
    trained = train(lm, method(case), task(), TrainConfig(steps=2, batch_size=2))
    trained.adaptation.edits(lm)
    assert fingerprint(lm.model.named_parameters()) == lm.fingerprint
    assert lm.fingerprint == _untouched(family)
    assert not any(p.requires_grad or p.grad is not None for p in lm.model.parameters())


@cache
def _untouched(family: str) -> str:
    from tests.models import tiny

    return fingerprint(tiny(family).named_parameters())


def _plain_descent(_: TrainConfig, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups)


@pytest.mark.parametrize("case", [case for case in TRAINED if "dropout" not in case])
def test_accumulated_equals_one_batch(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With plain descent, so that a difference of gradients is a difference of tensors.

    Rows have 1 to 3 words of target: a mean of the micro-batches' means would not pass.
    """
    monkeypatch.setattr(optimise, "optimizer", _plain_descent)
    common: dict[str, Any] = {"steps": 1, "learning_rate": 1.0, "clip": 0.0, "warmup": 0.0}
    made = [
        train(model("gpt2"), method(case), task(), TrainConfig(**common, **sizes))
        for sizes in (
            {"batch_size": 4, "accumulation": 1},
            {"batch_size": 1, "accumulation": 4},
            {"batch_size": 3, "accumulation": 2},
        )
    ]
    expected, got, other = (each.adaptation.state.tensors for each in made)
    for name, tensor in expected.items():
        torch.testing.assert_close(got[name], tensor, atol=2e-5, rtol=1e-5)
    assert any(float((other[n] - t).abs().max()) > 1e-4 for n, t in expected.items())


@each_trained
def test_it_learns_at_its_own_rate(
    case: str, tmp_path: Path, family: str = "llama", steps: int = 30
) -> None:
    """Four rows, again and again: their loss falls, with nothing but the method's defaults.

    In 30 steps on a random model; a rate that is too low by 100 moves it by less than 0.02.
    """
    config = TrainConfig(steps=steps, batch_size=4, evaluate_every=0, validation_limit=1)
    few = _only(4)
    train(model(family), method(case), few, config, folder=tmp_path)
    losses = [line["loss"] for line in _metrics(tmp_path) if "loss" in line]
    assert losses[-1] < losses[0] - 0.05


def _only(rows: int) -> Any:
    from dataclasses import replace

    return replace(task(), train=task().train[:rows])


@pytest.mark.parametrize("family", FAMILIES)
@each_trained
def test_it_runs_on_a_base_in_bf16(case: str, family: str) -> None:
    """The method's tensors stay in fp32: near the fp32 loss, all gradients there and finite."""
    it, full = made(case, family, torch.bfloat16), made(case, family)
    with torch.no_grad():
        expected = mean_loss(full.model, full.edits(full.first), full.encoded())
    state, encoded = leaves(it.first), it.encoded()
    batch = pack([training_row(e) for e in encoded], [it.edits(state)])
    losses = token_losses(it.model, batch, encoded)
    assert abs(float(losses.detach().mean()) - expected) < 0.03 * expected
    losses.sum().backward()
    for tensor in state.tensors.values():
        assert tensor.grad is not None and tensor.grad.isfinite().all()
        assert tensor.grad.dtype == torch.float32


@each_trained
def test_it_trains_under_bf16_autocast(case: str) -> None:
    lm = model(FAMILIES[TRAINED.index(case) % len(FAMILIES)])
    found = {}
    for precision in ("fp32", "bf16"):
        config = TrainConfig(steps=2, batch_size=3, validation_limit=4, precision=precision)
        trained = train(lm, method(case), task(), config)
        assert trained.validation_loss is not None
        found[precision] = trained.validation_loss
        assert all(t.dtype == torch.float32 for t in trained.adaptation.state.tensors.values())
    assert 0 < abs(found["bf16"] - found["fp32"]) < 0.1 * found["fp32"]
