"""The command line: what it prints, its exit codes, and that it starts fast."""

# ruff: noqa: F811 - pytest hands fixtures in under the names they are imported by
from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from peftlab.cli.app import run
from tests.comparison.conftest import base, data  # noqa: F401 - fixtures

LORA_128 = "lora:rank=128,targets=q+k+v+o"
SLOW = ("torch.nn", "transformers", "datasets", "pandas")


def out_of(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    status = run(arguments)
    captured = capsys.readouterr()
    assert status == code, captured.err
    return captured.out if code == 0 else captured.err


@pytest.mark.parametrize(
    "line", ["--help", "compare --help", "methods", "tasks", "methods --model gpt2"]
)
def test_what_needs_no_model_imports_none(line: str) -> None:
    code = (
        "import sys; from peftlab.cli.app import run; code = run(sys.argv[1:]);"
        f"print([m for m in {SLOW!r} if m in sys.modules], file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *line.split()], capture_output=True, text=True, check=True
    )
    assert done.stderr.strip() == "[]"


def test_counts_agree_with_the_closed_formulas(capsys: pytest.CaptureFixture[str]) -> None:
    asked = f"prompt_tuning:length=5,{LORA_128},layers:blocks=0"
    rows = json.loads(out_of(capsys, "methods", asked, "--model", "gpt2", "--format", "json"))
    # The published numbers for GPT-2 small; LoRA's are of one block with four 768 × 768 maps.
    assert rows[0]["trainable"] == 5 * 768 == 3_840
    assert rows[1]["trainable"] == 12 * 786_432
    assert 786_432 == 4 * 128 * (768 + 768)


def test_counts_of_a_folder_need_no_weights(
    capsys: pytest.CaptureFixture[str],
    base: str,
    tmp_path: Path,
) -> None:
    (tmp_path / "config.json").write_text((Path(base) / "config.json").read_text())
    asked = ("methods", "lora:rank=2,targets=q+v", "--format", "json", "--model")
    (row,) = json.loads(out_of(capsys, *asked, str(tmp_path)))
    assert row["trainable"] == 3 * 2 * (2 * 32 + 32 * 2)
    assert "no config.json" in out_of(capsys, *asked, str(tmp_path.parent), code=2)


def test_methods_of_one_size(capsys: pytest.CaptureFixture[str]) -> None:
    line = (
        "methods",
        "lora,prompt_tuning",
        "--model",
        "gpt2",
        "--share",
        "0.002",
        "--format",
        "json",
    )
    for row in json.loads(out_of(capsys, *line)):
        assert 0.001 < row["share"] <= 0.002
    assert "needs --model" in out_of(capsys, "methods", "--share", "0.1", code=2)


def test_tasks_are_listed_and_shown(capsys: pytest.CaptureFixture[str], data: Path) -> None:
    names = [row["name"] for row in json.loads(out_of(capsys, "tasks", "--format", "json"))]
    assert names[0] == "demo" and "e2e_nlg" in names
    shown = out_of(capsys, "tasks", "show", str(data))
    assert "Place 0 serves English food." in shown and "⟦" in shown


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("compare --methods lorra", "unknown method 'lorra'.*Did you mean \"lora\""),
        ("compare --methods lora:rnk=2", 'Did you mean "rank"'),
        ("compare --methods lora:rank=two", "rank is 'two'; a whole number"),
        ("compare --task demoo", 'Did you mean "demo"'),
        ("compare --metrics rouge1,ruge2", 'Did you mean "rouge2"'),
        ("compare --steps 3 --epochs 1", "both --steps and --epochs"),
        ("compare --steps 0", "steps is 0"),
        ("compare --budget token=5", 'Did you mean "tokens"'),
        ("compare --budget tokens=many", "tokens=2e6 or seconds=60 was expected"),
        ("compare --budget seconds=5 --steps 3", "both --budget and --steps"),
        ("compare --search 2 --learning-rate 0.1", "a learning rate and a search"),
        ("compare --max-memory much", "2GB or 500MB was expected"),
        ("compare --methods peft:oftt", 'Did you mean "oft"'),
        ("estimate --format xml", "no format 'xml'"),
        ("estimate --model gpt3", "not among the models"),
        ("compare --precision fp8", "--precision"),
        ("compare --seeds one", "whole numbers with commas"),
        ("compare --seeds 0", "a number of seeds"),
        ("compare --steps 3 --steps 4", "--steps is given twice"),
        ("compare --config missing.yaml", "missing.yaml cannot be read"),
        ("compare --experiment prefix-tuning-table1 --weight-decay 1", "^Error: --weight-decay"),
        ("compare --methods lora:targets=qv:rank=8", "lora:targets=qv,rank=8"),
        ("compare --patience 2 --evaluate-every 0", "never stop"),
        ("compare --learning-rate 0", "--learning-rate is 0; more than 0"),
        ("compare --warmup nan", "--warmup is 'nan'; a finite number"),
        ("train --method lora --out x --budget tokens=x", "--budget is"),
        ("train --method lora --out x --seed 99999999999999999999999", "--seed is"),
        ("train --method lora --out /proc/x --steps 1", "/proc/x cannot be written"),
        ("train --method lora --out x --device cuda:7", "cuda:7.*is not here"),
        ("generate --adapter x --input a --top-p nan", "--top-p is"),
        ("generate --adapter x --input a --beams 0", "--beams is"),
        ("generate --adapter x --input a --sample --temperature 0", "--temperature is"),
        ("generate --adapter x --input=", "--input is empty"),
        ("evaluate --adapter x --batch-size 0", "--batch-size is"),
        ("evaluate --adapter x --predictions no/y.jsonl", "--predictions no/y.jsonl: a file in"),
        (f"compare --task {'x' * 5000}", "longer than a file's can be"),
        ("nonsense", "No such command"),
        ("compare --device gpu", "no device 'gpu'"),
        ("compare --track tensorbord", 'Did you mean "tensorboard"'),
        ("train --method lora --out x --track mlfow", 'Did you mean "mlflow"'),
        ("compare --limit 0", "limit is 0"),
        ("compare --validation-limit 0", "--validation-limit is 0; at least 1"),
        ("compare --general-text missing.txt", "There is no file missing.txt"),
        ("compare -o templte=x", 'Did you mean "template"'),
        ("compare --no-such-option", "No such option"),
        ("methods --model gpt3", "not among the models"),
        ("methods --format xml", "no format 'xml'"),
        ("report nowhere", "no folder nowhere"),
        ("generate --adapter nowhere --input hello", "holds no adaptation"),
        ("generate --adapter nowhere --input missing.jsonl", "no such file"),
    ],
)
def test_bad_input_is_one_clear_line(
    line: str,
    said: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import re

    monkeypatch.chdir(tmp_path)
    text = out_of(capsys, *line.split(), code=2)
    assert re.search(said, text), text
    assert "Traceback" not in text and len(text.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("train.jsonl", '{"source": "a", "targets": ["b"]}\n{"source": "a", "tar\n', "line 2"),
        ("train.jsonl", "", "empty"),
        ("train.csv", "one,two\n1,2\n", "column"),
    ],
)
def test_bad_files_are_one_clear_line(
    name: str, text: str, said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / name).write_text(text)
    assert said in out_of(capsys, "compare", "--task", str(tmp_path / name), code=2)


