"""Experiments: their files, the grid of plans that they become, and whole runs of them."""

from __future__ import annotations

import copy
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pytest
import yaml

from peftlab.cli.app import run as command
from peftlab.cli.listing import shape_of as known_shape
from peftlab.comparison.label import parse as methods
from peftlab.comparison.plan import Run
from peftlab.comparison.run import Silent
from peftlab.errors import InputError
from peftlab.experiments.grid import Overrides, Part, parts, rows_of
from peftlab.experiments.kept import read
from peftlab.experiments.run import run
from peftlab.experiments.spec import ExperimentSpec, bundled, load, parse
from peftlab.experiments.table import as_markdown, sections
from peftlab.metrics import metric_spec
from tests.experiments.specs import save_base, save_data

TABLE1, CLASSROOM = "prefix-tuning-table1", "cnn-dailymail-gpt2"
SMALL: dict[str, Any] = {
    "name": "small",
    "title": "Two tasks, two bases",
    "sources": {"us": "invented"},
    "models": ["first", "second"],
    "training": {"steps": 1, "batch_size": 2, "evaluate_every": 0},
    "tasks": {
        "webnlg_2017": {
            "title": "WebNLG",
            "columns": [
                {"title": "BLEU", "metric": "bleu-webnlg-raw", "parts": ["seen", "unseen", "all"]},
                {"title": "TER", "metric": "ter-webnlg-raw", "times": 0.01},
            ],
        },
        "dart": {
            "title": "DART",
            "columns": [{"title": "size", "cost": "trainable_parameters", "digits": 0}],
        },
    },
    "rows": [
        {
            "title": "biases",
            "method": "bitfit",
            "max_new_tokens": 4,
            "published": [
                {"model": "first", "source": "us", "webnlg_2017": [1, 2, 3, 0.5], "dart": [None]}
            ],
        },
        {"title": "words", "method": "hard_prompt", "max_new_tokens": 4},
    ],
}


@pytest.fixture(autouse=True)
def _quiet_and_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


def changed(path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    values = copy.deepcopy(SMALL)
    place: Any = values
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return values


class Counting(Silent):
    """Remembers which runs were really made."""

    made: list[str]

    def __init__(self) -> None:
        self.made = []

    def started(self, run: Run) -> None:
        self.made.append(run.label)


# --- the files ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [TABLE1, CLASSROOM])
def test_a_bundled_experiment_names_what_there_is(name: str) -> None:
    spec = load(name)
    assert spec.name == name
    for model in spec.models:
        shape = known_shape(model)
        for row in rows_of(spec, model):
            for task in spec.tasks:
                (method,) = methods(row.setting(model, task).method or "")
                method.check(shape)
    for task in spec.tasks.values():
        for column in task.columns:
            assert column.metric is None or metric_spec(column.metric)


def test_there_are_two_and_each_is_tested() -> None:
    assert set(bundled()) == {TABLE1, CLASSROOM}


def test_the_rows_have_the_published_numbers_of_parameters() -> None:
    """LoRA's tables give them in millions; FT-top2's are two blocks of 12.6 million."""
    spec = load(TABLE1)
    published = {
        ("fine-tune", "gpt2-medium"): 354.82,
        ("FT-top2", "gpt2-medium"): 25.19,
        ("adapter (3%)", "gpt2-medium"): 11.09,
        ("adapter (0.1%)", "gpt2-medium"): 0.37,
        ("fine-tune", "gpt2-large"): 774.03,
        ("adapter (3%)", "gpt2-large"): 23.00,
        ("adapter (0.1%)", "gpt2-large"): 0.88,
    }
    for (title, model), millions in published.items():
        row = next(row for row in spec.rows if row.title == title)
        (method,) = methods(row.setting(model, "e2e_nlg").method or "")
        assert method.count(known_shape(model)).stored / 1e6 == pytest.approx(millions, abs=0.006)
    rows = {row.title: row for row in load(CLASSROOM).rows}
    counts = {
        "prompt tuning, 5 tokens": 3_840,
        "LoRA": 1_032_192,
        "LoRA of one layer, second setting": 786_432,
    }
    for title, count in counts.items():
        (method,) = methods(rows[title].setting("gpt2", "cnn_dailymail").method or "")
        assert method.count(known_shape("gpt2")).trainable == count


def test_published_values_are_those_of_the_papers() -> None:
    """A few of them against the table that came with the project's brief."""
    spec = load(TABLE1)
    e2e = {
        row.title: row.published[0].values("e2e_nlg") for row in spec.rows if row.method is not None
    }
    assert e2e["fine-tune"] == (68.2, 8.62, 46.2, 71.0, 2.47)
    assert e2e["FT-top2"] == (68.1, 8.59, 46.0, 70.8, 2.41)
    assert e2e["adapter (3%)"] == (68.9, 8.71, 46.1, 71.3, 2.47)
    assert e2e["adapter (0.1%)"] == (66.3, 8.41, 45.0, 69.8, 2.40)
    assert e2e["prefix (0.1%)"] == (69.7, 8.81, 46.1, 71.4, 2.49)
    assert e2e["LoRA"] is not None and e2e["LoRA"][0] == 70.4


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("rows", 0, "published", 0, "dart"), [1, 2], "publishes 2 values for dart.*1 columns"),
        (("rows", 0, "published", 0, "source"), "them", "names the source 'them'"),
        (("rows", 0, "published", 0, "model"), "frist", 'Did you mean "first"'),
        (("rows", 0, "tasks"), {"drat": {}}, 'Did you mean "dart"'),
        (("rows", 0, "models"), ["third"], "names the model 'third'"),
        (("rows", 0, "metod"), "lora", 'rows.0.metod is unknown. Did you mean "method"'),
        (("tasks", "dart", "columns", 0, "metric"), "bleu", "exactly one of metric and cost"),
        (("models",), [], "models: "),
    ],
)
def test_a_wrong_file_is_one_clear_error(path: tuple[Any, ...], value: Any, said: str) -> None:
    with pytest.raises(InputError, match=f"(?s)experiment here cannot be used.*{said}"):
        parse(changed(path, value), "here")


