"""Evaluation scores what was generated, and counts what the prompt costs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from rouge_score.rouge_scorer import RougeScorer
from torch.nn import functional

from peftlab.errors import InputError
from peftlab.evaluation import AdaptedLM, evaluate, split_loss, text_loss
from peftlab.generation import Request, generate
from peftlab.methods import parse_one
from peftlab.methods.adaptation import Adaptation, base_of
from peftlab.training import TrainConfig, train
from tests.laws import world
from tests.models import tiny


def test_scores_are_those_of_the_generated_texts() -> None:
    model, task = world.model("gpt2"), world.task()
    trained = train(model, parse_one("lora"), task, TrainConfig(steps=2, batch_size=4))
    evaluated = evaluate(
        AdaptedLM(model, trained.adaptation), task, metrics=("rouge1", "rougeL"), batch_size=4
    )
    requests = [Request(trained.adaptation, e, task.max_new_tokens) for e in task.test]
    texts = [reply.text for reply in generate(model, requests)]
    assert [reply.text for reply in evaluated.replies] == texts
    scorer = RougeScorer(["rouge1", "rougeL"], use_stemmer=False)
    for name in ("rouge1", "rougeL"):
        each = [
            max(scorer.score(target, text)[name].fmeasure for target in example.targets)
            for example, text in zip(task.test, texts, strict=True)
        ]
        assert evaluated.scores.per_example[name] == pytest.approx(each)


@pytest.mark.parametrize(
    ("spec", "more"), [("prompt_tuning:length=5", 5), ("prefix_tuning:length=7", 7)]
)
def test_context_tokens_count_the_soft_prompt(spec: str, more: int) -> None:
    model, task = world.model("gpt2"), world.task()
    config = TrainConfig(steps=1, batch_size=2)
    bare, soft = (
        evaluate(
            AdaptedLM(model, train(model, parse_one(s), task, config).adaptation), task, limit=3
        )
        for s in ("hard_prompt", spec)
    )
    assert soft.context_tokens == pytest.approx(bare.context_tokens + more)


def test_split_loss_is_the_loss_that_training_reports() -> None:
    model, task = world.model("gpt2"), world.task()
    trained = train(model, parse_one("prefix_tuning"), task, TrainConfig(steps=2, batch_size=4))
    split = split_loss(AdaptedLM(model, trained.adaptation), task, "validation")
    assert split.loss == pytest.approx(trained.validation_loss, abs=1e-5)
    assert sum(split.sums) / sum(split.counts) == pytest.approx(split.loss)


def test_an_empty_split_is_one_clear_error() -> None:
    model, task = world.model("gpt2"), replace(world.task(), test=[])
    adaptation = train(model, parse_one("hard_prompt"), task).adaptation
    for look in (evaluate, lambda adapted, task: split_loss(adapted, task, "test")):
        with pytest.raises(InputError, match="test split"):
            look(AdaptedLM(model, adaptation), task)


TEXT = [" ".join(["the old cat sleeps near the river", "red rain falls"][i % 2] for i in range(9))]


def test_text_loss_of_the_base_is_that_of_transformers() -> None:
    """Windows of twelve tokens; a window's first token is not predicted."""
    model = world.model("llama")
    ids = model.tokenizer(TEXT[0], add_special_tokens=False)["input_ids"]
    windows = [ids[i : i + 12] for i in range(0, len(ids), 12)]
    total, count = 0.0, 0
    for window in (w for w in windows if len(w) > 1):
        logits = tiny("llama")(torch.tensor([window])).logits[0, :-1]
        total += functional.cross_entropy(logits, torch.tensor(window[1:]), reduction="sum").item()
        count += len(window) - 1
    assert text_loss(model, None, TEXT, window=12) == pytest.approx(total / count, abs=1e-5)


@pytest.mark.parametrize("spec", ["hard_prompt", "lora", "last_k", "bottleneck"])
def test_what_starts_as_the_base_forgets_nothing(spec: str) -> None:
    model, task = world.model("gpt2"), world.task()
    method = parse_one(spec)
    state = method.materialise(method.init(model, task, torch.Generator().manual_seed(0)), model)
    adaptation = Adaptation(method, state, task.template, base_of(model))
    before = text_loss(model, None, TEXT)
    assert text_loss(model, adaptation, TEXT) == pytest.approx(before, abs=1e-6)


@pytest.mark.parametrize("spec", ["prompt_tuning:length=3", "prefix_tuning:length=3", "lora"])
def test_what_was_learnt_is_on_in_plain_text(spec: str) -> None:
    model, task = world.model("gpt2"), world.task()
    config = TrainConfig(steps=3, batch_size=4, learning_rate=0.1)
    adaptation = train(model, parse_one(spec), task, config).adaptation
    assert abs(text_loss(model, adaptation, TEXT) - text_loss(model, None, TEXT)) > 1e-3


def test_a_soft_prompt_stands_before_every_window() -> None:
    """Against transformers with the prompt's vectors put before the text's own."""
    model, task = world.model("gpt2"), world.task()
    config = TrainConfig(steps=3, batch_size=4, learning_rate=0.1)
    adaptation = train(model, parse_one("prompt_tuning:length=3"), task, config).adaptation
    plain, ids = tiny("gpt2").eval(), model.tokenizer(TEXT[0])["input_ids"][:20]
    prompt = adaptation.edits(model).embeddings
    vectors = torch.cat([prompt, plain.get_input_embeddings()(torch.tensor(ids))])
    logits = plain(inputs_embeds=vectors[None]).logits[0, 3:-1]
    expected = functional.cross_entropy(logits, torch.tensor(ids[1:])).item()
    loss = text_loss(model, adaptation, TEXT, window=20, most=20)
    assert loss == pytest.approx(expected, abs=1e-5)


def test_a_window_beside_a_long_prompt_is_refused() -> None:
    model, task = world.model("gpt2"), world.task()
    long = parse_one(f"prompt_tuning:length={model.shape.context // 2 + 1}")
    adaptation = train(model, long, task, TrainConfig(steps=1, batch_size=2)).adaptation
    with pytest.raises(InputError, match="take a shorter window"):
        text_loss(model, adaptation, TEXT)
