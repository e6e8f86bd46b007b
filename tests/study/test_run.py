"""Studies from end to end, on a tiny base."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from peftlab.comparison.plan import Run
from peftlab.errors import InputError
from peftlab.methods import parse, parse_one
from peftlab.records.figures import named
from peftlab.records.record import Record
from peftlab.study import find, look
from peftlab.study.base import Axis, Panel, Setting, Study, Variant
from peftlab.study.make import Quiet, drawn, shortened
from peftlab.study.page import write
from peftlab.study.result import Result, as_csv
from peftlab.study.run import carry_out
from peftlab.tasks import Task
from peftlab.training import TrainConfig
from tests.study.conftest import Make


class Counting(Quiet):
    """Remembers which runs were really made, and what was measured besides."""

    def __init__(self) -> None:
        self.made: list[str] = []
        self.measured: list[str] = []

    def started(self, run: Run) -> None:
        self.made.append(run.label)

    def measuring(self, label: str) -> None:
        self.measured.append(label)


class Few(Study):
    """Prompts of the lengths that are asked for, and the bare template; no other yardstick."""

    name: ClassVar = "few"
    title: ClassVar = "How long?"
    source: ClassVar = "nobody"
    axis: ClassVar = Axis("length")
    takes: ClassVar = frozenset({"values", "methods"})

    def variants(self, setting: Setting, task: Task) -> list[Variant]:
        prompts = [
            Variant(series="prompts", method=parse_one(f"prompt_tuning:length={int(x)}"), x=x)
            for x in setting.values
        ]
        return [*prompts, Variant(series="asked", method=parse_one("hard_prompt"))]

    def words(self, panel: Panel) -> list[str]:
        return [f"{panel.quantity}: {len(panel.points)} points"]


@pytest.fixture(scope="module")
def whole(base: str, task: Task, tmp_path_factory: pytest.TempPathFactory) -> Setting:
    """Two lengths and the bare template, two seeds; finished."""
    made = Setting(
        models=(base,),
        shape=look.shape(base),
        tasks=(replace(task, metrics=("rougeL", "chrf")),),
        config=TrainConfig(steps=2, batch_size=4, evaluate_every=0),
        seeds=(0, 1),
        metrics=("rougeL", "chrf", "loss"),
        out=tmp_path_factory.mktemp("studies"),
        values=(1.0, 2.0),
    )
    carry_out(Few(), made, None, "peftlab study few")
    return made


def test_a_study_is_made_once_and_read_again(whole: Setting) -> None:
    again = Counting()
    result = carry_out(Few(), whole, again, "peftlab study few")
    assert again.made == [], "nothing is made twice"
    assert Result.read(whole.out / "few") == result
    assert [panel.quantity for panel in result.panels] == ["ROUGE-L", "chrF", "test loss"]
    assert [point.x for point in result.panels[0].points] == [1.0, 2.0]
    assert [level.name for level in result.panels[0].levels] == ["asked"]
    assert result.words == ["ROUGE-L: 2 points", "chrF: 2 points", "test loss: 2 points"]
    assert result.caution == "", "two seeds"


def test_another_study_shares_the_runs(whole: Setting) -> None:
    watcher = Counting()
    fewer = replace(whole, values=(2.0,), metrics=("loss",))
    result = carry_out(Few(), fewer, watcher)
    assert watcher.made == [] and [point.x for point in result.panels[0].points] == [2.0]


def test_values_are_those_of_the_records(whole: Setting) -> None:
    result = carry_out(Few(), whole)
    records = [Record.read(p) for p in whole.out.glob("runs/*/*length=2-*/seed-*/record.json")]
    assert len(records) == 2
    for panel, values in zip(
        result.panels,
        (
            [r.scores["rougeL"] for r in records],
            [r.scores["chrf"] for r in records],
            [r.loss.test for r in records],
        ),
        strict=True,
    ):
        point = panel.points[-1]
        assert sorted(point.seeds) == pytest.approx(sorted(values))
        assert point.value == pytest.approx(sum(values) / 2)
        assert point.low is not None and point.high is not None
        assert point.low - 1e-9 <= point.value <= point.high + 1e-9
        assert {p.standing for p in panel.points} <= {"best", "tied", "undecided", "below"}
        assert sum(p.standing == "best" for p in panel.points) == 1


def test_files_of_a_study(whole: Setting) -> None:
    result = carry_out(Few(), whole)
    folder = whole.out / "few"
    files = {path.name for path in write(folder, result)}
    assert {"study.html", "figure.svg", "study.csv"} <= files
    values: dict[str, Any] = json.loads((folder / "study.json").read_text())
    assert values["study"] == "few"
    rows = list(csv.DictReader(io.StringIO(as_csv(result))))
    assert len(rows) == 3 * (2 + 1), "three panels of two points and a level"
    assert rows[0]["method"] == "prompt_tuning:length=1" and rows[0]["seeds"] == "2"


def test_damaged_predictions_are_one_clear_error(whole: Setting) -> None:
    (path,) = whole.out.glob("runs/*/*length=2-*/seed-0/predictions.jsonl")
    text = path.read_text()
    path.write_text(text[:-3])
    with pytest.raises(InputError, match="damaged"):
        carry_out(Few(), whole)
    path.write_text(text)


def test_few_test_examples_have_no_intervals(setting: Make, task: Task) -> None:
    short = replace(task, test=task.test[:3])
    result = carry_out(Few(), setting(tasks=(short,), values=(2.0,)))
    assert result.panels[0].points[0].low is None
    assert any("3 test examples are too few for intervals" in text for text in result.problems)


@pytest.mark.slow
def test_failed_runs_are_named_and_left_out(setting: Make) -> None:
    """A prompt of 96 fills the tiny base's context; its run fails, the others stand."""
    result = carry_out(Few(), setting(values=(2.0, 96.0)))
    assert [point.x for point in result.panels[0].points] == [2.0]
    (problem,) = result.problems
    assert "prompt_tuning:length=96" in problem and "leaves no room for text" in problem
    with pytest.raises(InputError, match=r"few: no run on .* could be used"):
        carry_out(Few(), setting(values=(96.0,)))


