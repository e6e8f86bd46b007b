"""What several studies need: yardsticks, and methods with one setting changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

from peftlab.errors import InputError
from peftlab.methods import Method, parse, parse_one
from peftlab.study.base import Setting, Variant, chosen, whole
from peftlab.study.result import Point
from peftlab.tasks import Task

FULL = "full fine-tuning"
ASKED = "asked in words"


def asked(task: Task) -> Method:
    """The hard prompt with the task's instruction, or the bare template where it has none."""
    return parse_one("hard_prompt:instruction=task" if task.instruction else "hard_prompt")


def levels(task: Task) -> list[Variant]:
    """The base asked in words, and full fine-tuning: what a figure's quality lies between."""
    return [
        Variant(series=ASKED, method=asked(task)),
        Variant(series=FULL, method=parse_one("full")),
    ]


def methods(setting: Setting, usual: str) -> Sequence[Method]:
    """The user's methods, or the usual ones."""
    return setting.methods or parse(usual)


def ranks(setting: Setting, usual: Sequence[int]) -> list[int]:
    """The ranks of a study: the user's, or the usual ones."""
    most = setting.shape.hidden
    return whole(chosen(setting, usual, least=1, most=most, what="a rank"), "a rank")


def changed(method: Method, **settings: Any) -> Method:
    """The method with other settings.

    Raises:
        InputError: it has no such setting.
    """
    known = {field.name for field in fields(method)}
    for name in settings:
        if name not in known:
            raise InputError(
                f"--methods {method.label}: this study varies the setting {name}, which "
                f"{method.name} has not; it has {', '.join(sorted(known)) or 'none'}"
            )
    return replace(method, **settings)


def trained_for(method: Method, share: float) -> Variant:
    """The method with a share of the budget, whose point stands at something that is measured."""
    name = f"{share:.0%}" if share < 1 else ""
    return Variant(series=method.label, method=method, x=0.0, share=share, name=name)


def place(unit: str) -> Any:
    """How a sentence names a point's place: "length 20"."""

    def at(point: Point) -> str:
        return f"{unit} {point.x:,.0f}"

    return at


def named(point: Point) -> str:
    """A point by its name."""
    return point.name
