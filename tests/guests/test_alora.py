"""PEFT's aLoRA as a guest: it begins where ours does, and says where it would not."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from peftlab import guests
from peftlab.errors import InputError
from peftlab.evaluation import AdaptedLM, evaluate, split_loss
from peftlab.export.peft import load
from peftlab.guests import AdaptedGuest, Guest, PlainBase
from peftlab.methods.lora import LoRA
from peftlab.tasks import Decoding, Example, Task, Template
from peftlab.tasks.cue import cue_ids
from peftlab.tasks.example import BeginsNowhere
from peftlab.training import TrainConfig
from tests.laws import world
from tests.models import tiny

CONFIG = TrainConfig(steps=4, batch_size=4, evaluate_every=2, learning_rate=0.05)
SPEC = "peft:lora,r=2,target_modules=q_proj+v_proj,alora_invocation_tokens=cue"
WORDS = Template("{source}\nsay it: {target}")


@pytest.fixture(autouse=True)
def _deprecations_of_peft() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def _trained(task: Task, spec: str = SPEC) -> guests.GuestModel:
    base = PlainBase(tiny("llama"), world.tokenizer(), "llama")
    return guests.train(base, Guest.parse(spec), task, CONFIG).adaptation


def test_what_it_has_learned_is_ours_from_the_cue_on(tmp_path: Path) -> None:
    task, lm = replace(world.task(), template=WORDS), world.model("llama")
    guest = _trained(task)
    guest.save(tmp_path / "guest")
    ours = load(tmp_path / "guest", lm, WORDS)
    assert isinstance(ours.method, LoRA) and ours.method.begin == "cue"
    assert not ours.template.invocation
    both = AdaptedLM(lm, ours), AdaptedGuest(guest)
    own, theirs = (split_loss(one, task, "test") for one in both)
    assert own.sums == pytest.approx(theirs.sums, rel=1e-4)
    texts = [[reply.text for reply in evaluate(one, task).replies] for one in both]
    assert texts[0] == texts[1]
    moved = [edit.up.abs().max() for edit in ours.edits(lm).linear.values() if edit.up is not None]
    assert max(moved) > 1e-3


def test_its_place_is_typed_as_ids_too() -> None:
    guest = Guest.parse("peft:lora,alora_invocation_tokens=5+17+5")
    assert guest.options["alora_invocation_tokens"] == [5, 17, 5]
    assert guest.label == "peft:lora,alora_invocation_tokens=5+17+5"
    assert Guest.parse(guest.label) == guest


def test_a_target_that_holds_its_tokens_again_is_refused() -> None:
    task = replace(world.task(), template=WORDS)
    pairs = [Example(f"source {i}", ("fine",)) for i in range(5)]
    again = Example("source", ("it is\nsay it: all over",))
    with pytest.raises(InputError, match=r"come again in the target of pair 5.*lora:begin=cue"):
        _trained(replace(task, train=[*pairs, again]))
    source = Example("here\nsay it: once", ("fine",))  # the last place is after it
    _trained(replace(task, train=[*pairs, source]))


def test_prompts_without_its_tokens_are_counted_and_none_with_them_is_refused() -> None:
    task = world.task()
    word = cue_ids(WORDS.beginning("cue"), world.tokenizer())
    ids = "+".join(map(str, word))
    spec = SPEC.replace("=cue", f"={ids}")
    bare = replace(task, template=Template("{source} so {target}"))
    with pytest.raises(InputError, match="no prompt of train holds the tokens"):
        _trained(bare, spec)
    bare = replace(bare, validation=[], test=[])
    with_one = replace(bare, train=[*task.train, Example("it\nsay it: well", ("fine",))])
    with pytest.warns(BeginsNowhere, match=rf"{len(task.train)} of {len(task.train) + 1} prompts"):
        _trained(with_one, spec)
    beams = replace(task, template=WORDS, decoding=Decoding(beams=2))
    with pytest.raises(InputError, match="cannot search with beams; lora:begin=cue can"):
        _trained(beams)
    nothing = replace(task, template=Template("{source}{target}"))
    with pytest.raises(InputError, match="no tokens in common after their source"):
        _trained(nothing)
