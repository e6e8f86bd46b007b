"""The exports by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from peftlab import export
from peftlab.errors import InputError
from tests.export.made import made
from tests.laws import world


@pytest.mark.parametrize(
    ("kind", "spec", "file"),
    [
        ("peft", "lora:rank=2", "adapter_config.json"),
        ("merged", "lora:rank=2", "config.json"),
        ("embedding-rows", "prompt_tuning:length=2,initialisation=random", "prompts.json"),
        ("vllm", "lora:rank=2", "a/adapter_config.json"),
    ],
)
def test_each_kind(kind: str, spec: str, file: str, tmp_path: Path) -> None:
    lm, adaptation = world.model("gpt2"), made(spec, "gpt2")
    export.export(kind, {"a": adaptation}, lm, tmp_path)
    assert (tmp_path / file).exists()
    if kind in ("peft", "merged"):
        with pytest.raises(InputError, match=f"{kind} writes one adaptation a folder; got 2"):
            export.export(kind, {"a": adaptation, "b": adaptation}, lm, tmp_path)


def test_no_such_kind(tmp_path: Path) -> None:
    with pytest.raises(InputError, match='Did you mean "embedding-rows"'):
        export.export("embeddings", {}, world.model("gpt2"), tmp_path)
