"""A guest is trained, evaluated and saved as our own methods are; PEFT's IA3 equals ours."""

from __future__ import annotations

import json
import os
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import peft
import pytest
import torch

from peftlab import guests
from peftlab.errors import InputError
from peftlab.evaluation import AdaptedLM, evaluate, split_loss, text_loss
from peftlab.guests import AdaptedGuest, Guest, PlainBase
from peftlab.methods import parse_one
from peftlab.tasks import Decoding
from peftlab.training import TrainConfig, train
from peftlab.training.result import Interrupted
from tests.laws import world
from tests.models import tiny

CONFIG = TrainConfig(
    steps=6, batch_size=4, accumulation=2, evaluate_every=3, learning_rate=0.02, warmup=0.3
)
OURS = {"gpt2": "ia3:targets=c_attn", "llama": "ia3"}
THEIRS = {
    "gpt2": "peft:ia3,target_modules=c_attn+mlp.c_proj,feedforward_modules=mlp.c_proj+",
    "llama": "peft:ia3,target_modules=k_proj+v_proj+down_proj,feedforward_modules=down_proj+",
}


@pytest.fixture(autouse=True)
def _deprecations_of_peft() -> Iterator[None]:
    """PEFT still reads names that transformers 5 has deprecated; that is between the two."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def _base(family: str) -> PlainBase:
    return PlainBase(tiny(family), world.tokenizer(), family)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_every_step_loses_what_ours_loses(family: str, smoothing: float) -> None:
    """Both start from ones, so that order, loss, clipping, schedule and best state must agree."""
    config = replace(CONFIG, label_smoothing=smoothing)
    own = train(world.model(family), parse_one(OURS[family]), world.task(), config)
    guest = guests.train(_base(family), Guest.parse(THEIRS[family]), world.task(), config)
    assert guest.losses == pytest.approx(own.losses, rel=1e-4)
    assert guest.losses[0] > guest.losses[-1] * 1.001
    assert guest.validation_loss == pytest.approx(own.validation_loss, rel=1e-4)
    assert (guest.steps, guest.best_step) == (own.steps, own.best_step)
    count = parse_one(OURS[family]).count(world.model(family).shape)
    assert (guest.adaptation.trainable, guest.adaptation.stored) == (count.trainable, count.stored)


@pytest.mark.parametrize(
    "decoding",
    [
        Decoding(),
        Decoding(min_new_tokens=4, no_repeat_ngram=2),
        Decoding(beams=3, length_penalty=0.8),
    ],
)
def test_losses_and_texts_are_those_of_ours(decoding: Decoding) -> None:
    model, task = world.model("llama"), world.task()
    own = train(model, parse_one(OURS["llama"]), task, CONFIG).adaptation
    guest = guests.train(_base("llama"), Guest.parse(THEIRS["llama"]), task, CONFIG).adaptation
    adapted = AdaptedLM(model, own), AdaptedGuest(guest)
    expected, got = (split_loss(one, task, "test") for one in adapted)
    assert got.sums == pytest.approx(expected.sums, rel=1e-3)
    assert (got.counts, got.truncated) == (expected.counts, expected.truncated)
    documents = [example.source for example in task.test]
    assert guests.text_loss(guest, documents, 9) == pytest.approx(
        text_loss(model, own, documents, window=9), rel=1e-4
    )
    texts, again = (evaluate(one, task, decoding=decoding) for one in adapted)
    assert [r.tokens for r in again.replies] == [r.tokens for r in texts.replies]
    assert [r.text for r in again.replies] == [r.text for r in texts.replies]
    assert [r.finished for r in again.replies] == [r.finished for r in texts.replies]
    assert again.scores.corpus == texts.scores.corpus
    assert again.context_tokens == texts.context_tokens


@pytest.mark.parametrize(
    ("family", "spec"),
    [
        ("llama", "peft:oft,oft_block_size=8"),
        ("llama", "peft:vera,r=8"),
        ("llama", "peft:adalora,target_modules=q_proj+v_proj,tinit=1,tfinal=1,init_r=4,target_r=2"),
        ("llama", "peft:hra,r=2,target_modules=q_proj+"),
        ("llama", "peft:ln_tuning,target_modules=input_layernorm+"),
        ("llama", "peft:prompt_tuning,num_virtual_tokens=4"),
        ("llama", "peft:prefix_tuning,num_virtual_tokens=4"),
        ("gpt2", "peft:fourierft,n_frequency=50,target_modules=c_attn+"),
        ("gpt2", "peft:vera,r=8"),
        ("qwen3", "peft:boft,boft_block_size=4,target_modules=q_proj+"),
    ],
)
def test_methods_that_we_do_not_have(family: str, spec: str, tmp_path: Path) -> None:
    base, task = _base(family), world.task()
    before = {n: p.clone() for n, p in base.model.named_parameters()}
    guest = Guest.parse(spec)
    trained = guests.train(base, guest, task, CONFIG)
    untrained = guests.GuestModel(_base(family), guest, steps=CONFIG.steps)
    learnt, before_it = (
        split_loss(AdaptedGuest(m), task, "train") for m in (trained.adaptation, untrained)
    )
    assert learnt.loss < before_it.loss
    assert trained.adaptation.virtual_tokens == guest.options.get("num_virtual_tokens", 0)
    result = evaluate(AdaptedGuest(trained.adaptation), task)
    assert len(result.replies) == len(task.test)
    assert 0 < trained.adaptation.trainable < base.shape.size
    own = {n.replace("base_layer.", ""): p for n, p in base.model.named_parameters()}
    assert all(torch.equal(own[n], before[n]) for n in before if n in own)
    loss = split_loss(AdaptedGuest(trained.adaptation), task, "test").loss
    trained.adaptation.save(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PEFT about what it has saved itself
        again = peft.PeftModel.from_pretrained(tiny(family), tmp_path).eval()
    assert _loss(again, task) == pytest.approx(loss, rel=1e-5)


def _loss(model: Any, task: Any) -> float:
    """By hand, a row at a time."""
    total, count = 0.0, 0
    for example, target in task.pairs("test"):
        row = task.template.encode(world.tokenizer(), example, target, 90)
        with torch.no_grad():
            logits = model(torch.tensor([row.ids])).logits[0, -len(row.ids) :]
        wanted = torch.tensor(row.ids[row.target_start :])
        kept = logits[row.target_start - 1 : -1]
        total += float(torch.nn.functional.cross_entropy(kept, wanted, reduction="sum"))
        count += len(wanted)
    return total / count


def test_adalora_moves_its_ranks_and_pays_its_regulariser() -> None:
    spec = "peft:adalora,target_modules=q_proj+v_proj,tinit=1,tfinal=1,init_r=4,target_r=1"
    heavy = f"{spec},orth_reg_weight=50.0"
    runs = [
        guests.train(_base("llama"), Guest.parse(s), world.task(), CONFIG) for s in (spec, heavy)
    ]
    pattern = runs[0].adaptation.peft.peft_config["default"].rank_pattern
    assert any(not all(ranks) for ranks in pattern.values())  # some ranks were given up
    assert runs[1].losses[0] > runs[0].losses[0] + 1


@contextmanager
def _stopping(*_: Any) -> Iterator[Any]:
    """A display that sends SIGTERM after the fourth step."""

    def show(step: int, *_: float) -> None:
        if step == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    yield show


def test_interrupted_and_continued_is_uninterrupted(tmp_path: Path) -> None:
    spec, task = Guest.parse("peft:oft,oft_block_size=8,module_dropout=0.3"), world.task()
    whole = guests.train(_base("llama"), spec, task, CONFIG)

    with pytest.raises(Interrupted):
        guests.train(_base("llama"), spec, task, CONFIG, folder=tmp_path, display=_stopping)
    rest = guests.train(_base("llama"), spec, task, CONFIG, folder=tmp_path)
    assert rest.losses == whole.losses
    assert all(
        torch.equal(rest.adaptation.tensors[n], whole.adaptation.tensors[n])
        for n in whole.adaptation.tensors
    )


DEFAULTS = [
    {"repetition_penalty": 5.0},
    {"do_sample": True, "temperature": 5.0, "top_k": 3, "top_p": 0.3, "min_p": 0.2},
    {"no_repeat_ngram_size": 1, "bad_words_ids": [[5], [9]], "sequence_bias": [[[7], 20.0]]},
    {"suppress_tokens": list(range(20, 70)), "begin_suppress_tokens": list(range(70, 120))},
    {"forced_eos_token_id": 2, "exponential_decay_length_penalty": (0, 9.0), "max_time": 1e-9},
    {"min_length": 400, "min_new_tokens": 6, "eos_token_id": [*range(3, 60)]},
    {"num_beams": 4, "early_stopping": True, "length_penalty": -3.0, "num_return_sequences": 2},
]


def _replies(folder: Path, defaults: dict[str, Any]) -> list[list[tuple[int, ...]]]:
    """By decoding, those of a guest on a checkpoint with these defaults."""
    tiny("llama").save_pretrained(folder)
    world.tokenizer().save_pretrained(folder)
    (folder / "generation_config.json").write_text(json.dumps(defaults))
    guest = guests.GuestModel(PlainBase.load(folder), Guest.parse(THEIRS["llama"]), steps=1)
    return [
        [
            reply.tokens
            for reply in evaluate(AdaptedGuest(guest), world.task(), decoding=decoding).replies
        ]
        for decoding in (Decoding(), Decoding(beams=2), Decoding(sample=True))
    ]


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> list[list[tuple[int, ...]]]:
    """Replies on a checkpoint without defaults."""
    return _replies(tmp_path_factory.mktemp("bare"), {})


@pytest.mark.parametrize("defaults", DEFAULTS)
def test_the_generation_config_of_the_base_decides_nothing(
    defaults: dict[str, Any], bare: list[list[tuple[int, ...]]], tmp_path: Path
) -> None:
    assert _replies(tmp_path, defaults) == bare


def test_the_base_drops_nothing_out() -> None:
    """GPT-2 comes with dropout 0.1 in its blocks, which our own base has switched off."""
    base = PlainBase(tiny("gpt2", resid_pdrop=0.5, attn_pdrop=0.5), world.tokenizer(), "gpt2")
    model = guests.GuestModel(base, Guest.parse("peft:vera,r=4"), steps=1)
    model.peft.train()
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        assert torch.equal(model.peft(ids).logits, model.peft(ids).logits)


def test_what_cannot_be_done_is_said() -> None:
    task = world.task()
    with pytest.raises(InputError, match=r"cannot put peft:oft into gpt2 \(gpt2\).*target_modules"):
        guests.train(_base("gpt2"), Guest.parse("peft:oft,target_modules=nothing+"), task, CONFIG)
    with pytest.raises(InputError, match="cannot run by itself"):
        spec = "peft:multitask_prompt_tuning,num_virtual_tokens=2,num_tasks=2"
        guests.train(_base("gpt2"), Guest.parse(spec), task, CONFIG)
