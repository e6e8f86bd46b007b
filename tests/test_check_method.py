"""Our own methods keep every law that others' methods are held to; broken ones break theirs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch

from peftlab.cli.app import run
from peftlab.edits import Edits, LinearEdit
from peftlab.laws import LAWS, check_method
from peftlab.methods import REGISTRY, Count, Method, Shapes, State, parse_one
from tests.laws import world

_COMPOSED = "lora:rank=2+prompt_tuning:length=3"


@pytest.mark.parametrize("spec", [*sorted(REGISTRY), _COMPOSED])
def test_our_own_methods_keep_all_laws(spec: str) -> None:
    findings = list(check_method(parse_one(spec), world.model("gpt2"), world.task()))
    assert [finding for finding in findings if finding.problem] == []
    assert [finding.name for finding in findings] == [law.name for law in LAWS]


@pytest.mark.parametrize(
    ("spec", "reasons"),
    [
        (
            "hard_prompt",
            {
                "the start is the base, where claimed": "it does not claim to start as the base",
                "training changes the output": "it trains no numbers",
                "a share of the base is the largest size that stores no more": "no setting of it",
            },
        ),
        ("full", {"nothing changes below the lowest block": "the first block"}),
        (_COMPOSED, {"settings are a frozen dataclass with defaults": "it is composed"}),
    ],
)
def test_a_law_that_says_nothing_of_a_method_is_not_applicable(
    spec: str, reasons: dict[str, str]
) -> None:
    findings = list(check_method(parse_one(spec), world.model("gpt2"), world.task()))
    for name, reason in reasons.items():
        (told,) = [x.not_applicable for x in findings if x.name.startswith(name)]
        assert told is not None and reason in told
    assert sum(x.not_applicable is None for x in findings) > 10


def test_the_command_says_which_laws_are_not_applicable(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["check-method", "hard_prompt", "--device", "cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    at = lines.index("not applicable  training changes the output")
    assert lines[at + 1].strip() == "it trains no numbers"
    assert "ok              saved and loaded is the same" in lines


@dataclass(frozen=True, kw_only=True)
class Shift(Method):
    """A trained bias of one projection; the tests break it in one way each."""

    sites: ClassVar = ("linear",)
    starts_as_base: ClassVar = True
    name: ClassVar = "shift"

    size: int = 32

    def _path(self, model: Any) -> str:
        return str(model.shape.targets(["o"], [1])[0].linear.path)

    def init(self, model: Any, task: Any, rng: torch.Generator) -> State:
        return State({"shift": torch.zeros(32)})

    def edits(self, state: State, model: Any, seed: int | None = None) -> Edits:
        return Edits(linear={self._path(model): LinearEdit(bias=state.tensors["shift"])})

    def stored(self, shape: Any) -> Shapes:
        return {"shift": (32,)}


class Drawn(Shift):
    def init(self, model: Any, task: Any, rng: torch.Generator) -> State:
        return State({"shift": torch.randn(32)})


class Miscounted(Shift):
    def count(self, shape: Any) -> Count:
        return Count(32, 31)


class Unrated(Shift):
    def groups(self, state: State, rate: float, scale: Any) -> list[dict[str, Any]]:
        return []


class Started(Shift):
    def init(self, model: Any, task: Any, rng: torch.Generator) -> State:
        return State({"shift": torch.arange(32.0)})  # a norm would take a constant out again


class Idle(Shift):
    def edits(self, state: State, model: Any, seed: int | None = None) -> Edits:
        return Edits()


class Detached(Shift):
    def edits(self, state: State, model: Any, seed: int | None = None) -> Edits:
        return super().edits(state, model).detach()


class Careless(Shift):
    """Keeps a cache between calls, so that later states get the first one's edits."""

    kept: ClassVar[list[Edits]] = []

    def edits(self, state: State, model: Any, seed: int | None = None) -> Edits:
        if not self.kept:
            self.kept.append(super().edits(state, model).detach())
        return self.kept[0]


@pytest.mark.parametrize(
    ("method", "law", "reason"),
    [
        (Drawn, "the start hangs on the seed alone", "elsewhere than its generator: shift"),
        (Drawn, "the start is the base, where claimed", "logits are not the base's"),
        (Miscounted, "the count of numbers is the tensors'", "count says 32 and 31"),
        (Unrated, "every tensor has a rate", "the state has ['shift']"),
        (Started, "the start is the base, where claimed", "logits are not the base's"),
        (Idle, "training changes the output", "changes no logit by more than"),
        (
            Detached,
            "every tensor gets a gradient right after an evaluation",
            "does not require grad",
        ),
        (Careless, "training changes the output", "changes no logit by more than"),
        (Shift, "settings come back from JSON, and from the label", "unknown method 'shift'"),
    ],
)
def test_a_broken_method_breaks_its_law(method: type[Method], law: str, reason: str) -> None:
    laws = {x.name: x.problem for x in check_method(method(), world.model("gpt2"), world.task())}
    assert reason in str(laws[law])
    assert laws["the base stays untouched"] is None
