"""Runs of earlier versions are known again, and settings that became others are named."""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any

import pytest

from peftlab.cli.app import run as command
from peftlab.comparison.finished import finished, other_settings
from peftlab.comparison.label import folder_name
from peftlab.comparison.plan import Run
from peftlab.comparison.profile import profile
from peftlab.comparison.resolve import resolved
from peftlab.comparison.search import search
from peftlab.comparison.settings import EvaluationConfig, SearchConfig
from peftlab.methods import REGISTRY, build, parse_one
from peftlab.methods.parse import relabelled
from peftlab.options import NotTheResult, Since, hints, identity
from peftlab.tasks import Decoding, Task, Template
from peftlab.training import TrainConfig, loop

FOLDER = Path(__file__).parent.parent / "data/commit_337d2ee/comparison"
# The folder's own command, with what has become another default since: `lora` was q and v there.
WORDS = json.loads((FOLDER / "comparison.json").read_text())["command"].replace(
    "lora:rank=1", "lora:rank=1,targets=q+v"
)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A folder as commit 337d2ee left it."""
    return Path(shutil.copytree(FOLDER, tmp_path / "old"))


@pytest.fixture(scope="module")
def runs() -> list[Run]:
    """Those of the command that made the folder, as this version plans them."""
    words = shlex.split(WORDS)[2:]
    names = (word.removeprefix("--").replace("-", "_") for word in words[::2])
    plan = resolved(dict(zip(names, words[1::2], strict=True))).plan()
    return profile(lambda *_: None, plan, Path("nowhere")).runs(plan)


def test_a_folder_of_an_earlier_version_makes_no_run_again(runs: list[Run], old: Path) -> None:
    assert len(runs) == 7 and all(finished(run, old) is not None for run in runs)
    assert other_settings(runs, old) == ""


@pytest.mark.slow
def test_its_command_continues_it(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {p: p.stat().st_mtime_ns for p in old.glob("*/seed-*/*") if p.is_file()}
    words = shlex.split(WORDS)
    words[words.index("--out") + 1] = str(old)
    assert command(words[1:]) == 0
    assert "7 of 7 runs are finished already" in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in old.glob("*/seed-*/*") if p.is_file()} == before


def test_other_settings_are_named_in_one_line(runs: list[Run], old: Path) -> None:
    longer = [replace(r, config=replace(r.config, steps=5, warmup=0.1)) for r in runs[:2]]
    said = other_settings([*longer, *runs[2:]], old)
    assert "train.steps 4 → 5; train.warmup 0.06 → 0.1" in said and "\n" not in said
    assert "of 2 finished runs" in said and "seed" not in said and "learning_rate" not in said
    assert other_settings(longer, old / "elsewhere") == ""


@pytest.mark.parametrize(
    ("stored", "label", "today"),
    [
        ("lora:targets=q+v,rank=4", "lora:rank=4", "lora:rank=4,targets=q+v"),
        ("lora:rank=4", "lora:rank=4", "lora:rank=4"),
        (
            "hard_prompt:instruction=none,shots=2+lora:targets=q+v",
            "hard_prompt:shots=2+lora",  # of which the task has settled the instruction
            "hard_prompt:shots=2+lora:targets=q+v",
        ),
        ("prompt_tuning:length=20", "prompt_tuning", "prompt_tuning:length=20"),
    ],
)
def test_labels_of_before_are_told_beside_the_defaults_of_today(
    stored: str, label: str, today: str
) -> None:
    assert relabelled(label, parse_one(stored)) == today


def test_folders_are_called_as_if_no_default_had_changed() -> None:
    assert folder_name(parse_one("lora:rank=4,targets=q+v"), "fp32") == "lora-rank=4"
    assert folder_name(parse_one("lora"), "nf4") == "lora-targets=all-linear-nf4"


def test_a_trial_round_another_rate_is_made_anew(runs: list[Run], old: Path) -> None:
    """A search that was not finished when the method's own rate was another."""
    run = next(run for run in runs if run.method.name == "prompt_tuning")
    folder = old / run.search_folder
    (folder / "search.json").unlink()
    before = {
        path.parent.name: json.loads(path.read_text()) for path in folder.glob("*/config.json")
    }
    found = search(lambda *_: None, run, folder)
    rates = [tried.rate for tried in found.trials]
    assert rates == pytest.approx([run.config.learning_rate, run.config.learning_rate / 3])
    assert len(before) == 2 and all(
        one["train"]["learning_rate"] not in rates for one in before.values()
    )


@dataclass(frozen=True)
class _Grown:
    old: int = 1
    new: Annotated[int, Since(2)] = 3
    how: Annotated[int, NotTheResult] = 4


def test_what_came_later_is_left_out_at_its_first_default() -> None:
    assert identity(_Grown()) == {"old": 1, "new": 3}, "a default that changed is another run"
    assert identity(_Grown(new=2)) == {"old": 1}


def _first() -> Iterator[tuple[type, set[str]]]:
    """The settings that the first hashes held, by the class that declares them."""
    (path,) = FOLDER.glob("prompt_tuning-length=2-*/seed-0/config.json")
    held: dict[str, Any] = json.loads(path.read_text())
    yield TrainConfig, {*held["train"], "seed"}
    yield EvaluationConfig, set(held["evaluation"])
    yield SearchConfig, set(held["search"])
    yield Template, set(held["task"]["template"])
    yield Decoding, set(held["task"]["decoding"])
    of_methods = json.loads((FOLDER.parent / "settings.json").read_text())
    yield from ((REGISTRY[name], set(settings)) for name, settings in of_methods.items())


@pytest.mark.parametrize(
    ("cls", "first"), list(_first()), ids=lambda it: getattr(it, "__name__", "")
)
def test_a_setting_that_came_later_says_what_its_default_was(cls: type, first: set[str]) -> None:
    for name, hint in hints(cls).items():
        marks = getattr(hint, "__metadata__", ())
        later = any(isinstance(mark, Since) or mark is NotTheResult for mark in marks)
        assert (name in first) != later, f"{cls.__name__}.{name}: mark it with Since(its default)"


@pytest.mark.parametrize(
    ("spec", "digest"),
    [
        ("lora:targets=q+v", "6b3827e75d051f773255a7b3a7c4ffa5"),
        (
            "prefix_tuning:reparametrisation=none+bottleneck",
            "579b48cca7f993b276603d8312aa1b2b",
        ),
    ],
)
def test_checkpoints_are_known_again(spec: str, digest: str) -> None:
    """The digests are those of commit 337d2ee."""
    config = TrainConfig(steps=3, seed=1, offload=True, trunk_disk=5)
    task = Task.load("demo", limit=4, test_limit=4)
    decides = loop._decides(parse_one(spec), task, config, "x")
    text = json.dumps(decides, sort_keys=True, default=str)
    assert hashlib.sha256(text.encode()).hexdigest()[:32] == digest


def test_methods_are_hashed_as_ever() -> None:
    for name, settings in json.loads((FOLDER.parent / "settings.json").read_text()).items():
        made = build(name, settings)
        assert json.loads(json.dumps(made.identity())) == settings
        assert {item.name for item in fields(made)} >= settings.keys()