def test_an_unknown_experiment_says_which_there_are(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f'Did you mean "{TABLE1}"'):
        load("prefix-tuning-table2")
    (tmp_path / "mine.yaml").write_text("name: [", encoding="utf-8")
    with pytest.raises(InputError, match="not valid YAML"):
        load(str(tmp_path / "mine.yaml"))
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(SMALL), encoding="utf-8")
    assert load(str(tmp_path / "mine.yaml")) == parse(SMALL, "here")


def test_the_example_of_the_documentation_can_be_used() -> None:
    text = (Path(__file__).parents[2] / "docs" / "experiments.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    spec = parse(yaml.safe_load(example), "the documentation")
    (row,) = spec.rows
    assert row.setting("gpt2", "samsum").training == {"learning_rate": 2e-4, "epochs": 5}
    assert row.setting("gpt2", "samsum").method == "lora:rank=4"


# --- the grid -----------------------------------------------------------------------------------


def test_the_grid_has_every_row_on_every_task_and_base(tmp_path: Path) -> None:
    spec = load(TABLE1)
    data = save_data(tmp_path, *spec.tasks)
    grid = parts(spec, Overrides(data=data))
    places = [(part.model, part.task, row) for part in grid for row in part.rows]
    assert len(places) == len(set(places)) == 3 * (6 + 5), "FT-top2 is of the medium base alone"
    by_place = {place: part.plan for place, part in zip(places, _each(grid), strict=True)}
    lora = by_place["gpt2-medium", "dart", "LoRA"]
    assert (lora.task.decoding.beams, lora.task.decoding.no_repeat_ngram) == (10, 4)
    assert lora.task.max_new_tokens == 64 and lora.config.label_smoothing == 0
    assert [m.label for m in lora.methods] == ["lora:rank=4,alpha=32.0,targets=q+v"]
    full = by_place["gpt2-large", "webnlg_2017", "fine-tune"]
    assert (full.config.epochs, full.config.batch_size) == (10, 6)
    assert full.config.learning_rate == 1e-5 and full.task.decoding.beams == 5
    assert full.task.metrics == ("bleu-webnlg-raw", "meteor-webnlg-raw", "ter-webnlg-raw")
    assert {part.folder.as_posix() for part in grid} == {
        f"{task}-{model}" for task in spec.tasks for model in spec.models
    }


def _each(grid: list[Part]) -> list[Part]:
    return [part for part in grid for _ in part.rows]


def test_overrides_go_before_the_file(tmp_path: Path) -> None:
    spec = load(CLASSROOM)
    over = Overrides(
        models=("mine",),
        data=save_data(tmp_path, *spec.tasks),
        limit=1,
        training={"steps": 7},
        seeds=(1, 2),
        metrics=("bertscore",),
    )
    first, second = parts(spec, over)
    assert first.rows == ("prompt tuning, 5 tokens", "LoRA", "chosen layers")
    assert (first.plan.config.steps, first.plan.config.epochs) == (7, None)
    assert (first.plan.config.batch_size, second.plan.config.accumulation) == (16, 4)
    assert first.plan.task.template.source_tokens == 128 != second.plan.task.template.source_tokens
    assert first.plan.seeds == (1, 2) and len(first.plan.task.test) == 1
    assert first.plan.model == second.plan.model == "mine"
    weighed = parts(load(TABLE1), replace(over, tasks=("dart",), data=save_data(tmp_path, "dart")))
    assert weighed[0].plan.task.metrics[-1] == "bertscore"
    with pytest.raises(InputError, match='Did you mean "cnn_dailymail"'):
        parts(spec, replace(over, tasks=("cnn_dailymial",)))


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("training", "stepz"), 3, "training of 'biases' has no option 'stepz'.*steps"),
        (("training", "steps"), 0, "steps is 0"),
        (("training", "batch_size"), "many", "training of 'biases': batch_size"),
        (("rows", 0, "decoding"), {"beam": 3}, "no option 'beam'.*\"beams\""),
        (("rows", 0, "method"), "bitfid", 'Did you mean "bitfit"'),
        (("tasks", "dart", "columns", 0), {"title": "x", "metric": "blue"}, "Unknown metric"),
    ],
)
def test_wrong_settings_are_found_before_anything_runs(
    path: tuple[Any, ...], value: Any, said: str, tmp_path: Path
) -> None:
    data = save_data(tmp_path, "webnlg_2017", "dart")
    with pytest.raises(InputError, match=said):
        parts(parse(changed(path, value), "here"), Overrides(data=data))


