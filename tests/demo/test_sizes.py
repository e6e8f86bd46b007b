"""Bases of several sizes: how large, where kept, made whole or not at all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from peftlab.bases import names
from peftlab.bases.layouts import parameter_shapes
from peftlab.bases.shapes import ModelShape
from peftlab.demo import pretrain, sizes
from peftlab.demo.recipe import CONTEXT, Recipe
from peftlab.errors import InputError
from peftlab.frozen import named as base

TINY = replace(sizes.SIZES["demo-0.1m"], steps=2, vocabulary_documents=200)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PEFTLAB_CACHE", str(tmp_path))
    return tmp_path


def _parameters(recipe: Recipe) -> int:
    config = {
        "model_type": "gpt2",
        "vocab_size": recipe.vocabulary,
        "n_positions": CONTEXT,
        "n_embd": recipe.width,
        "n_layer": recipe.layers,
        "n_head": recipe.heads,
    }
    return ModelShape.read(config, parameter_shapes(config)).size


def test_they_span_fifty_times_and_their_names_are_true() -> None:
    counts = {name: _parameters(recipe) for name, recipe in sizes.SIZES.items()}
    assert len(counts) >= 4
    assert max(counts.values()) > 50 * min(counts.values())
    assert {f"demo-{count / 1e6:.1f}m" for count in counts.values()} == set(counts)
    assert counts["demo-2.2m"] == _parameters(Recipe()), "the bundled model's size is among them"
    assert len({recipe.steps for recipe in sizes.SIZES.values()}) == 1, "size alone differs"


def test_a_base_is_made_once_and_loads(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sizes.SIZES, "demo-0.1m", TINY)
    assert not sizes.is_made("demo-0.1m")
    with pytest.raises(InputError, match=r"python -m peftlab.demo.sizes demo-0.1m"):
        names.located("demo-0.1m")
    made = sizes.make("demo-0.1m")
    assert made.is_relative_to(cache) and sizes.is_made("demo-0.1m")
    assert names.located("demo-0.1m") == str(made) and names.is_here("demo-0.1m")
    loaded = base.load("demo-0.1m")
    assert loaded.shape.size == sum(p.numel() for p in loaded.model.parameters())
    assert (loaded.name, loaded.shape.layers) == ("demo-0.1m", 2)

    def again(*_: object) -> None:
        raise AssertionError("it is here already")

    monkeypatch.setattr(pretrain, "pretrain", again)
    assert sizes.make("demo-0.1m") == made
    assert sizes.folder("demo-0.1m", replace(TINY, steps=3)) != made


def test_what_was_cut_off_is_not_there(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(_: Recipe, out: Path, __: int) -> None:
        out.mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr(pretrain, "pretrain", cut)
    with pytest.raises(KeyboardInterrupt):
        sizes.make("demo-0.3m")
    assert not sizes.is_made("demo-0.3m")
    assert not list((cache / "bases").iterdir())


def test_another_size_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=r'No size "demo-3m"; there are demo-0.1m, .*Did you mean'):
        sizes.make("demo-3m")
    with pytest.raises(SystemExit):
        sizes.main(["demo-0.1m", "demo-9m"])
    assert 'No size "demo-9m"' in capsys.readouterr().err
