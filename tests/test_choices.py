"""Choices by likelihood, held against lm-evaluation-harness's rules and, if it is there, itself."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from peftlab.choosing import Weighed
from peftlab.errors import InputError
from peftlab.evaluation import AdaptedLM, evaluate, evaluate_once
from peftlab.frozen.model import FrozenLM
from peftlab.methods import parse_one
from peftlab.methods.hard_prompt import unadapted
from peftlab.metrics import score
from peftlab.metrics.choices import CalibrationError
from peftlab.metrics.errors import MetricOptionError
from peftlab.tasks import Encoded, Example, Task, Template
from peftlab.tasks.fit import fitted
from peftlab.training import TrainConfig, train
from peftlab.training.rows import Rows
from tests.models import tiny
from tests.tasks.tokenizers_for_tests import SMOL, byte_level

QUESTIONS = ("Is the cat on the mat", "Is it English food", "Does it serve coffee", "A coffee shop")


def base(chat: str | None = None) -> FrozenLM:
    tokenizer = byte_level(chat=chat or False)
    return FrozenLM(tiny("llama", vocab_size=len(tokenizer)), tokenizer, "chooses")


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    path = tmp_path / "labelled.jsonl"
    rows = [
        {"text": f"{QUESTIONS[i % 4]} {i}?", "label": ("yes", "no", "no idea")[i % 3]}
        for i in range(40)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def own_options(tmp_path: Path) -> Path:
    path = tmp_path / "own.jsonl"
    rows = [
        {
            "question": f"{QUESTIONS[i % 4]} {i}?",
            "options": [f"the cat {i}", "a mat", "English and Thai food"][: 2 + i % 2],
            "answer": i % 2,
        }
        for i in range(40)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_label_tasks_take_the_likeliest_label_and_say_so(labelled: Path) -> None:
    task = Task.load(labelled)
    assert task.choices is not None and set(task.choices.options) == {"yes", "no", "no idea"}
    assert task.metrics == ("accuracy", "macro_f1", "calibration_error")
    assert task.template.joint and task.template.truncate == "start"
    assert any("The likeliest of 3 options is taken" in note for note in task.notes)
    assert any("option 'no' begins 'no idea'" in note for note in task.notes)
    assert not any("Replies end after" in note for note in fitted(task, base().tokenizer).notes)
    written = Task.load(labelled, choose=False)
    assert written.choices is None and written.metrics == ("accuracy", "macro_f1")


def test_each_row_may_have_its_own_options(own_options: Path) -> None:
    task = Task.load(own_options, choices="options", source="question", target="answer")
    assert task.choices is not None and task.choices.options == ()
    example = task.train[0]
    assert example.targets[0] in example.options and "not used" not in task.notes[0]
    rows = [json.loads(line) for line in own_options.read_text().splitlines()]
    for row in rows:
        row["answer"] = "AB"[row["answer"]]
    lettered = own_options.with_name("lettered.jsonl")
    lettered.write_text("".join(json.dumps(row) + "\n" for row in rows))
    again = Task.load(lettered, choices="options", source="question", target="answer")
    assert list(again.train) == list(task.train)
    assert Example.from_dict(json.loads(json.dumps(example.to_dict()))) == example
    model = base()
    bare = replace(unadapted(model), template=task.template)
    result = evaluate(AdaptedLM(model, bare), task)
    assert all(r.text in e.options for r, e in zip(result.replies, task.test, strict=True))
    assert [set(each) for each in result.options] == [set(e.options) for e in task.test]


@pytest.mark.parametrize("chat", [None, SMOL])
@pytest.mark.parametrize("method", ["lora", "prompt_tuning:length=3", "prefix_tuning:begin=cue"])
def test_log_likelihoods_are_the_models_own(labelled: Path, method: str, chat: str | None) -> None:
    """Each option by itself, in one plain row, whatever is read once or packed together."""
    model = base(chat)
    task = fitted(Task.load(labelled, limit=8), model.tokenizer)
    made = train(model, parse_one(method), task, TrainConfig(steps=2, batch_size=2)).adaptation
    adapted = AdaptedLM(model, made)
    result, losses = evaluate_once(adapted, task)
    template = adapted.template(task)
    for example, options, reply in zip(task.test, result.options, result.replies, strict=True):
        for option, got in options.items():
            row = template.encode(model.tokenizer, example, option, 500)
            without_end = Encoded.trained_from(row.ids[:-1], row.target_start, 0, row.begin)
            (wanted,), _ = adapted.row_losses([without_end])
            assert got == pytest.approx(-wanted, abs=1e-4)
        assert reply.text == max(options, key=options.__getitem__)
    rows = [template.encode(model.tokenizer, *pair, 500) for pair in task.pairs("test")]
    assert losses.sums == pytest.approx(adapted.row_losses(rows)[0], abs=1e-4)
    assert losses.counts == [row.targets for row in rows]


@pytest.mark.parametrize("method", ["lora", "prefix_tuning:begin=cue", "last_k:k=1"])
def test_contrast_is_the_right_ones_surprise_among_all(labelled: Path, method: str) -> None:
    """The first step's loss, by hand: the log-softmax of the options' log-likelihoods."""
    model = base()
    task = fitted(Task.load(labelled, limit=8, choice_loss="contrast"), model.tokenizer)
    steps = TrainConfig(steps=1, batch_size=8, learning_rate=1e-12)
    trained = train(model, parse_one(method), task, steps)
    adapted = AdaptedLM(model, trained.adaptation)
    template, surprises = adapted.template(task), []
    for example in task.train:
        sums = []
        for option in task.choices.options:  # type: ignore[union-attr]
            row = template.encode(model.tokenizer, example, option, 500)
            without_end = Encoded.trained_from(row.ids[:-1], row.target_start, 0, row.begin)
            sums.append(adapted.row_losses([without_end])[0][0])
        chances = torch.tensor(sums).neg().log_softmax(0)
        surprises.append(-chances[task.choices.options.index(example.targets[0])])  # type: ignore[union-attr]
    assert trained.losses[0] == pytest.approx(float(torch.stack(surprises).mean()), rel=1e-4)
    learns = TrainConfig(steps=12, batch_size=8, learning_rate=2e-2, evaluate_every=12)
    better = train(model, parse_one(method), task, learns)
    assert better.losses[-1] < trained.losses[0]


def test_what_cannot_contrast_is_refused(labelled: Path) -> None:
    model = base()
    task = fitted(Task.load(labelled, limit=8, choice_loss="contrast"), model.tokenizer)
    with pytest.raises(InputError, match="choice_loss=right"):
        train(model, parse_one("discrete_search"), task, TrainConfig(steps=1, batch_size=2))
    with pytest.raises(InputError, match="none are known"):
        Task.load(
            labelled,
            choose=None,
            labels=None,
            target="text",
            source="label",
            choice_loss="contrast",
        )


def test_the_five_scores() -> None:
    one = Weighed(("ab", "é"), np.array([-3.0, -2.0]), np.array([3.0, 1.0]), np.array([-5.0, -2.5]))
    assert one.scored("sum").tolist() == [-3, -2] and one.chosen("sum") == 1
    assert one.scored("char").tolist() == [-1.5, -2] and one.chosen("char") == 0
    assert one.scored("byte").tolist() == [-1.5, -1] and one.chosen("byte") == 1
    assert one.scored("token").tolist() == [-1, -2] and one.chosen("token") == 0
    assert one.scored("mutual").tolist() == [2, 0.5] and one.chosen("mutual") == 0


def test_calibration_error_is_guos() -> None:
    rows = np.array([[0.95, 1], [0.95, 0], [0.55, 1], [1.0, 1]])
    wanted = (abs(0.95 + 0.95 + 1.0 - 2) + abs(0.55 - 1)) / 4
    assert CalibrationError().aggregate(rows) == pytest.approx(wanted)
    with pytest.raises(MetricOptionError, match="of choices by likelihood"):
        score(["acc_norm"], ["a"], [["a"]])


BAD = [
    ({"choices": "yes"}, "two options at least were expected, or a column"),
    ({"choices": "yes,maybe"}, "not one of the labels yes, maybe"),
    ({"choices": ("yes", "no", "no idea", "yes")}, "stands twice"),
    ({"choose": False, "choices": "yes,no"}, "choose=false writes"),
]


@pytest.mark.parametrize(("options", "said"), BAD)
def test_what_cannot_be_chosen_from_is_refused(
    labelled: Path, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        Task.load(labelled, **options)


def test_rows_whose_answer_is_none_of_their_options(own_options: Path) -> None:
    about = {"choices": "options", "source": "question", "target": "answer"}
    for value, said in (({"answer": 7}, "none of the options"), ({"options": "x"}, "a list of"),
                        ({"options": ["a"]}, "two texts at least")):  # fmt: skip
        rows = [json.loads(line) for line in own_options.read_text().splitlines()]
        rows[3] |= value
        own_options.write_text("".join(json.dumps(row) + "\n" for row in rows))
        with pytest.raises(InputError, match=said) as refused:
            Task.load(own_options, **about)
        assert "line 4" in str(refused.value)
        rows[3] = rows[1]
        own_options.write_text("".join(json.dumps(row) + "\n" for row in rows))


def load_answers(folder: Path, options: Any, *answers: Any, **more: Any) -> Task:
    rows = [{"question": f"{QUESTIONS[i % 4]} {i}?", "options": options, "answer": a}
            for i, a in enumerate([*answers] * 12)]  # fmt: skip
    path = folder / "answers.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Task.load(path, choices="options", source="question", target="answer", **more)


def test_how_answers_are_read_is_said(tmp_path: Path) -> None:
    texts = load_answers(tmp_path, ["a", "b", "c"], "b", 2, "2", "C")
    assert {e.targets[0] for e in texts.train} == {"b", "c"}
    assert "Answers of train are their options' letter, number from 0, text." in texts.notes
    with pytest.raises(InputError, match="is one of the options and the place of another"):
        load_answers(tmp_path, ["1", "2", "3", "4"], 2)
    assert load_answers(tmp_path, ["1", "2", "3"], "2").train[0].targets == ("2",)
    assert load_answers(tmp_path, json.dumps(["a", "b"]), "b").train[0].options == ("a", "b")
    kept = load_answers(tmp_path, ["a", "b"], "b", None, "", -1, drop_blank=True)
    assert {e.targets for e in kept.train} == {("b",)}
    with pytest.raises(InputError, match="none of the options"):
        load_answers(tmp_path, ["a", "b"], "b", None)


def test_ends_are_taken_off_options_too(tmp_path: Path) -> None:
    model = base()
    end = model.tokenizer.eos_token
    path = tmp_path / "ends.jsonl"
    rows = [
        {"text": f"{QUESTIONS[i % 4]} {i}?", "label": f"{('yes', 'no')[i % 2]}{end}"}
        for i in range(40)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = fitted(Task.load(path), model.tokenizer)
    assert task.choices is not None and set(task.choices.options) == {"yes", "no"}
    assert all(e.targets[0] in task.choices.options for e in task.train)


def test_every_option_fits_where_they_are_held_against_each_other(tmp_path: Path) -> None:
    model = base()
    long = "it cannot be known from the English food of the city centre"
    task = load_answers(tmp_path, ["no", long], "no", choice_loss="contrast")
    task = fitted(task, model.tokenizer)
    whole = Rows(task.pairs("train"), task.template, model.tokenizer, 500, task.choices)[0]
    tight = Rows(task.pairs("train"), task.template, model.tokenizer,
                 max(len(r.ids) for r in whole.alternatives()) - 2, task.choices)[0]  # fmt: skip
    assert (
        max(len(r.ids) for r in tight.alternatives())
        <= max(len(r.ids) for r in whole.alternatives()) - 2
    )
    assert tight.dropped


def test_what_does_not_go_together_is_refused(labelled: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="name another before it"):
        Task.load(labelled, metrics="calibration_error,accuracy")
    talk = tmp_path / "talk.jsonl"
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "yes"}]
    talk.write_text("".join(json.dumps({"messages": turns, "id": i}) + "\n" for i in range(30)))
    assert Task.load(talk, choices="yes,no").choices is not None
    with pytest.raises(InputError, match="choices are of the last"):
        Task.load(talk, choices="yes,no", loss="replies")


def test_options_and_context_are_tokenised_together() -> None:
    """Where the words before an option end in no space, a token may hold some of both."""
    tokenizer = byte_level()
    template = Template("{source}{target}", joint=True)
    example = Example("the c", ("at on the mat",))
    context = tokenizer("the c", add_special_tokens=False)["input_ids"]
    whole = tokenizer("the cat on the mat", add_special_tokens=False)["input_ids"]
    ids = template.target_ids(tokenizer, "at on the mat", example)
    assert ids[:-1] == whole[len(context) :] != []


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of transformers, about the harness
@pytest.mark.slow
@pytest.mark.parametrize("adapted", [False, True])
def test_the_harness_gives_the_same_numbers(
    own_options: Path, tmp_path: Path, adapted: bool
) -> None:
    lm_eval = pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed")
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    model = base()
    names = ("acc", "acc_norm", "acc_bytes", "acc_mutual_info")
    about = {"choices": "options", "source": "question", "target": "answer"}
    about |= {"template": "Q: {source}\nA: {target}", "metrics": ",".join(names)}
    task = fitted(Task.load(own_options, **about), model.tokenizer)
    adaptation = replace(unadapted(model), template=task.template)
    folder: str | None = None
    if adapted:
        pytest.importorskip("peft")
        from peftlab.export import export

        config = TrainConfig(steps=3, batch_size=4, learning_rate=1e-2)
        adaptation = train(model, parse_one("lora"), task, config).adaptation
        folder = str(tmp_path / "peft")
        export("peft", {"own": adaptation}, model, Path(folder))
    ours = evaluate(AdaptedLM(model, adaptation), task)

    place = tmp_path / "base"
    tiny("llama", vocab_size=len(model.tokenizer)).save_pretrained(place)
    model.tokenizer.save_pretrained(place)
    rows = [
        {"question": e.source, "options": list(e.options), "gold": e.options.index(e.targets[0])}
        for e in task.test
    ]
    data = tmp_path / "test.json"
    data.write_text("\n".join(map(json.dumps, rows)))
    described = {
        "task": "own",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "Q: {{question}}\nA:",
        "doc_to_choice": "{{options}}",
        "doc_to_target": "{{gold}}",
        "metric_list": [{"metric": name} for name in names],
    }
    theirs = lm_eval.simple_evaluate(
        model=HFLM(pretrained=str(place), peft=folder, device="cpu", dtype="float32", batch_size=4),
        tasks=[described],
        task_manager=TaskManager(),
        log_samples=True,
        bootstrap_iters=0,
    )
    for name in names:
        assert ours.scores.corpus[name] == pytest.approx(theirs["results"]["own"][f"{name},none"])
    for sample in theirs["samples"]["own"]:
        wanted = [float(one[0][0]) for one in sample["resps"]][: len(sample["doc"]["options"])]
        got = list(ours.options[sample["doc_id"]].values())
        assert got == pytest.approx(wanted, abs=1e-4)
    assert all(math.isfinite(x) for each in ours.options for x in each.values())
    assert torch.is_grad_enabled()
