"""Losses and replies of one reading are those of two, for every method."""

from __future__ import annotations

from dataclasses import replace

import pytest

from peftlab.evaluation import AdaptedLM, evaluate, evaluate_once, split_loss
from peftlab.tasks import Decoding, Task
from tests.laws.cases import CASES, made
from tests.laws.world import task


def _several() -> Task:
    """Rows with one, two and three references, of which one is a single token with its end."""
    test = [
        replace(one, targets=(*one.targets, "cat", "the old dog runs under rain")[: 1 + i % 3])
        for i, one in enumerate(task().test)
    ]
    return replace(task(), test=test)


@pytest.mark.parametrize("case", CASES)
def test_one_reading_is_as_good_as_two(case: str) -> None:
    it, rows = made(case, "llama"), _several()
    adapted = AdaptedLM(it.model, it.adaptation(it.moved))
    once, loss = evaluate_once(adapted, rows, batch_size=4)
    apart = split_loss(adapted, rows, "test")
    replies = evaluate(adapted, rows, batch_size=4).replies
    assert [reply.tokens for reply in once.replies] == [reply.tokens for reply in replies]
    assert loss.sums == pytest.approx(apart.sums, abs=1e-4)
    assert (loss.counts, loss.truncated) == (apart.counts, apart.truncated)
    assert loss.loss == pytest.approx(apart.loss, abs=1e-5)
    assert all(len(reply.target_losses) == len(one.targets) for reply, one in zip(
        once.replies, rows.test, strict=True))  # fmt: skip


def test_with_beams_too() -> None:
    it, rows = made("lora", "gpt2"), replace(_several(), decoding=Decoding(beams=3))
    adapted = AdaptedLM(it.model, it.adaptation(it.moved))
    once, loss = evaluate_once(adapted, rows, batch_size=6)
    assert loss.sums == pytest.approx(split_loss(adapted, rows, "test").sums, abs=1e-4)
    plain = evaluate(adapted, rows, batch_size=6).replies
    assert [reply.tokens for reply in once.replies] == [reply.tokens for reply in plain]


def test_a_prompt_that_is_cut_otherwise_than_its_row_is_read_apart() -> None:
    it = made("lora", "gpt2")
    long = replace(task().test[0], source="the old dog runs under rain " * 12)
    rows = replace(task(), test=[long, *task().test[1:]], max_new_tokens=30)
    adapted = AdaptedLM(it.model, it.adaptation(it.moved))
    once, loss = evaluate_once(adapted, rows)
    assert not once.replies[0].target_losses and once.replies[1].target_losses
    assert loss.sums == pytest.approx(split_loss(adapted, rows, "test").sums, abs=1e-4)
