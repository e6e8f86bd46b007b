"""Evaluation scores what was generated, and counts what the prompt costs."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rouge_score.rouge_scorer import RougeScorer

from peftlab.errors import InputError
from peftlab.evaluate import evaluate, split_loss
from peftlab.generate import Request, generate
from peftlab.methods import parse_one
from peftlab.train import TrainConfig, train
from tests.laws import world


def test_scores_are_those_of_the_generated_texts() -> None:
    model, task = world.model("gpt2"), world.task()
    trained = train(model, parse_one("lora"), task, TrainConfig(steps=2, batch_size=4))
    found = evaluate(model, trained.adaptation, task, metrics=("rouge1", "rougeL"), batch_size=4)
    requests = [Request(trained.adaptation, e, task.max_new_tokens) for e in task.test]
    texts = [reply.text for reply in generate(model, requests)]
    assert [reply.text for reply in found.replies] == texts
    scorer = RougeScorer(["rouge1", "rougeL"], use_stemmer=False)
    for name in ("rouge1", "rougeL"):
        each = [
            max(scorer.score(target, text)[name].fmeasure for target in example.targets)
            for example, text in zip(task.test, texts, strict=True)
        ]
        assert found.scores.per_example[name] == pytest.approx(each)


@pytest.mark.parametrize(
    ("spec", "more"), [("prompt_tuning:length=5", 5), ("prefix_tuning:length=7", 7)]
)
def test_context_tokens_count_the_soft_prompt(spec: str, more: int) -> None:
    model, task = world.model("gpt2"), world.task()
    config = TrainConfig(steps=1, batch_size=2)
    bare, soft = (
        evaluate(model, train(model, parse_one(s), task, config).adaptation, task, limit=3)
        for s in ("hard_prompt", spec)
    )
    assert soft.context_tokens == pytest.approx(bare.context_tokens + more)


def test_split_loss_is_the_loss_that_training_reports() -> None:
    model, task = world.model("gpt2"), world.task()
    trained = train(model, parse_one("prefix_tuning"), task, TrainConfig(steps=2, batch_size=4))
    found = split_loss(model, trained.adaptation, task, "validation")
    assert found.loss == pytest.approx(trained.validation_loss, abs=1e-5)
    assert sum(found.sums) / sum(found.counts) == pytest.approx(found.loss)


def test_an_empty_split_is_one_clear_error() -> None:
    model, task = world.model("gpt2"), replace(world.task(), test=[])
    adaptation = train(model, parse_one("hard_prompt"), task).adaptation
    for look in (evaluate, lambda m, a, t: split_loss(m, a, t, "test")):
        with pytest.raises(InputError, match="test split"):
            look(model, adaptation, task)