def test_the_main_job_and_its_report(
    capsys: pytest.CaptureFixture[str],
    base: str,
    data: Path,
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    line = f"compare --model {base} --task {data} --methods hard_prompt,bitfit,last_k:k=7 --steps 2"
    sizes = f"--batch-size 2 --limit 8 --test-limit 5 -o max_new_tokens=4 --device cpu --out {out}"
    sizes += " --validation-limit 2"
    assert run([*line.split(), *sizes.split()]) == 1, "a run has failed"
    said = capsys.readouterr().out
    for words in (
        "3 methods × 1 seed",
        "ROUGE-L",
        "failed:",
        "best balance",
        "One seed proves no difference",
    ):
        assert words in said
    records = json.loads(out_of(capsys, "report", str(out), "--format", "json"))
    assert [r["status"] for r in records] == ["finished", "finished", "failed"]
    assert records[1]["parameters"]["trainable"] > 0 and records[1]["seconds"]["train"] > 0
    assert records[1]["train"]["validation_limit"] == 2
    rows = list(csv.DictReader(io.StringIO(out_of(capsys, "report", str(out), "--format", "csv"))))
    assert rows[1]["scores.rougeL"] == str(records[1]["scores"]["rougeL"])
    assert rows[2]["loss.test"] == ""
    table = out_of(capsys, "report", str(out), "--format", "md").splitlines()
    assert table[3].startswith("| bitfit | 1") and "best balance" in "".join(table)
    page = tmp_path / "page.md"
    page.write_text("above\n<!-- peftlab:report -->\nold\n<!-- /peftlab:report -->\nbelow\n")
    assert out_of(capsys, "report", str(out), "--format", "md", "--into", str(page)) == ""
    text = page.read_text()
    assert "| bitfit | 1" in text and "old" not in text
    assert text.startswith("above\n") and text.endswith("-->\nbelow\n")
    assert "best balance" in out_of(capsys, "report", str(out))
    (folder,) = out.glob("bitfit*/seed-0")
    (folder / "record.json").write_text("{half")
    assert run(["report", str(out), "--format", "json"]) == 0
    captured = capsys.readouterr()
    assert len(json.loads(captured.out)) == 2 and "left out" in captured.err


def test_train_evaluate_generate(
    capsys: pytest.CaptureFixture[str],
    base: str,
    data: Path,
    tmp_path: Path,
) -> None:
    run_folder = tmp_path / "lora"
    shared = f"--task {data} --device cpu -o max_new_tokens=4"
    line = f"train --method lora:rank=2 --model {base} --steps 2 --batch-size 2 --out {run_folder}"
    assert "2 steps" in out_of(capsys, *line.split(), *shared.split())
    line = (
        f"evaluate --adapter {run_folder} --limit 3 --format json --predictions {tmp_path}/p.jsonl"
    )
    values = json.loads(out_of(capsys, *line.split(), *shared.split()))
    assert values["examples"] == 3 and values["loss"] > 0 and "rougeL" in values
    assert len((tmp_path / "p.jsonl").read_text().splitlines()) == 3
    (tmp_path / "in.jsonl").write_text('{"source": "one"}\n{"source": "two"}\n')
    adapters = ["--adapter", str(run_folder), "--adapter", str(run_folder / "adapter")]
    line = f"--input {tmp_path}/in.jsonl --max-new-tokens 3 --format json --device cpu"
    answers = out_of(capsys, "generate", *adapters, *line.split()).splitlines()
    assert [json.loads(a)["source"] for a in answers] == ["one", "one", "two", "two"]
    (tmp_path / "in.jsonl").write_text('{"source": "one"}\n{"sauce": 1}\n')
    assert "line 2" in out_of(capsys, "generate", *adapters, *line.split(), code=2)