@pytest.mark.slow
def test_fewer_rows_are_other_data_of_the_same_task(setting: Make, task: Task) -> None:
    made = setting(values=(4.0, 24.0), methods=tuple(parse("bitfit")), seeds=(0, 1))
    result = carry_out(find("data"), made)
    records = [Record.read(path) for path in made.out.glob("runs/*/bitfit*/seed-*/record.json")]
    by_rows = {rows: [r for r in records if r.task.train_rows == rows] for rows in (4, 24)}
    assert len(by_rows[4]) == len(by_rows[24]) == 2
    assert len({r.task.fingerprint for r in by_rows[4]}) == 2, "each seed draws its own examples"
    assert len({r.task.fingerprint for r in by_rows[24]}) == 1
    assert {point.x for point in result.panels[0].points} == {4.0, 24.0}


def test_drawn_rows_are_nested_and_shrink_validation(task: Task) -> None:
    few, more = drawn(task, 3, 0), drawn(task, 8, 0)
    assert len(few.train) == 3 and len(few.validation) == 3 and len(few.test) == len(task.test)
    assert {e.source for e in few.train} < {e.source for e in more.train}
    assert {e.source for e in drawn(task, 8, 1).train} != {e.source for e in more.train}
    assert few.source.fingerprint != task.source.fingerprint


def test_a_share_of_any_budget() -> None:
    assert shortened(TrainConfig(steps=10), 0.25).steps == 2
    assert shortened(TrainConfig(tokens=1000), 0.25).tokens == 250
    assert shortened(TrainConfig(epochs=2.0), 0.25).epochs == 0.5
    assert shortened(TrainConfig(steps=10), 0.001).steps == 1


def test_options_that_a_study_has_no_use_for(setting: Make, task: Task) -> None:
    for name, changes, said in (
        ("init", {"values": (1.0,)}, "--values"),
        ("rank", {"words": ("a",)}, "--wording"),
        ("rank", {"models": ("a", "b")}, "--model twice"),
        ("rank", {"general_text": ("a",)}, "--general-text"),
        ("spectrum", {"methods": tuple(parse("lora"))}, "--methods"),
    ):
        with pytest.raises(InputError, match=f"{name} has no use for {said}"):
            carry_out(find(name), setting(**changes))
    with pytest.raises(InputError, match="--task names something twice"):
        carry_out(find("rank"), setting(tasks=(task, task)))


@pytest.mark.slow
def test_instruction_stands_at_its_context_tokens(setting: Make, task: Task) -> None:
    own = replace(task, instruction="Say it\n")
    result = carry_out(find("instruction"), setting(tasks=(own,), values=(1.0,)))
    places = {(p.series, p.name): p.x for p in result.panels[0].points}
    bare = places["wordings", "no words"]
    assert places["tuned prompt", "length 5"] == pytest.approx(bare + 5)
    assert places["wordings", "its own"] > bare
    assert places["exemplars", "1 exemplar"] > places["wordings", "its own"]
    both = places["tuned prompt + instruction", "length 5"]
    assert both == pytest.approx(places["wordings", "its own"] + 5)


@pytest.mark.slow
def test_transfer_starts_from_what_the_source_learnt(setting: Make, task: Task) -> None:
    source = replace(task, source=replace(task.source, fingerprint="1" * 64), name="other")
    made = setting(
        tasks=(task, source), values=(0.5, 1.0), methods=tuple(parse("prompt_tuning:length=3"))
    )
    watcher = Counting()
    result = carry_out(find("transfer"), made, watcher)
    assert len(result.panels) == 2 and {p.task for p in result.panels} == {task.name}
    series = result.panels[0].series()
    assert set(series) == {"from words", "from other"}
    assert [point.x for point in series["from other"]] == [1.0, 2.0]
    assert "adapter" in series["from other"][0].label
    assert result.panels[0].axis.name == "steps of training on the target"
    again = Counting()
    assert carry_out(find("transfer"), made, again) == result and again.made == []


