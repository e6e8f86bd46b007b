"""The one package of this repository that is under another licence says so everywhere."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PLUGIN = ROOT / "plugins" / "peftlab-meteor"


def project(folder: Path) -> dict[str, Any]:
    text = (folder / "pyproject.toml").read_text(encoding="utf-8")
    table: dict[str, Any] = tomllib.loads(text)["project"]
    for name in table["license-files"]:
        assert (folder / name).is_file()
    return table


def test_every_file_of_the_port_names_its_licence() -> None:
    files = [*(PLUGIN / "peftlab_meteor").glob("*.py")]
    assert len(files) == 5
    for path in files:
        assert path.read_text(encoding="utf-8").startswith(
            "# SPDX-License-Identifier: LGPL-2.1-only\n"
        ), path
    assert project(PLUGIN)["license"] == "LGPL-2.1-only"
    text = (PLUGIN / "COPYING.LESSER").read_text(encoding="utf-8")
    assert "GNU LESSER GENERAL PUBLIC LICENSE" in text and "Version 2.1, February 1999" in text


def test_peftlab_is_under_the_apache_licence_alone() -> None:
    assert project(ROOT)["license"] == "Apache-2.0"
    assert any(
        "peftlab-meteor" in need for need in project(ROOT)["optional-dependencies"]["meteor"]
    )


def test_peftlab_knows_the_plugin_by_its_entry_points_alone() -> None:
    for path in (ROOT / "peftlab").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert "peftlab_meteor" not in text and "LGPL-2.1" not in text, path
