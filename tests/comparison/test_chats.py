"""Comparisons on a base whose tokenizer has a chat template."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from peftlab.cli.watch import Shown
from peftlab.comparison.finished import finished
from peftlab.comparison.label import parse
from peftlab.comparison.plan import Plan, Run
from peftlab.comparison.profile import profile
from peftlab.comparison.run import compare
from peftlab.errors import InputError
from peftlab.methods.adaptation import Adaptation
from peftlab.tasks import Task, Template
from peftlab.tasks.chat import frame
from peftlab.tasks.tokens import let_end
from tests.comparison.test_comparison import make
from tests.models import tiny
from tests.tasks.tokenizers_for_tests import SMOL, byte_level


@pytest.fixture(scope="module")
def talks(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a tiny instruction model."""
    folder, tokenizer = tmp_path_factory.mktemp("talks"), byte_level(chat=SMOL)
    tiny("gpt2", vocab_size=len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def runs(plan: Plan) -> list[Run]:
    return profile(lambda *_: None, plan, Path("nowhere")).runs(plan)


def load(data: Path, **options: object) -> Task:
    return Task.load(data, max_new_tokens=4, instruction="Tell of it.", **options)


def test_every_method_gets_framed_rows_and_that_is_said_and_stored(
    talks: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    methods = "hard_prompt,hard_prompt:instruction=task,lora:rank=2,peft:lora"
    plan = make(talks, load(data, test_limit=3), parse(methods))
    watcher = Shown(plan, tmp_path / "out")
    records = compare(plan, tmp_path / "out", watcher).records
    said = capsys.readouterr().out
    assert said.count("Rows stand in the chat template") == 1
    assert "hard_prompt is hard_prompt:instruction=Tell of it. here" in said
    assert "hard_prompt:instruction=task" in said.split("comes to the same")[0].splitlines()[-1]
    assert [it.label for it in records] == ["hard_prompt", "lora:rank=2", "peft:lora"]
    assert records[0].settings["instruction"] == "Tell of it."
    tokenizer = byte_level(chat=SMOL)
    let_end(tokenizer, [2])  # as the base's configuration says
    own = Template("{instruction}{source}{target}").framed(frame(tokenizer))
    for path in (tmp_path / "out").glob("*/seed-0/config.json"):
        stored = json.loads(path.read_text())["task"]["template"]
        assert stored == json.loads(json.dumps(own.identity())), "of guests too"
    (lora,) = (tmp_path / "out").glob("lora*/seed-0")
    assert Adaptation.load(lora / "adapter").template == own
    (guest,) = (record for record in records if record.guest)
    assert guest.status == "finished" and guest.context_tokens == records[1].context_tokens


def test_rows_outside_of_the_chat_are_the_runs_of_before(
    talks: str, data: Path, tmp_path: Path
) -> None:
    off = make(talks, load(data, chat=False, test_limit=2), "hard_prompt")
    before = replace(off, task=replace(off.task, framing=None))
    (run,) = runs(before)
    compare(before, tmp_path / "out")
    assert finished(run, tmp_path / "out") is not None
    assert [it.config_hash for it in runs(off)] == [run.config_hash]
    framed = replace(off, task=load(data, test_limit=2))
    (other,) = runs(framed)
    assert finished(other, tmp_path / "out") is None and other.label == run.label
    dog = replace(off, task=load(data, system="Be a dog.", test_limit=2))
    assert len({it.config_hash for plan in (off, framed, dog) for it in runs(plan)}) == 3


def test_a_base_without_a_chat_template_is_asked_as_before(base: str, data: Path) -> None:
    plan = make(base, load(data), "hard_prompt,hard_prompt:instruction=task")
    bare, asked = runs(plan)
    assert bare.settled.settings()["instruction"] == "none" and bare.label == "hard_prompt"
    assert asked.settled.settings()["instruction"] == "task"
    assert not bare.task.template.chat and "frame" not in bare.resolved()["task"]["template"]
    with pytest.raises(InputError, match="has no chat template"):
        runs(replace(plan, task=load(data, chat=True)))
