"""Budgets: what is counted, when a training ends, and that steps and tokens repeat themselves."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from peftlab.errors import InputError
from peftlab.laws.training import same_tensors
from peftlab.methods import parse_one
from peftlab.training import Diverged, Interrupted, TrainConfig, train
from peftlab.training.display import Show
from tests.laws.world import model, task

CONFIG = TrainConfig(batch_size=2, evaluate_every=4, validation_limit=2)
ROWS = TrainConfig(steps=8, batch_size=2, evaluate_every=4, validation_limit=2)


@contextmanager
def interrupting(*_: object) -> Iterator[Show]:
    taken = iter(range(100))
    yield lambda *_: os.kill(os.getpid(), signal.SIGINT) if next(taken) == 1 else None


def test_a_training_token_counts_twice() -> None:
    trained = train(model("gpt2"), parse_one("lora"), task(), replace(ROWS, share=False))
    assert trained.forward_tokens == 2 * trained.tokens > 0
    assert trained.validated > 0 and trained.validated % 2 == 0, "twice, at steps 4 and 8"


def test_a_budget_of_tokens_is_used_and_not_exceeded() -> None:
    whole = train(model("gpt2"), parse_one("lora"), task(), ROWS)
    for share in (0.3, 1.0):
        amount = int(share * whole.forward_tokens)
        trained = train(model("gpt2"), parse_one("lora"), task(), replace(CONFIG, tokens=amount))
        assert (
            amount - 2 * whole.forward_tokens / whole.steps < trained.forward_tokens <= 1.2 * amount
        )
        assert trained.losses[0] == whole.losses[0]


def test_the_rate_follows_the_tokens(tmp_path: Path) -> None:
    config = replace(CONFIG, tokens=2000, warmup=0.0, learning_rate=1e-3)
    trained = train(model("gpt2"), parse_one("ia3"), task(), config, folder=tmp_path)
    lines = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
    rates = [line["lr"] for line in lines if "lr" in line]
    assert len(rates) == trained.steps > 3
    assert rates[0] == 1e-3 and rates == sorted(rates, reverse=True)
    last = rates[-1] / 1e-3  # the share of the budget that was left before the last step
    assert 0 < last < 2.5 / trained.steps


def test_a_search_pays_for_its_candidates() -> None:
    config = replace(CONFIG, batch_size=1, tokens=3000)
    search = train(model("gpt2"), parse_one("discrete_search:width=6,length=4"), task(), config)
    lora = train(model("gpt2"), parse_one("lora"), task(), config)
    assert search.steps < lora.steps / 2
    assert search.forward_tokens > search.tokens, "the pass that takes the gradient counts as well"


def test_a_search_is_validated_as_often_as_the_others(tmp_path: Path) -> None:
    config = replace(CONFIG, tokens=8000, batch_size=1, evaluate_every=60)
    counts = []
    for name in ("lora", "discrete_search:width=6,length=4"):
        train(model("gpt2"), parse_one(name), task(), config, folder=tmp_path / name[:4])
        lines = (tmp_path / name[:4] / "metrics.jsonl").read_text().splitlines()
        losses = [json.loads(line) for line in lines]
        counts.append(sum("validation_loss" in line and line["step"] > 0 for line in losses))
    assert counts[0] > 2 and abs(counts[0] - counts[1]) <= 1


def test_tokens_continue_bit_for_bit(tmp_path: Path) -> None:
    config = replace(CONFIG, tokens=1500)
    run = {"model": model("gpt2"), "method": parse_one("lora:dropout=0.2"), "task": task()}
    with pytest.raises(Interrupted, match="of 1,500 tokens"):
        train(**run, config=config, folder=tmp_path / "cut", display=interrupting)  # type: ignore[arg-type]
    cut = train(**run, config=config, folder=tmp_path / "cut")  # type: ignore[arg-type]
    whole = train(**run, config=config, folder=tmp_path / "whole")  # type: ignore[arg-type]
    assert same_tensors(cut, whole) and cut.forward_tokens == whole.forward_tokens


def test_seconds_end_a_training() -> None:
    trained = train(model("gpt2"), parse_one("ia3"), task(), replace(CONFIG, seconds=0.4))
    assert trained.steps > 1 and trained.seconds < 4


def test_one_budget_at_a_time() -> None:
    with pytest.raises(InputError, match="tokens and seconds are given"):
        TrainConfig(tokens=5, seconds=1.0)
    with pytest.raises(InputError, match="tokens is 0"):
        TrainConfig(tokens=0)


def test_divergence_names_its_step() -> None:
    config = replace(ROWS, learning_rate=1e30, warmup=0.0, clip=0.0, evaluate_every=0)
    with pytest.raises(Diverged) as error:
        train(model("gpt2"), parse_one("full"), task(), config)
    assert error.value.step >= 1 and f"step {error.value.step}" in str(error.value)
