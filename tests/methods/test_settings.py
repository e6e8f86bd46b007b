"""Settings are checked alike whether a method is made in Python, typed, or read from a file."""

from __future__ import annotations

import copy
import math
import pickle
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

import peftlab as pl
from peftlab.bases.shapes import ModelShape
from peftlab.comparison.resolve import methods_of
from peftlab.errors import InputError, PeftlabError
from peftlab.methods import REGISTRY, Composed, Method, build, parse_one
from peftlab.verdict.declared import declared_pairs
from tests.laws.world import model, task

ODD: tuple[Any, ...] = (
    None, True, -1, 0, 2.5, 10**30, math.nan, math.inf, -0.0, "", "x", "2.5", "q+v", "{", "{p:3}",
    "a\nb", "\ud800", "²", "1-", b"x", [], (), {}, {"a": 1}, [None], ["q", 3], (0,), (10**9,),
    object(), int, np.int64(2), np.float32("nan"), lambda: 0,
)  # fmt: skip
SETTINGS = [
    pytest.param(name, item.name, id=f"{name}-{item.name}")
    for name, cls in sorted(REGISTRY.items())
    for item in fields(cls)
]


def _used(method: Method, shape: ModelShape) -> None:
    """What planning a run does with it."""
    method.check(shape)
    counted = method.count(shape)
    assert counted.trainable >= 0 and isinstance(method.label, str) and method.settings()


@pytest.mark.parametrize(("name", "setting"), SETTINGS)
def test_odd_values_work_or_end_in_one_line(name: str, setting: str) -> None:
    shape = model("llama").shape
    for value in ODD:
        said = []
        for make in (REGISTRY[name], lambda **given: build(name, given)):
            try:
                made = make(**{setting: value})
                _used(made, shape)
                said.append(repr(made))
            except PeftlabError as error:
                said.append(str(error))
                assert "\n" not in said[-1].replace("a\nb", "")
        assert said[0] == said[1], f"Python and stored settings differ for {value!r:.60}"


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("LoRA", {"rank": "x"}, r"lora: rank is 'x'; a whole number was expected"),
        ("LoRA", {"rank": 0}, r"lora: rank is 0; at least 1 was expected"),
        ("LoRA", {"rank": 2.5, "dropout": 1.0}, r"rank is 2.5; .*; lora: dropout is 1.0; less"),
        ("LoRA", {"rnk": 4}, r"lora has no setting 'rnk'; it has .*Did you mean \"rank\""),
        ("LoRA", {"cls": 4, "self": 3}, r"lora has no setting 'cls'"),
        ("PromptTuning", {"length": 2.5}, r"prompt_tuning: length is 2.5; a whole number"),
        ("BottleneckAdapter", {"kind": "pfeifer"}, r"Did you mean \"pfeiffer\""),
        ("FullFineTuning", {"rank": 1}, r"full has no setting 'rank'; it has begin"),
    ],
)
def test_what_is_built_in_python_is_checked_at_once(
    name: str, given: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        getattr(pl, name)(**given)


def test_typed_words_say_the_same() -> None:
    for words, given in (("rank=x", {"rank": "x"}), ("rank=0", {"rank": 0}), ("a=1", {"a": "1"})):
        told = []
        for make in (lambda w=words: parse_one(f"lora:{w}"), lambda g=given: pl.LoRA(**g)):
            with pytest.raises(InputError) as refused:
                make()
            told.append(str(refused.value))
        assert told[0] == told[1]


def test_values_get_their_types() -> None:
    assert pl.LoRA(rank="4", targets="q+k", layers=[1, 2], dora="true") == parse_one(
        "lora:rank=4,targets=q+k,layers=1+2,dora=true"
    )
    (made,) = {type(pl.LoRA(rank=np.int64(3)).rank)}
    assert made is int
    with pytest.raises(InputError, match=r"lora got 8; its settings go by their names"):
        pl.LoRA(8)
    with pytest.raises(InputError, match=r"rank is 0"):
        replace(pl.LoRA(), rank=0)


def test_methods_are_copied_and_sent_as_before() -> None:
    mixed = parse_one("lora:rank=4+prompt_tuning:length=3")
    for method in (pl.LoRA(rank=3, targets=("q",)), mixed):
        assert pickle.loads(pickle.dumps(method)) == copy.deepcopy(method) == method


def test_what_is_no_method_is_refused() -> None:
    for wrong in (3, None, pl.LoRA, {"rank": 3}):
        with pytest.raises(InputError, match=r"the method is .*; pl.LoRA\(rank=8\) or words"):
            pl.train(model("llama"), wrong, task(), steps=1)  # type: ignore[arg-type]
        with pytest.raises(InputError, match="the method is"):
            methods_of([wrong], task(), full=False)
    with pytest.raises(InputError, match="Composed: parts is"):
        Composed(parts=("lora",))  # type: ignore[arg-type]


def test_full_is_every_method_and_also_from_the_cue_on_where_sources_are_long() -> None:
    short = task()
    long = replace(short, train=[replace(e, source=" ".join([e.source] * 60)) for e in short.train])
    names = [[method.label for method in methods_of("", one, full=True)] for one in (short, long)]
    assert {name.partition(":")[0] for name in names[0]} == set(REGISTRY)
    at_cue = [name for name in names[1] if name not in names[0]]
    assert at_cue == [
        f"{name}:begin=cue"
        for name in names[0]
        if hasattr(REGISTRY[name.partition(":")[0]], "begin")
    ]
    assert len(at_cue) >= 10 and set(declared_pairs(names[1])) == {
        (name, name.removesuffix(":begin=cue")) for name in at_cue
    }
