"""`peftlab study`: its help, its errors, and a study made from the command line."""

# ruff: noqa: F811 - pytest hands fixtures in under the names they are imported by
from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from peftlab.cli.app import run
from peftlab.cli.study import Told
from peftlab.study import lines
from tests.comparison.conftest import base, data  # noqa: F401 - fixtures
from tests.report.made import record


def test_help_lists_every_study_and_loads_nothing_slow() -> None:
    code = (
        "import sys; from peftlab.cli.app import run; code = run(['study', '--help']);"
        "slow = ('torch.nn', 'transformers', 'datasets', 'scipy', 'jinja2');"
        "print([m for m in slow if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    for name, line in lines().items():
        assert any(text.split() == [name, *line.split()] for text in done.stdout.splitlines())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["lenght"], 'Did you mean "length"?'),
        (["rank", "--values", "1,x"], "numbers with commas"),
        (["rank", "--metrics", "rougeX"], "rougeX"),
        (["rank", "--seeds", "a"], "whole numbers with commas"),
        (["rank", "--model", str(Path(__file__).parent)], "has no config.json"),
        (["rank", "--wording", "x"], "the study rank has no use for --wording"),
        (["transfer", "--task", "demo"], "give --task more than once"),
        (["forgetting", "--general-text", "none"], "--general-text FILE"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(["study", *arguments, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert said in error and error.startswith("Error: ")
    assert not (tmp_path / "out").exists(), "nothing was begun"


@pytest.mark.parametrize(
    ("others", "said"), [(0.4, "(≈ 12 s)"), (0.01, "(12 s)"), (None, "(12 s)")]
)
def test_a_time_that_others_disturbed_is_marked(
    others: float | None,
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The only times that a study shows: its figures and tables are of scores and losses."""
    monkeypatch.setattr("peftlab.measure.company.MOST", 0.05)
    Told().ended(SimpleNamespace(label="lora", seed=0), record(others={"step": others}))  # type: ignore[arg-type]
    assert said in capsys.readouterr().out


@pytest.mark.slow
def test_a_study_from_the_command_line(
    base: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = [
        "study", "init", "--model", base, "--task", str(data), "-o", "max_new_tokens=8",
        "--methods", "prompt_tuning:length=2", "--metrics", "chrf,loss", "--steps", "2",
        "--batch-size", "4", "--device", "cpu", "--out", str(tmp_path / "out"),
    ]  # fmt: skip
    assert run(line) == 0
    told = capsys.readouterr().out
    assert "chrF" in told and "test loss" in told and "One seed" in told
    page = (tmp_path / "out" / "init" / "study.html").read_text(encoding="utf-8")
    assert "Does it matter what training starts from?" in page
    assert run(line) == 0
    assert "5 runs, 5 of them finished already" in capsys.readouterr().out
