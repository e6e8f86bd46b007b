"""Studies from end to end, on a tiny base."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from peftlab.compare.plan import Run
from peftlab.compare.record import Record
from peftlab.errors import InputError
from peftlab.methods import parse
from peftlab.study import find
from peftlab.study.make import Quiet, drawn, shortened
from peftlab.study.page import write
from peftlab.study.result import Result, as_csv
from peftlab.study.run import carry_out
from peftlab.tasks import Task
from peftlab.train import TrainConfig
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


def test_a_study_is_made_once_and_read_again(setting: Make) -> None:
    made = setting(values=(1.0, 2.0), methods=tuple(parse("prompt_tuning")))
    watcher = Counting()
    first = carry_out(find("length"), made, watcher, "peftlab study length")
    assert len(watcher.made) == 4, "two lengths, the hard prompt and full fine-tuning"
    assert [panel.quantity for panel in first.panels] == ["ROUGE-L", "test loss"]
    assert [point.x for point in first.panels[0].points] == [1.0, 2.0]
    assert {level.name for level in first.panels[0].levels} == {
        "asked in words", "full fine-tuning",
    }  # fmt: skip
    again = Counting()
    assert carry_out(find("length"), made, again, "peftlab study length") == first
    assert again.made == [], "nothing is made twice"
    assert Result.read(made.out / "length") == first
    more = Counting()
    carry_out(find("length"), replace(made, values=(1.0, 4.0)), more)
    assert more.made == ["prompt_tuning:length=4"], "studies share runs"


def test_values_are_those_of_the_records(setting: Make) -> None:
    made = setting(values=(1.0,), methods=tuple(parse("prompt_tuning")), seeds=(0, 1))
    found = carry_out(find("length"), made)
    records = [Record.read(path) for path in made.out.glob("runs/*/prompt*/seed-*/record.json")]
    for panel, read in zip(
        found.panels, (lambda r: r.scores["rougeL"], lambda r: r.loss.test), strict=True
    ):
        (point,) = panel.points
        values = sorted(read(record) for record in records)
        assert sorted(point.seeds) == pytest.approx(values)
        assert point.value == pytest.approx(sum(values) / 2)
        assert point.low is not None and point.high is not None
        assert point.low <= point.value <= point.high
    assert found.caution == "", "two seeds"


def test_fewer_rows_are_other_data_of_the_same_task(setting: Make, task: Task) -> None:
    made = setting(values=(4.0, 24.0), methods=tuple(parse("bitfit")), seeds=(0, 1))
    found = carry_out(find("data"), made)
    records = [Record.read(path) for path in made.out.glob("runs/*/bitfit*/seed-*/record.json")]
    by_rows = {rows: [r for r in records if r.task.train_rows == rows] for rows in (4, 24)}
    assert len(by_rows[4]) == len(by_rows[24]) == 2
    assert len({r.task.fingerprint for r in by_rows[4]}) == 2, "each seed draws its own examples"
    assert len({r.task.fingerprint for r in by_rows[24]}) == 1
    assert {point.x for point in found.panels[0].points} == {4.0, 24.0}


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


def test_failed_runs_are_named_and_left_out(setting: Make, task: Task) -> None:
    """Rank 40 is above the 32 of the tiny base's matrices; its run fails, the others stand."""
    wide = setting(values=(2.0, 40.0), methods=tuple(parse("lora")))
    wide = replace(wide, shape=replace(wide.shape, hidden=64))
    found = carry_out(find("rank"), wide)
    assert [point.x for point in found.panels[0].points] == [2.0]
    (problem,) = found.problems
    assert "lora:rank=40" in problem and "above the 32" in problem


def test_nothing_to_show_is_one_clear_error(setting: Make) -> None:
    wide = setting(values=(40.0,), methods=tuple(parse("lora")))
    wide = replace(wide, shape=replace(wide.shape, hidden=64))
    with pytest.raises(InputError, match=r"rank: no run on places.* could be used"):
        carry_out(find("rank"), wide)


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


def test_metrics_of_a_whole_corpus_have_intervals(setting: Make, task: Task) -> None:
    own = replace(task, metrics=("chrf",))
    made = setting(
        tasks=(own,), metrics=("chrf",), values=(2.0,), methods=tuple(parse("prompt_tuning"))
    )
    found = carry_out(find("length"), made)
    (panel,) = found.panels
    assert panel.quantity == "chrF" and panel.points[0].low is not None


def test_few_test_examples_have_no_intervals(setting: Make, task: Task) -> None:
    short = replace(task, test=task.test[:3])
    made = setting(tasks=(short,), values=(2.0,), methods=tuple(parse("prompt_tuning")))
    found = carry_out(find("length"), made)
    assert found.panels[0].points[0].low is None
    assert any("3 test examples are too few for intervals" in text for text in found.problems)


