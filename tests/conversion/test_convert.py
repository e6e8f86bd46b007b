"""One adaptation into another: every kind as teacher, every method with tensors as student."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

import peftlab as pl
from peftlab.cli.app import run
from peftlab.conversion import Converted, convert
from peftlab.conversion.fidelity import divergence
from peftlab.conversion.replies import answered
from peftlab.errors import InputError
from peftlab.files import read_jsonl
from peftlab.frozen.packing import pack
from peftlab.generation import Request, generate
from peftlab.loss import divergences, training_row
from peftlab.methods import REGISTRY, parse_one
from peftlab.methods.adaptation import Adaptation
from peftlab.methods.hard_prompt import unadapted
from peftlab.training import Interrupted, TrainConfig, train
from peftlab.training.steps import Distillation
from peftlab.training.teacher import Teacher
from tests.laws import world

WORDS = {
    "hard_prompt": "hard_prompt:instruction=say it in one word,shots=2",
    "discrete_search": "discrete_search:length=3",
    "prompt_tuning": "prompt_tuning:length=3",
    "p_tuning": "p_tuning:length=3",
    "prefix_tuning": "prefix_tuning:length=3",
    "llama_adapter": "llama_adapter:length=3",
    "intrinsic": "intrinsic:dimension=40",
}
KINDS = tuple(WORDS.get(name, name) for name in sorted(REGISTRY))
AT_CUE = ("lora:begin=cue", "prefix_tuning:length=3,begin=cue", "prompt_tuning:length=3,begin=cue")
STUDENTS = tuple(words for words in (*KINDS, *AT_CUE) if parse_one(words).trains)
CONFIG = TrainConfig(steps=10, batch_size=8, evaluate_every=5, learning_rate=2e-3)


@cache
def taught(method: str, family: str = "llama") -> Adaptation:
    """A teacher: a few steps at a high rate, so that it does something else than the base."""
    config = TrainConfig(steps=8, batch_size=4, learning_rate=3e-2)
    return train(world.model(family), parse_one(method), world.task(), config).adaptation


def trained_runs(out: Path, **methods: str) -> Path:
    """A folder with runs of these names, of a few steps on the demo."""
    rows = ["--limit", "40", "--batch-size", "4", "--steps", "3"]
    for name, method in methods.items():
        assert run(["train", "--method", method, "--out", str(out / name), *rows]) == 0
    return out


def bare() -> Adaptation:
    return replace(unadapted(world.model("llama")), template=world.task().template)


def kl(teacher: Adaptation, student: Adaptation, family: str = "llama") -> float:
    return divergence(Teacher(world.model(family), teacher), student, world.task().train)


def converted(teacher: Adaptation, method: str, **how: Any) -> Converted:
    given = {"config": CONFIG, "task": world.task(), "model": world.model("llama")} | how
    return convert(adaptation=teacher, method=parse_one(method), **given)


@pytest.mark.parametrize("method", (*KINDS, *AT_CUE))
def test_any_kind_teaches_a_lora(method: str, tmp_path: Path) -> None:
    teacher, model = taught(method), world.model("llama")
    made = converted(teacher, "lora:rank=4", folder=tmp_path)
    assert kl(teacher, made.adaptation) < kl(teacher, bare())
    made.adaptation.save(tmp_path / "adapter")
    again = Adaptation.load(tmp_path / "adapter", model)
    assert kl(teacher, again) == pytest.approx(kl(teacher, made.adaptation), rel=1e-4)
    alone = generate(model, [Request(again, "the cat sings", 5)])
    mixed = generate(model, [Request(one, "the cat sings", 5) for one in (teacher, again, bare())])
    assert mixed[1].tokens == alone[0].tokens


@pytest.mark.parametrize("method", STUDENTS)
def test_any_method_with_tensors_learns(method: str) -> None:
    teacher = taught("bottleneck")
    rate = 1e-2 if "intrinsic" in method else CONFIG.learning_rate
    made = converted(teacher, method, config=replace(CONFIG, learning_rate=rate))
    once = TrainConfig(steps=1, batch_size=1, learning_rate=1e-12)
    untrained = train(world.model("llama"), parse_one(method), world.task(), once).adaptation
    assert kl(teacher, made.adaptation) < kl(teacher, untrained)


@pytest.mark.parametrize("edited", [False, True], ids=["head apart", "head edited"])
def test_the_divergence_is_the_formula(edited: bool) -> None:
    """And so is its gradient."""
    model, task = world.model("gpt2"), world.task()
    teacher = Teacher(model, taught("prefix_tuning:length=3", "gpt2"))
    student = taught("full" if edited else "lora", "gpt2").edits(model)
    tensors = {n: t.clone().requires_grad_() for n, t in student.weights.items()}
    linear = {
        path: replace(edit, up=edit.up.clone().requires_grad_())
        for path, edit in student.linear.items()
        if edit.up is not None
    }
    learning = replace(student, weights=tensors, linear=linear)
    moving = [*tensors.values(), *(edit.up for edit in linear.values() if edit.up is not None)]
    pairs = task.pairs("train")[:3]
    rows = [task.template.encode(model.tokenizer, *pair, 90) for pair in pairs]
    examples = [example for example, _ in pairs]

    def student_batch() -> Any:
        return pack([training_row(row) for row in rows], [learning])

    its_rows = teacher.rows(rows, examples)
    found = divergences(model, student_batch(), teacher.batch(its_rows))
    batches = student_batch(), teacher.batch(its_rows)
    own, theirs = (torch.cat(b.split_kept(model(b))).log_softmax(1) for b in batches)
    theirs = theirs.detach()
    expected = torch.nn.functional.kl_div(own, theirs, log_target=True, reduction="none").sum(1)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    slopes = torch.autograd.grad(found.sum(), moving)
    for got, wanted in zip(slopes, torch.autograd.grad(expected.sum(), moving), strict=True):
        torch.testing.assert_close(got, wanted, atol=2e-5, rtol=1e-3)


def test_a_teacher_is_no_further_from_itself() -> None:
    for method in ("lora", "prompt_tuning:length=3", "hard_prompt:instruction=say it,shots=1"):
        assert kl(taught(method), taught(method)) == pytest.approx(0.0, abs=1e-5)


def test_an_interrupted_conversion_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = taught("bottleneck")
    whole = converted(teacher, "ia3", folder=tmp_path / "whole").adaptation
    steps, taking = [0], Distillation.take

    def take(self: Distillation, step: int, data: Any) -> Any:
        if len(steps) == 7:
            steps.append(step)
            raise Interrupted("now")
        steps.append(step)
        return taking(self, step, data)

    monkeypatch.setattr(Distillation, "take", take)
    config = replace(CONFIG, checkpoint_seconds=0.0)
    with pytest.raises(Interrupted):
        converted(teacher, "ia3", config=config, folder=tmp_path / "cut")
    del steps[8:]
    made = converted(teacher, "ia3", config=config, folder=tmp_path / "cut").adaptation
    assert steps[8] > 0
    for name, tensor in whole.state.tensors.items():
        torch.testing.assert_close(made.state.tensors[name], tensor, atol=0, rtol=0)


def test_a_checkpoint_of_another_teacher_is_not_taken_up(tmp_path: Path) -> None:
    converted(taught("bottleneck"), "ia3", folder=tmp_path)
    with pytest.raises(InputError, match="other settings; use another folder"):
        converted(taught("bitfit"), "ia3", folder=tmp_path)


def test_replies_of_the_teacher_are_sampled_once_and_kept(tmp_path: Path) -> None:
    task, path = world.task(), tmp_path / "replies-train.jsonl"

    def sampled(teacher: str, config: TrainConfig = CONFIG) -> list[str]:
        by = Teacher(world.model("llama"), taught(teacher))
        return [e.targets[0] for e in answered(by, task, config, tmp_path, 4).train]

    first = sampled("bottleneck")
    kept = path.read_text()
    assert [line["source"] for line in read_jsonl(path)] == [e.source for e in task.train]
    assert len(set(first)) > 10  # not one reply to all, as of greedy decoding here
    path.write_text("".join(kept.splitlines(keepends=True)[:7]))  # cut off after seven
    assert sampled("bottleneck")[:7] == first[:7]
    assert len(read_jsonl(path)) == len(task.train)
    assert len(sampled("bottleneck", replace(CONFIG, steps=1))) == 8  # no more than steps see
    assert sampled("lora") != first
    assert {line["by"] for line in read_jsonl(path)}.isdisjoint(
        {json.loads(kept.splitlines()[0])["by"]}
    )


def test_a_student_of_sampled_replies_comes_closer(tmp_path: Path) -> None:
    made = converted(taught("bottleneck"), "lora", replies="teacher", folder=tmp_path)
    assert kl(taught("bottleneck"), made.adaptation) < 0.9 * kl(taught("bottleneck"), bare())


def test_fidelity_is_of_the_test_split() -> None:
    task, teacher, model = world.task(), taught("bottleneck"), world.model("llama")
    made = converted(teacher, "lora:rank=4")
    found = made.fidelity
    rows = [task.template.encode(model.tokenizer, e, e.targets[0], 90) for e in task.test]
    batch = pack([training_row(row) for row in rows], [made.adaptation.edits(model)])
    taught_rows = Teacher(model, teacher).rows(rows, task.test)
    theirs = Teacher(model, teacher).batch(taught_rows)
    expected = divergences(model, batch, theirs).mean()
    assert found.divergence == pytest.approx(float(expected), rel=1e-4)
    texts = [
        [reply.text for reply in pl.evaluate(model, one, task).replies]
        for one in (teacher, made.adaptation)
    ]
    assert found.equal == sum(a == b for a, b in zip(*texts, strict=True)) / len(task.test)
    assert found.interval is not None and found.interval[0] <= found.difference
    assert found.student.bytes == sum(t.nbytes for t in made.adaptation.state.tensors.values())
    assert found.examples == 6 and found.teacher.method == "bottleneck"


def test_the_last_reply_of_a_conversation_is_learnt() -> None:
    task = replace(world.task(), template=replace(world.task().template, loss="replies"))
    teacher = taught("bottleneck")
    made = converted(replace(teacher, template=task.template), "ia3", task=task)
    assert made.adaptation.template.loss == "last"
    row = task.template.encode(world.tokenizer(), *task.pairs("train")[0], 90)
    with pytest.raises(InputError, match="one reply a row"):
        two = replace(row, spans=((2, 4), *row.spans))
        Teacher(world.model("llama"), teacher).rows([two], [task.train[0]])


def test_what_no_conversion_reaches_is_refused() -> None:
    model, task = world.model("llama"), world.task()
    with pytest.raises(InputError, match="has no tensors"):
        converted(taught("lora"), "hard_prompt")
    with pytest.raises(InputError, match="it is untrained"):
        converted(bare(), "lora")
    once = TrainConfig(steps=1, batch_size=1, learning_rate=1e-12)
    with pytest.raises(InputError, match="it is untrained"):
        converted(train(model, parse_one("lora"), task, once).adaptation, "ia3")
    with pytest.raises(InputError, match="for another base"):
        converted(taught("lora"), "ia3", model=world.model("gpt2"))
    with pytest.raises(InputError, match="no step was asked for"):
        converted(taught("prefix_tuning:length=3"), "lora", fit_only=True)
    with pytest.raises(InputError, match="leave it out"):
        converted(taught("lora"), "ia3", config=replace(CONFIG, label_smoothing=0.1))
    with pytest.raises(InputError, match="the train split of tiny is empty"):
        converted(taught("lora"), "ia3", task=replace(task, train=[]))


def test_sampled_replies_are_another_run_than_targets(tmp_path: Path) -> None:
    converted(taught("bottleneck"), "ia3", folder=tmp_path)
    with pytest.raises(InputError, match="other settings; use another folder"):
        converted(taught("bottleneck"), "ia3", folder=tmp_path, replies="teacher")


def test_both_are_measured_on_rows_that_fit_both(tmp_path: Path) -> None:
    """The longest test row fits the student and not the teacher, whose prefix takes positions."""
    task, model = world.task(), world.model("llama")
    prefix = taught("prefix_tuning:length=3")
    rows = [task.template.encode(model.tokenizer, e, None, 90) for e in task.test]
    most = max(len(row.ids) for row in rows) + task.max_new_tokens
    config = replace(CONFIG, steps=2, max_length=most)
    made = converted(prefix, "ia3", config=config, task=replace(task, long="skip"))
    assert made.fidelity.examples == sum(len(row.ids) + 6 + 3 <= most for row in rows) < len(rows)


def test_what_is_made_is_saved_before_it_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("measuring")

    monkeypatch.setattr("peftlab.conversion.distill.measured", fail)
    with pytest.raises(RuntimeError, match="measuring"):
        converted(taught("bottleneck"), "ia3", folder=tmp_path)
    made = Adaptation.load(tmp_path / "adapter", world.model("llama"))
    assert kl(taught("bottleneck"), made) < kl(taught("bottleneck"), bare())


def test_words_of_a_teacher_are_learnt_beside_its_weights() -> None:
    teacher = taught("hard_prompt:instruction=say it now+lora:rank=2")
    with pytest.raises(InputError, match="change of weights without words"):
        converted(teacher, "lora:rank=4", fit_only=True)
    made = converted(teacher, "lora:rank=4")
    assert made.left_out is not None and kl(teacher, made.adaptation) < kl(teacher, bare())


def test_a_cut_for_the_teacher_alone_is_counted() -> None:
    task = world.task()
    long = converted(taught("bottleneck"), "ia3", config=replace(CONFIG, max_length=15))
    assert long.cut == 0 and long.truncated > 0
    prompted = converted(
        taught(WORDS["prompt_tuning"]), "ia3", config=replace(CONFIG, max_length=15)
    )
    assert 0 < prompted.cut <= len(task.train) + len(task.validation)


def test_training_leaves_the_fit_and_the_teacher_alone() -> None:
    teacher = taught("lora:rank=2")
    before = {n: t.clone() for n, t in teacher.state.tensors.items()}
    converted(teacher, "lora:rank=2", config=replace(CONFIG, learning_rate=0.1))
    assert all(teacher.state.tensors[n].equal(t) for n, t in before.items())


def test_on_a_base_in_bf16() -> None:
    model, task = world.model("llama", torch.bfloat16), world.task()
    config = TrainConfig(steps=4, batch_size=8, learning_rate=3e-2)
    teacher = train(model, parse_one("bottleneck"), task, config).adaptation
    made = convert(model, teacher, parse_one("lora:rank=4"), task, config)
    assert made.steps > 0 and made.fidelity.divergence > 0
