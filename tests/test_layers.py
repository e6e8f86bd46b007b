"""What docs/design.md says of the layers is what is checked."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_chain_of_layers_is_the_contract_s() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    (layers,) = [contract for contract in contracts if contract["type"] == "layers"]
    assert layers["exhaustive"] and any(one["type"] == "acyclic_siblings" for one in contracts)
    text = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    (chain,) = re.findall(r"## Layers\n.*?```\n(.*?)```", text, re.DOTALL)
    assert chain.splitlines() == layers["layers"]
