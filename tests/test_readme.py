"""The README's Python example runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"


def test_the_example_runs(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    (code,) = [block for block in blocks if "import peftlab" in block]  # the other needs a server
    exec(compile(code.replace("steps=20", "steps=2"), str(README), "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    assert "rougeL" in printed[0] and len(printed) >= 3


def test_every_command_it_names_exists() -> None:
    from peftlab.cli.app import app

    known = {command.name for command in app().registered_commands}
    known |= {group.name for group in app().registered_groups}
    named = set(re.findall(r"^peftlab (\w+)", README.read_text(encoding="utf-8"), re.MULTILINE))
    assert named and named <= known