def test_instruction_stands_at_its_context_tokens(setting: Make, task: Task) -> None:
    own = replace(task, instruction="Say it\n")
    found = carry_out(find("instruction"), setting(tasks=(own,), values=(1.0,)))
    places = {(p.series, p.name): p.x for p in found.panels[0].points}
    bare = places["wordings", "no words"]
    assert places["tuned prompt", "length 5"] == pytest.approx(bare + 5)
    assert places["wordings", "its own"] > bare
    assert places["exemplars", "1 exemplar"] > places["wordings", "its own"]
    both = places["tuned prompt + instruction", "length 5"]
    assert both == pytest.approx(places["wordings", "its own"] + 5)


def test_transfer_starts_from_what_the_source_learnt(setting: Make, task: Task) -> None:
    source = replace(task, source=replace(task.source, fingerprint="1" * 64), name="other")
    made = setting(
        tasks=(task, source), values=(0.5, 1.0), methods=tuple(parse("prompt_tuning:length=3"))
    )
    watcher = Counting()
    found = carry_out(find("transfer"), made, watcher)
    assert len(found.panels) == 2 and {p.task for p in found.panels} == {task.name}
    series = found.panels[0].series()
    assert set(series) == {"from words", "from other"}
    assert [point.x for point in series["from other"]] == [1.0, 2.0]
    assert "adapter" in series["from other"][0].label
    assert found.panels[0].axis.name == "steps of training on the target"
    again = Counting()
    assert carry_out(find("transfer"), made, again) == found and again.made == []


def test_forgetting_stands_at_the_rise_of_the_loss(setting: Make) -> None:
    text = ("Place 7 serves food. " * 30,)
    made = setting(values=(1.0,), methods=tuple(parse("bitfit,full")), general_text=text)
    found = carry_out(find("forgetting"), made)
    paths = made.out.glob("runs/*/full*/seed-0/record.json")
    (record,) = [Record.read(path) for path in paths]
    assert record.general is not None
    point = next(p for p in found.panels[0].points if p.series == "full")
    assert point.x == pytest.approx(record.general.after - record.general.before)


def test_the_spectrum_of_a_change_and_its_cuts(setting: Make) -> None:
    made = setting(values=(2.0, 32.0))
    watcher = Counting()
    found = carry_out(find("spectrum"), made, watcher)
    first, quality, losses = found.panels
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
    assert carry_out(find("spectrum"), made, again) == found
    assert again.made == again.measured == [], "measurements are kept too"


def test_half_written_measurements_are_made_again(setting: Make) -> None:
    made = setting(values=(2.0,))
    first = carry_out(find("spectrum"), made)
    (path,) = made.out.glob("runs/*/full*/seed-0/spectrum.json")
    path.write_text(path.read_text()[:40])
    again = Counting()
    assert carry_out(find("spectrum"), made, again) == first
    assert again.measured == ["full"] and again.made == []


def test_the_dimension_that_reaches_ninety_per_cent(setting: Make) -> None:
    made = setting(values=(10.0, 100.0))
    found = carry_out(find("intrinsic"), made)
    quality, losses = found.panels
    full = next(level for level in quality.levels if level.name == "full fine-tuning")
    line = next(level for level in quality.levels if level.name == "90 % of full")
    assert line.value == pytest.approx(0.9 * full.value)
    assert all(level.name != "90 % of full" for level in losses.levels)


def test_scale_takes_several_bases(setting: Make, base: str, tmp_path: Path) -> None:
    """A second tiny base with one block less."""
    from peftlab.frozen.families import tiny
    from tests.tasks.tokenizers_for_tests import byte_level

    tokenizer = byte_level()
    model = tiny("gpt2", vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id, n_layer=1)
    model.save_pretrained(tmp_path / "smaller")
    tokenizer.save_pretrained(tmp_path / "smaller")
    made = setting(models=(str(tmp_path / "smaller"), base))
    found = carry_out(find("scale"), made)
    places = sorted({point.x for point in found.panels[0].points})
    assert len(places) == 2 and places[1] == made.shape.size
    assert any("times its size" in text for text in found.words)


def test_files_of_a_study(setting: Make) -> None:
    made = setting(values=(1.0, 2.0), methods=tuple(parse("prompt_tuning")))
    found = carry_out(find("length"), made)
    folder = made.out / "length"
    files = {path.name for path in write(folder, found)}
    assert {"study.html", "figure.svg", "study.csv"} <= files
    values: dict[str, Any] = json.loads((folder / "study.json").read_text())
    assert values["study"] == "length"
    rows = list(csv.DictReader(io.StringIO(as_csv(found))))
    assert len(rows) == 2 * (2 + 2), "two panels of two points and two levels"
    assert rows[0]["method"] == "prompt_tuning:length=1"
