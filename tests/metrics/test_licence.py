"""The folder that is under another licence says so everywhere."""

from __future__ import annotations

import tomllib
from pathlib import Path

import peftlab.metrics.meteor as room

ROOT = Path(__file__).parents[2]
FOLDER = Path(room.__file__).parent


def test_every_file_of_the_port_names_its_licence() -> None:
    for path in FOLDER.glob("*.py"):
        assert path.read_text(encoding="utf-8").startswith(
            "# SPDX-License-Identifier: LGPL-2.1-only\n"
        ), path
    text = (FOLDER / "COPYING.LESSER").read_text(encoding="utf-8")
    assert "GNU LESSER GENERAL PUBLIC LICENSE" in text and "Version 2.1, February 1999" in text


def test_the_project_carries_the_texts() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["license"] == "Apache-2.0 AND LGPL-2.1-only"
    for name in project["license-files"]:
        assert (ROOT / name).is_file()
    assert (FOLDER / "COPYING.LESSER").relative_to(ROOT).as_posix() in project["license-files"]


def test_nothing_but_the_catalogue_knows_the_port() -> None:
    """It is used through its one class, by name, so that the rest does without it."""
    for path in (ROOT / "peftlab").rglob("*.py"):
        if FOLDER not in path.parents:
            text = path.read_text(encoding="utf-8")
            assert "import peftlab.metrics.meteor" not in text, path
            assert "from peftlab.metrics.meteor" not in text, path
