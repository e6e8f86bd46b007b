"""Methods × number formats of the base, in one table; and what a base without room is told."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from peftlab.bases.number_formats import formats
from peftlab.cli.app import run as command
from peftlab.comparison.run import Compared, compare
from peftlab.errors import InputError
from peftlab.estimate import Miniature
from peftlab.frozen import loading
from peftlab.frozen.model import FrozenLM
from peftlab.guests import Guest
from peftlab.methods.adaptation import Adaptation
from peftlab.report.table import as_markdown
from peftlab.tasks import Task
from peftlab.verdict.outcome import verdict
from tests.comparison.test_comparison import Counting, make

pytest.importorskip("bitsandbytes")


@pytest.fixture(scope="module")
def compared(
    base: str, task: Task, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Compared, Path]:
    out = tmp_path_factory.mktemp("formats") / "out"
    plan = make(base, task, "lora:rank=2,last_k", base_dtypes=("fp32", "nf4"))
    plan = replace(plan, methods=(*plan.methods, Guest.parse("peft:lora,r=2")))
    return compare(plan, out), out


@pytest.mark.slow
def test_every_method_runs_on_every_format(compared: tuple[Compared, Path]) -> None:
    records = compared[0].records
    assert [r.status for r in records] == ["finished"] * 6
    labels = ["lora:rank=2", "last_k", "peft:lora,r=2"]
    assert [r.label for r in records] == [*labels, *(f"{label}@nf4" for label in labels)]
    assert [r.model.dtype for r in records] == ["fp32"] * 3 + ["nf4"] * 3
    assert len({r.model.fingerprint for r in records}) == 2
    assert len({r.model.checkpoint for r in records}) == 1
    first, last = records[0].model.bytes, records[-1].model.bytes
    assert first is not None and last is not None and last < first
    losses = {r.label: r.loss.test for r in records}
    assert len(set(losses.values())) == len(losses)


@pytest.mark.slow
def test_they_stand_in_one_table_with_the_base_s_memory_and_one_verdict(
    compared: tuple[Compared, Path],
) -> None:
    table = as_markdown(compared[0].records)
    assert "| base memory |" in table.splitlines()[0]
    assert "| lora:rank=2@nf4 |" in table
    assert verdict(compared[0].runs).sentences


@pytest.mark.slow
def test_a_format_joins_a_folder_that_has_others(
    compared: tuple[Compared, Path], base: str, task: Task
) -> None:
    watcher = Counting()
    again = make(base, task, "lora:rank=2", base_dtypes=("int8", "nf4"))
    records = compare(again, compared[1], watcher).records
    assert watcher.made == ["lora:rank=2@int8"]
    assert [r.label for r in records] == ["lora:rank=2@int8", "lora:rank=2@nf4"]


def test_names_of_formats_are_checked() -> None:
    assert formats("fp32, nf4") == formats(["fp32", "nf4"]) == ("fp32", "nf4")
    for text, said in (("nf5", "nf4"), ("int8,int8", "each format once"), ("", "one or more of")):
        with pytest.raises(ValueError, match=said):
            formats(text)


def test_a_base_without_room_is_refused_before_it_is_loaded(
    base: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("it was loaded")

    monkeypatch.setattr(loading.AutoModelForCausalLM, "from_pretrained", never)
    monkeypatch.setattr(loading, "free_memory", lambda _: 150_000)
    with pytest.raises(InputError, match=r"GiB in fp32.*Nothing was loaded; choose .*nf4"):
        FrozenLM.load(base)
    monkeypatch.setattr(loading, "free_memory", lambda _: 1000)
    with pytest.raises(InputError, match="take a larger device"):
        FrozenLM.load(base)
    options = ("--method", "lora", "--out", "never", "--model", base)
    assert command(["train", *options, "--steps", "1"]) == 2
    assert "does not fit" in capsys.readouterr().err


def test_an_adapter_is_used_in_the_format_that_it_was_made_on(
    base: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, task = str(tmp_path / "run"), ("--task", str(data), "-o", "max_new_tokens=4")
    trained = ("--method", "lora:rank=2", "--model", base, "--base-dtype", "nf4", "--steps", "1")
    assert command(["train", *trained, "--out", out, "--limit", "4", *task]) == 0
    assert Adaptation.load(tmp_path / "run" / "adapter").base["dtype"] == "nf4"
    capsys.readouterr()
    asked = ("generate", "--adapter", out, "--input", "name", "--max-new-tokens", "2")
    assert command([*asked]) == 0
    assert "Warning" not in capsys.readouterr().err
    assert command([*asked, "--base-dtype", "bf16"]) == 0
    assert "in nf4 and is used on it in bf16" in capsys.readouterr().err
    assert command([*asked, "--base-dtype", "fp32,nf4"]) == 2
    assert "one was expected" in capsys.readouterr().err


def test_a_model_that_is_not_here_is_predicted_in_a_format(
    base: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = json.loads((Path(base) / "config.json").read_text())
    config |= {"n_layer": 30, "vocab_size": 9000, "dtype": "bfloat16"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    asked = (
        "--methods",
        "lora:rank=2,targets=q+v,last_k:k=31",
        "--base-dtype",
        "nf4",
        "--format",
        "json",
    )
    line = ("estimate", "--model", str(tmp_path), "--task", str(data), "--steps", "2", *asked)
    assert command([*line, "--device", "cpu"]) == 0
    told = json.loads(capsys.readouterr().out)
    lora, last = told["methods"]
    assert lora["trainable_parameters"] == 30 * 256 and lora["peak_memory"] > 0
    assert "k=31" in last["problem"] and "30 blocks" in last["problem"]
    few, _ = Miniature(config).write(tmp_path, base)
    assert FrozenLM.load(few, dtype="nf4").base_dtype == "nf4"
    assert FrozenLM.load(few, dtype="bf16").base_dtype == "bf16"
    stored = load_file(few / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}