@pytest.mark.slow
def test_forgetting_stands_at_the_rise_of_the_loss(setting: Make) -> None:
    text = ("Place 7 serves food. " * 30,)
    made = setting(values=(1.0,), methods=tuple(parse("bitfit,full")), general_text=text)
    result = carry_out(find("forgetting"), made)
    paths = made.out.glob("runs/*/full*/seed-0/record.json")
    (record,) = [Record.read(path) for path in paths]
    assert record.general is not None
    point = next(p for p in result.panels[0].points if p.series == "full")
    assert point.x == pytest.approx(record.general.after - record.general.before)


@pytest.mark.slow
def test_begin_stands_at_the_seconds_of_training(setting: Make) -> None:
    made = setting(values=(1.0,), methods=tuple(parse("lora:rank=2")))
    result = carry_out(find("begin"), made)
    panel = result.panels[0]
    assert set(panel.series()) == {"lora:rank=2", "lora:begin=cue,rank=2"}
    for series, (point,) in panel.series().items():
        name = series.replace(":", "-").replace(",", "-")
        (path,) = made.out.rglob(f"{name}-*/seed-0/record.json")
        assert point.x == pytest.approx(named("train_seconds").of(Record.read(path)))
    (sentence,) = panel.words
    assert "of lora:rank=2 is" in sentence and "of its time" in sentence


@pytest.mark.slow
def test_the_spectrum_of_a_change_and_its_cuts(setting: Make) -> None:
    made = setting(values=(2.0, 32.0))
    watcher = Counting()
    result = carry_out(find("spectrum"), made, watcher)
    first, quality, losses = result.panels
    series = first.series()
    assert set(series) == {"ΔW of full fine-tuning", "ΔW of LoRA, rank 32", "the base's W"}
    for points in series.values():
        values = [point.value for point in points]
        assert values[0] == pytest.approx(1.0) and values == sorted(values, reverse=True)
    cut = [p for p in losses.points if p.series == "full fine-tuning, cut to this rank"]
    full = next(level for level in losses.levels if level.name == "full fine-tuning")
    # 32 is the full rank of the tiny base's matrices: nothing is cut.
    assert cut[-1].x == 32 and cut[-1].value == pytest.approx(full.value, abs=1e-4)
    assert len(quality.points) == len(losses.points) == 4
    assert watcher.measured.count("full") == 1
    again = Counting()
    assert carry_out(find("spectrum"), made, again) == result
    assert again.made == again.measured == [], "measurements are kept too"
    (path,) = made.out.glob("runs/*/full*/seed-0/spectrum.json")
    path.write_text(path.read_text()[:40])
    assert carry_out(find("spectrum"), made, again) == result
    assert again.measured == ["full"] and again.made == [], "half written: measured again"


@pytest.mark.slow
def test_what_adaptations_lose_as_lora(setting: Make) -> None:
    made = setting(values=(2.0, 16.0), methods=tuple(parse("bitfit,full")))
    watcher = Counting()
    result = carry_out(find("convert"), made, watcher)
    quality, losses, divergence = result.panels
    direct = {"LoRA trained at this rank"}
    assert set(quality.series()) == set(losses.series()) == direct | {"from bitfit", "from full"}
    assert set(divergence.series()) == {"from bitfit", "from full"}
    few, many = (point.value for point in divergence.series()["from full"])
    assert 0 <= many < few, "more ranks come closer"
    assert {level.name for level in quality.levels} == {"asked in words", "bitfit", "full"}
    assert {"bitfit", "full"} <= set(watcher.measured)
    assert any("nats a token of what it was made of, bitfit" in text for text in result.words)
    again = Counting()
    assert carry_out(find("convert"), made, again) == result and again.measured == []


@pytest.mark.slow
def test_the_dimension_that_reaches_ninety_per_cent(setting: Make) -> None:
    made = setting(values=(10.0, 100.0))
    result = carry_out(find("intrinsic"), made)
    quality, losses = result.panels
    full = next(level for level in quality.levels if level.name == "full fine-tuning")
    line = next(level for level in quality.levels if level.name == "90 % of full")
    assert line.value == pytest.approx(0.9 * full.value)
    assert all(level.name != "90 % of full" for level in losses.levels)


@pytest.mark.slow
def test_scale_takes_several_bases(setting: Make, base: str, tmp_path: Path) -> None:
    """A second tiny base with one block less."""
    from peftlab.frozen.families import tiny
    from tests.tasks.tokenizers_for_tests import byte_level

    tokenizer = byte_level()
    model = tiny(
        "gpt2", vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id, num_hidden_layers=1
    )
    model.save_pretrained(tmp_path / "smaller")
    tokenizer.save_pretrained(tmp_path / "smaller")
    made = setting(models=(str(tmp_path / "smaller"), base))
    result = carry_out(find("scale"), made)
    places = sorted({point.x for point in result.panels[0].points})
    assert len(places) == 2 and places[1] == made.shape.size
    assert any("times its size" in text for text in result.words)