# --- whole runs ---------------------------------------------------------------------------------


@pytest.fixture
def spec() -> ExperimentSpec:
    return parse(SMALL, "here")


@pytest.mark.slow
def test_several_tasks_and_bases_end_in_one_table(spec: ExperimentSpec, tmp_path: Path) -> None:
    bases = tuple(save_base(tmp_path / f"base{seed}", seed) for seed in (0, 1))
    over = Overrides(
        models=bases,
        data=save_data(tmp_path / "data", *spec.tasks),
        latency_tokens=0,
    )
    grid, out, watcher = parts(spec, over), tmp_path / "out", Counting()
    experiment = run(spec, grid, out, lambda *_: watcher)
    assert watcher.made == ["bitfit", "hard_prompt"] * 4
    assert len(experiment.records) == 8
    assert {record.status for record in experiment.records.values()} == {"finished"}
    for cell, record in experiment.records.items():
        if cell.task == "webnlg_2017":
            assert set(record.subsets) == {"seen", "unseen"}
            assert set(record.subsets["seen"]) == set(record.scores)
    webnlg, dart = sections(experiment)
    assert webnlg.heads == ("BLEU seen", "BLEU unseen", "BLEU all", "TER ↓")
    assert [(line.model, line.row, line.source) for line in webnlg.lines] == [
        (base, row, None) for base in bases for row in ("biases", "words")
    ] + [("first", "biases", "us")]
    assert dart.lines[1].numbers[0].text == "0"
    assert as_markdown(read(out)) == as_markdown(experiment)
    again = run(spec, grid, out, lambda *_: watcher)
    assert len(watcher.made) == 8 and again == experiment, "what is finished is not made again"
    with pytest.raises(InputError, match="holds the experiment small"):
        run(spec.model_copy(update={"name": "other"}), grid, out, lambda *_: watcher)


@pytest.mark.slow
@pytest.mark.parametrize("name", [TABLE1, CLASSROOM])
def test_a_bundled_experiment_runs_whole_on_invented_rows(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = load(name)
    base = save_base(tmp_path / "tiny")
    data, out = save_data(tmp_path / "data", *spec.tasks), tmp_path / "out"
    line = f"compare --experiment {name} --model {base} --data {data} --steps 2 --out {out}"
    assert command(line.split()) == 0
    shown = capsys.readouterr().out
    experiment = read(out)
    assert {record.status for record in experiment.records.values()} == {"finished"}
    assert len(experiment.records) == len(spec.tasks) * len(rows_of(spec, base))
    for row in rows_of(spec, base):
        assert re.search(rf"tiny {re.escape(row.title)}", shown)
    assert command(["report", str(out), "--format", "md"]) == 0
    assert capsys.readouterr().out == as_markdown(experiment)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (f"--experiment {TABLE1} --methods lora", "--methods cannot be given with --experiment"),
        (f"--experiment {TABLE1} --steps 2 --epochs 1", "both --steps and --epochs are given"),
        (f"--experiment {TABLE1} --task xsum", "has no task 'xsum'"),
        ("--experiment table1", "there is no experiment 'table1'"),
        ("--data somewhere", "--data belongs to --experiment"),
    ],
)
def test_the_command_line_refuses_what_has_no_effect(
    line: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(["compare", *line.split()]) == 2
    assert said in " ".join(capsys.readouterr().err.split())
