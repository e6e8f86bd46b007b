"""A method of another package is found through its entry point, and told off where it is broken."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path

import pytest

from peftlab.errors import InputError
from peftlab.methods import REGISTRY, parse_one, plugins

MODULE = '''
from dataclasses import dataclass
from typing import ClassVar

import torch

from peftlab.edits import Edits, LinearEdit
from peftlab.methods import Method, State


@dataclass(frozen=True, kw_only=True)
class Shift(Method):
    """A trained bias of the last block's output projection."""

    sites: ClassVar = ("linear",)
    starts_as_base: ClassVar = True
    scale: float = 1.0

    def _linear(self, shape):
        return shape.targets(["o"], [shape.layers - 1])[0].linear

    def init(self, model, task, rng):
        return State({"shift": torch.zeros(self._linear(model.shape).out_features)})

    def edits(self, state, model, seed=None):
        edit = LinearEdit(bias=self.scale * state.tensors["shift"])
        return Edits(linear={self._linear(model.shape).path: edit})

    def stored(self, shape):
        return {"shift": (self._linear(shape).out_features,)}


class Unfinished(Method):
    pass


nothing = 3
'''


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of installed packages with one of them in it."""
    (tmp_path / "shifting.py").write_text(MODULE)
    info = tmp_path / "shifting-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shifting\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    before = dict(REGISTRY)
    plugins.load.cache_clear()
    yield tmp_path
    REGISTRY.clear()
    REGISTRY.update(before)
    plugins.load.cache_clear()
    sys.modules.pop("shifting", None)


def _points(site: Path, line: str) -> None:
    text = f"[{plugins.GROUP}]\n{line}\n"
    (site / "shifting-1.0.dist-info" / "entry_points.txt").write_text(text)
    assert any(d.name == "shifting" for d in distributions())


def test_found(site: Path) -> None:
    _points(site, "shift = shifting:Shift")
    assert plugins.load() == ("shift",)
    assert plugins.load() == ("shift",)  # a second time enters nothing twice
    method = parse_one("shift:scale=2")
    assert (method.name, method.settings()) == ("shift", {"scale": 2.0})


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("shift = shifting:Missing", "of the package shifting .*cannot be imported"),
        ("shift = nowhere:Shift", "No module named 'nowhere'"),
        ("shift = shifting:nothing", "is no method"),
        ("shift = shifting:Unfinished", "is no method"),
        ("lora = shifting:Shift", "has the name of another method"),
    ],
)
def test_broken(site: Path, line: str, reason: str) -> None:
    _points(site, line)
    with pytest.raises(InputError, match=reason):
        plugins.load()
