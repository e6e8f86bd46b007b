"""Settings on a tiny base, and results made by hand."""

# ruff: noqa: F401 - fixtures
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from peftlab.study import look
from peftlab.study.base import Setting
from peftlab.study.result import Axis, Level, Panel, Point, Result
from peftlab.tasks import Task
from peftlab.training import TrainConfig
from tests.comparison.conftest import base, data, task

Make = Callable[..., Setting]


@pytest.fixture
def setting(base: str, task: Task, tmp_path: Path) -> Make:  # noqa: F811
    """Makes a setting of 2 steps on the tiny base; keywords replace fields."""
    shape = look.shape(base)

    def make(**changes: Any) -> Setting:
        values: dict[str, Any] = {
            "models": (base,),
            "shape": shape,
            "tasks": (task,),
            "config": TrainConfig(steps=2, batch_size=4, evaluate_every=0),
            "seeds": (0,),
            "metrics": ("rougeL", "loss"),
            "out": tmp_path / "out",
        }
        return Setting(**{**values, **changes})

    return make


def point(series: str, x: float, value: float, **changes: Any) -> Point:
    """A point with an interval of ± 0.05."""
    values: dict[str, Any] = {
        "series": series, "x": x, "name": "", "label": series, "value": value,
        "low": value - 0.05, "high": value + 0.05, "seeds": (value,), "trainable": 10,
    }  # fmt: skip
    return Point(**{**values, **changes})


def panel(*points: Point, **changes: Any) -> Panel:
    """A panel of ROUGE-L by length."""
    values: dict[str, Any] = {
        "task": "t", "metric": "rougeL", "quantity": "ROUGE-L", "higher_is_better": True,
        "axis": Axis("length in positions"), "connected": True, "points": points,
        "levels": (Level("full fine-tuning", "full", 0.9, None, None, 1000),),
    }  # fmt: skip
    return Panel(**{**values, **changes})


def result(*panels: Panel, **changes: Any) -> Result:
    """A result of these panels."""
    values: dict[str, Any] = {
        "study": "length", "title": "How long?", "source": "somebody", "note": "",
        "panels": panels, "facts": (("base", "tiny"),), "command": "peftlab study length",
    }  # fmt: skip
    return Result(**{**values, **changes})
