"""A GGUF file as the base of whole commands: the plan says what it is, and all of them work."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from peftlab.cli.app import run
from peftlab.records.reading import read
from peftlab.units import size
from tests import gguf_files
from tests.laws import world
from tests.test_cli import out_of


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "tiny-Q8_0.gguf"
    return gguf_files.write(path, gguf_files.model(), kind="Q8_0")


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny task's rows as a folder, in words that the file's tokenizer knows."""
    folder = tmp_path_factory.mktemp("rows")
    for split in ("train", "validation", "test"):
        lines = [
            json.dumps({"source": e.source, "target": t}) for e, t in world.task().pairs(split)
        ]
        (folder / f"{split}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder


def _options(file: Path, rows: Path) -> list[str]:
    steps = ["--steps", "2", "--batch-size", "2", "-o", "max_new_tokens=4", "--device", "cpu"]
    return ["--model", str(file), "--task", str(rows), *steps]


def test_methods_are_counted_without_loading_it(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("peftlab.frozen.loading.load_plain", lambda *_: pytest.fail("it is loaded"))
    told = out_of(
        capsys, "methods", "lora:rank=2,targets=q+v", "--model", str(file), "--format", "json"
    )
    heads = 2 * (32 + 32) + 2 * (32 + 16)  # q, and v of half as many heads, of rank 2
    assert json.loads(told)[0]["trainable"] == 3 * heads


@pytest.mark.slow
def test_estimate_says_what_it_is_and_takes(
    file: Path, rows: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = out_of(
        capsys, "estimate", *_options(file, rows), "--methods", "lora:rank=2",
        "--base-dtype", "bf16",
    )  # fmt: skip
    numbers = sum(p.numel() for p in gguf_files.model().parameters())
    words = f"{size(2 * numbers)} of weights in bf16, dequantised from a GGUF file of "
    assert words in told and "(llama, Q8_0)" in told


@pytest.mark.slow
def test_a_comparison_an_adapter_and_a_merged_folder(
    file: Path, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, asked = (
        tmp_path / "out",
        ["compare", *_options(file, rows), "--methods", "lora,hard_prompt"],
    )
    assert run([*asked, "--out", str(out)]) == 0
    told = capsys.readouterr().out
    numbers = sum(p.numel() for p in gguf_files.model().parameters())
    assert f"parameters of a GGUF file of {size(file.stat().st_size)} (llama, Q8_0)" in told
    assert f"dequantised to fp32 ({size(4 * numbers)}), context 96" in told
    records = read(out).records
    assert [r.status for r in records] == ["finished"] * 2
    assert {r.model.name for r in records} == {str(file)}
    assert run([*asked, "--out", str(out)]) == 0
    assert "2 of 2 runs are finished already" in capsys.readouterr().out

    folder = next(p.parent for p in out.rglob("adapter") if "lora" in str(p))
    assert run(["generate", "--adapter", str(folder), "--input", "the cat sings"]) == 0
    merged = tmp_path / "merged"
    assert run(["export", str(folder), "--to", "merged", "--out", str(merged)]) == 0
    plain = AutoModelForCausalLM.from_pretrained(merged)
    assert plain.config.model_type == "llama"
    assert not hasattr(plain.config, "quantization_config")
