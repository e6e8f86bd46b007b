"""Options are declared once: the same names and limits in Python, in flags and in files."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import pytest
import yaml
from annotated_types import Ge
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import peftlab
from bench.option_pairs import BEGUN, VALUES, commands, without_bases
from bench.option_pairs import options as tried
from peftlab import options
from peftlab.cli.app import run
from peftlab.comparison.resolve import comparison_settings, resolved
from peftlab.comparison.settings import Limits, comparison_entries
from peftlab.errors import InputError
from peftlab.files import read_yaml
from peftlab.methods import REGISTRY
from peftlab.options import Checked, Option, entries, made
from peftlab.tasks import Decoding, Options, Task
from peftlab.training import TrainConfig
from peftlab.training.config import train_config

PACKAGE = Path(peftlab.__file__).parent
DOCS = [PACKAGE.parent / "README.md", *sorted((PACKAGE.parent / "docs").glob("**/*.md"))]
QUICK = ["--limit", "8", "--test-limit", "4", "--device", "cpu", "--general-text", "none"]


# -- values ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cls", "values", "said"),
    [
        (TrainConfig, {"learning_rate": 0}, "learning_rate is 0; more than 0"),
        (TrainConfig, {"learning_rate": float("nan")}, "a finite number"),
        (TrainConfig, {"optimizer": "sgd"}, "optimizer is 'sgd'; 'adamw' or 'adafactor'"),
        (TrainConfig, {"schedule": "polynomial"}, "schedule is 'polynomial'"),
        (TrainConfig, {"label_smoothing": 1.5}, "label_smoothing is 1.5; less than 1"),
        (TrainConfig, {"warmup": 2.0}, "warmup is 2.0; at most 1 was expected"),
        (TrainConfig, {"patience": 2, "evaluate_every": 0}, "would never stop training"),
        (TrainConfig, {"batch_size": "many"}, "batch_size is 'many'; a whole number"),
        (TrainConfig, {"seed": 10**30}, "seed is 1000"),
        (Decoding, {"temperature": 0.0}, "temperature is 0.0; at least 0.01"),
        (Decoding, {"top_p": 0}, "top_p is 0; more than 0"),
        (Decoding, {"beams": 0}, "beams is 0; at least 1"),
        (Options, {"limit": 0}, "limit is 0; at least 1"),
        (Options, {"truncate": "middle"}, "'start' or 'end'"),
        (Limits, {"memory": float("inf")}, "a finite number"),
    ],
)
def test_python_refuses_what_the_command_line_refuses(
    cls: Any, values: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=re.escape(said)):
        cls(**values)


def test_values_have_their_types_wherever_they_come_from() -> None:
    assert TrainConfig(**{"steps": "5", "clip": 2}) == TrainConfig(steps=5, clip=2.0)  # type: ignore[arg-type]
    assert train_config({"budget": "tokens=2e6"}) == TrainConfig(tokens=2_000_000)
    assert train_config({"epochs": "2"}, 7) == TrainConfig(steps=7, epochs=2.0)
    with pytest.raises(InputError, match="both budget and epochs are given"):
        train_config({"epochs": 2, "budget": "steps=3"})


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        (3, (0, 1, 2)), ("3", (0, 1, 2)), ("3,", (3,)), ([3], (3,)), ((4, 2), (4, 2)),
        ("0,1", (0, 1)), ("-1,", (-1,)), (0, None), ("0", None), ("", None), ("one", None),
        (True, None), ([], None), (1.5, None), ("1,x", None),
    ],
)  # fmt: skip
def test_a_number_of_seeds_and_seeds_themselves(value: Any, meant: tuple[int, ...] | None) -> None:
    if meant is None:
        with pytest.raises(InputError, match=r"seeds is .*a number of seeds"):
            comparison_settings(seeds=value)
    else:
        assert comparison_settings(seeds=value, test_limit=4).plan().seeds == meant


def test_unknown_options_and_task_options_have_a_nearest_name() -> None:
    with pytest.raises(InputError, match=r"no option 'stepz'\. Did you mean \"steps\""):
        comparison_settings(stepz=3)
    with pytest.raises(InputError, match='Did you mean "template"'):
        Task.load("demo", templte="x")


def test_all_that_is_wrong_is_said_at_once() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Some(Checked):
        a: int = 1
        b: int = 2

    options.hints.__globals__["Some"] = Some
    with pytest.raises(InputError, match="a is 'x'; a whole number was expected; b is 'y'"):
        Some(a="x", b="y")  # type: ignore[arg-type]


# -- files -------------------------------------------------------------------------------------


def printed(capsys: pytest.CaptureFixture[str], *line: str) -> str:
    assert run(["compare", *line, "--print-config"]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    "line",
    [
        "",
        "--full --limit 20",
        "--seeds 3 --methods lora:rank=2,ia3 --budget tokens=2e6 --max-memory 2GB --max-time 5m",
        "--epochs 2 -o cue=Line: -o max_new_tokens=9 --metrics bleu --no-fast --recompute",
        "--search 2 --search-share 0.25 --base-dtype fp32,bf16 --latency-tokens 0",
    ],
)
def test_what_is_printed_runs_the_same(
    line: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    text = printed(capsys, *QUICK[2:], *line.split())
    (tmp_path / "mine.yaml").write_text(text)
    assert printed(capsys, "--config", str(tmp_path / "mine.yaml")) == text
    flags = [w for w in line.split() if w.startswith("-")]
    assert (text == printed(capsys, *QUICK[2:])) == (not flags)
    first, again = yaml.safe_load(text), read_yaml(tmp_path / "mine.yaml")
    assert resolved(first).plan() == resolved(again).plan()


def test_flags_override_a_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("steps: 9\nseeds: 2\nmethods: [lora, full]\ntest_limit: null\nlimit: 5\n")
    values = yaml.safe_load(printed(capsys, "--config", str(mine), "--budget", "seconds=5"))
    assert values["seconds"] == 5 and "steps" not in values
    assert values["seeds"] == [0, 1] and values["methods"] == ["lora", "full"]
    assert values["test_limit"] is None and values["limit"] == 5
    values = yaml.safe_load(printed(capsys, "--config", str(mine), "--seeds", "7,"))
    assert values["seeds"] == [7] and values["steps"] == 9


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("stepz: 3", "has no option 'stepz'. Did you mean \"steps\""),
        ("steps: many", "steps in .*mine.yaml is 'many'; a whole number was expected"),
        ("batch_size: [1]", "batch_size in .*mine.yaml is"),
        ("task_option: {templte: x}", 'Did you mean "template"'),
        ("methods: 5", "methods is 5"),
        ("task: 5", "task in .*mine.yaml is 5"),
        ("- steps", "holds list; names with values were expected"),
        ("", "holds NoneType"),
        ("steps: [", "is not valid YAML"),
        ("seeds: 0", "seeds in .*mine.yaml is 0"),
        ("1: 2", "has no option '1'"),
    ],
)
def test_a_wrong_file_is_one_clear_line(
    text: str, said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    assert run(["compare", "--config", str(tmp_path / "mine.yaml")]) == 2
    err = capsys.readouterr().err
    assert re.search(said, err) and len(err.strip().splitlines()) == 1, err


# -- one declaration ---------------------------------------------------------------------------


@cache
def flags() -> set[str]:
    """Every flag of every command, and of the scripts."""
    names = {"--help", "--version"}
    for command in commands().values():
        for parameter in command.params:
            names |= {*parameter.opts, *parameter.secondary_opts}
    for place in (PACKAGE.parent / script for script in SCRIPTS):
        for path in [place] if place.is_file() else place.glob("*.py"):
            names |= {text for text in strings(path) if FLAG.fullmatch(text)}
    return names


def test_every_option_of_a_comparison_is_a_flag_and_an_entry() -> None:
    known = {flag for p in commands()["compare"].params for flag in p.opts}
    for name, entry in comparison_entries().items():
        assert set(entry.flags) <= known and (entry.flags or name in ("tokens", "seconds"))
        assert entry.option.help


def test_every_setting_of_training_is_an_option() -> None:
    declared = {entry.field for entry in options.entries(TrainConfig).values()}
    assert declared == {item.name for item in fields(TrainConfig)}
    known = {flag for p in commands()["train"].params for flag in p.opts}
    assert {f for entry in options.entries(TrainConfig).values() for f in entry.flags} <= known
    assert "--budget" in known


@cache
def declared() -> set[str]:
    """The settings of anything that has some."""
    classes = [TrainConfig, Options, Decoding, Limits, *REGISTRY.values()]
    return {item.name for cls in classes for item in fields(cls)} | comparison_entries().keys()


# What other programs' command lines have.
OTHERS = {
    "--nproc-per-node", "--nnodes", "--rdzv-endpoint", "--rdzv-backend",  # torchrun
    "--num_processes", "--num",  # accelerate
    "--head", "--port", "--address", "--generate", "--disable-usage-stats",  # ray
    "--enable-lora", "--max-lora-rank", "--lora-modules", "--enable-prompt-embeds",  # vLLM
    "--lora", "--file",  # llama-server, ollama
    "--logdir",  # tensorboard
    "--porcelain", "--untracked-files",  # git
}  # fmt: skip
# Keyword arguments of dataclasses, transformers and safetensors.
NOT_OURS = {"frozen", "kw_only", "use_fast", "early_stopping", "safe_serialization"}
SCRIPTS = ("bench", "tests/comparison", "peftlab/demo", "peftlab/export/send.py")
FLAG = re.compile(r"(?<![\w/|{-])--[a-z][a-z0-9]*(?:-[a-z0-9]+)*")
TASK_OPTION = re.compile(r"(?:-o|--task-option) ([a-z_]+)=")
SETTING = re.compile(r"\b([a-z_0-9]+)((?::|,)[a-z_]+=[^\s`'\",|)]+)+")
TRUTH = re.compile(r"\b([a-z][a-z_]+)=(?:True|False)\b")


def strings(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        if isinstance(node, ast.JoinedStr):
            parts = (p.value if isinstance(p, ast.Constant) else "X" for p in node.values)
            yield "".join(map(str, parts))


def unknown(text: str) -> set[str]:
    """The options and settings that a text names and that do not exist."""
    problems = {flag for flag in FLAG.findall(text) if flag not in flags() | OTHERS}
    keys = {*entries(Options), "columns", "source", "target"}
    problems |= {f"-o {key}=" for key in TASK_OPTION.findall(text) if key not in keys}
    for part in (
        part
        for match in SETTING.finditer(text)
        for part in re.split(r"\+(?=[a-z_0-9]+:)", match[0])
    ):
        name = part.partition(":")[0]
        if name in REGISTRY:
            known = {item.name for item in fields(REGISTRY[name])}
            used = re.findall(r"[:,]([a-z_]+)=", part)
            problems |= {f"{name}:{one}=" for one in used if one not in known}
    for name in TRUTH.findall(text):
        if name not in declared() | NOT_OURS:
            problems.add(f"{name}=")
    return problems


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_the_docs_name_options_that_exist(path: Path) -> None:
    assert not unknown(path.read_text(encoding="utf-8"))


def test_messages_and_help_name_options_that_exist() -> None:
    wrong = {
        str(path.relative_to(PACKAGE)): names
        for path in sorted(PACKAGE.glob("**/*.py"))
        for names in [set().union(*map(unknown, strings(path)))]
        if names
    }
    assert not wrong


def test_the_search_for_names_finds_what_is_wrong() -> None:
    said = "--colums or -o colums=x, lora:rnk=2, drop_blanks=True; not --steps -o cue=x lora:rank=2"
    assert unknown(said) == {"--colums", "-o colums=", "lora:rnk=", "drop_blanks="}


# -- odd values --------------------------------------------------------------------------------

ODD = st.sampled_from(VALUES)


@settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
@given(data=st.data())
def test_odd_values_work_or_are_one_clear_line(
    data: st.DataObject, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Every option of every command that has some, up to where a base would be loaded."""
    name = data.draw(st.sampled_from(sorted(BEGUN)))
    line = [word.replace("OUT", str(tmp_path / "out")) for word in BEGUN[name]]
    chosen = data.draw(st.lists(st.sampled_from(tried(name)), min_size=1, max_size=2, unique=True))
    for parameter in chosen:
        line += [parameter.opts[-1]] + ([] if parameter.is_flag else [data.draw(ODD)])
    with without_bases(tmp_path):
        code = run([*name.split(), *line])
    captured = capsys.readouterr()
    assert code in (0, 2), (name, line)
    assert code == 0 or len(captured.err.split("\n")) == 2, (name, line, captured.err)


def test_an_option_may_be_called_otherwise_than_its_field() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Small(Checked):
        field: Annotated[int, Ge(1), Option("Help.", name="called")] = 1

    options.hints.__globals__["Small"] = Small
    assert made(Small, {"called": "3", "other": 4}) == Small(field=3)
    with pytest.raises(InputError, match="--called is 0; at least 1 was expected"):
        made(Small, {"called": "0"}, lambda name: f"--{name}")
