"""Runs that end early: kill -9, Ctrl-C, early stopping, checkpoints that cannot be used."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from peftlab import trunk
from peftlab.errors import DiskFull, InputError
from peftlab.laws.training import same_tensors
from peftlab.methods import parse_one
from peftlab.training import Diverged, Interrupted, TrainConfig, train, trainee
from peftlab.training.display import Show
from tests.laws.world import model, task

ROOT = Path(__file__).parents[2]
CASE = "lora:rank=4,dropout=0.2"
CONFIG = TrainConfig(
    steps=6, batch_size=4, evaluate_every=3, validation_limit=2, checkpoint_seconds=0
)

_KILLED = """
import os, signal, sys
from contextlib import contextmanager
from pathlib import Path
from peftlab.methods import parse_one
from peftlab.training import train
from tests.laws.world import model, task
from tests.training.test_resume import CASE, CONFIG

@contextmanager
def display(*_):
    yield lambda step, *_: os.kill(os.getpid(), signal.SIGKILL) if step == 4 else None

train(model("llama"), parse_one(CASE), task(), CONFIG, folder=Path(sys.argv[1]), display=display)
"""


def _steps(folder: Path, key: str = "loss") -> list[int]:
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [line["step"] for line in map(json.loads, lines) if key in line]


def test_kill_9_and_another_process_equal_one_uninterrupted_run(tmp_path: Path) -> None:
    """Masks of dropout and the order of rows come again where hashes are salted anew."""
    env = {**os.environ, "PYTHONHASHSEED": "77", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", _KILLED, str(tmp_path / "cut")]
    killed = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert _steps(tmp_path / "cut") == [1, 2, 3]
    half_a_line = (tmp_path / "cut" / "metrics.jsonl").open("a", encoding="utf-8")
    half_a_line.write('{"step": 4, "lo')
    half_a_line.close()
    resumed = train(model("llama"), parse_one(CASE), task(), CONFIG, folder=tmp_path / "cut")
    whole = train(model("llama"), parse_one(CASE), task(), CONFIG, folder=tmp_path / "whole")
    assert same_tensors(whole, resumed)
    assert _steps(tmp_path / "cut") == [1, 2, 3, 4, 5, 6]
    assert _steps(tmp_path / "cut", "validation_loss") == [3, 6]


@contextmanager
def _interrupting(*_: object) -> Iterator[Show]:
    yield lambda step, *_: os.kill(os.getpid(), signal.SIGINT) if step == 2 else None


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor"])
@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant_with_warmup"])
def test_ctrl_c_saves_and_the_same_call_continues(
    optimizer: Any, schedule: Any, tmp_path: Path
) -> None:
    config = replace(CONFIG, checkpoint_seconds=1e9, optimizer=optimizer, schedule=schedule)
    before = signal.getsignal(signal.SIGINT)
    run: dict[str, Any] = {"model": model("gpt2"), "method": parse_one(CASE), "task": task()}
    with pytest.raises(Interrupted, match="after step 2 of 6"):
        train(**run, config=config, folder=tmp_path / "cut", display=_interrupting)
    assert signal.getsignal(signal.SIGINT) is before
    resumed = train(**run, config=config, folder=tmp_path / "cut")
    assert same_tensors(train(**run, config=config, folder=tmp_path / "whole"), resumed)


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    run: dict[str, Any] = {"model": model("gpt2"), "method": parse_one(CASE), "task": task()}
    first = train(**run, config=CONFIG, folder=tmp_path)
    written = (tmp_path / "metrics.jsonl").read_bytes()
    again = train(**run, config=CONFIG, folder=tmp_path)
    assert same_tensors(first, again)
    assert (tmp_path / "metrics.jsonl").read_bytes() == written


def test_early_stopping_keeps_the_best_state(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said = iter([3.0, 1.0, 2.0, 1.5])
    monkeypatch.setattr(trainee, "mean_loss", lambda *_, **__: next(said))
    config = replace(
        CONFIG, steps=20, evaluate_every=2, patience=2, schedule="constant_with_warmup", warmup=0.0
    )
    run: dict[str, Any] = {"model": model("gpt2"), "method": parse_one(CASE), "task": task()}
    stopped = train(**run, config=config, folder=tmp_path / "stopped")
    assert (stopped.steps, stopped.best_step, stopped.validation_loss) == (8, 4, 1.0)
    monkeypatch.setattr(trainee, "mean_loss", lambda *_, **__: 0.0)
    until_best = train(**run, config=replace(config, steps=4, patience=0))
    assert until_best.best_step == 2  # an equal loss is no improvement
    monkeypatch.setattr(trainee, "mean_loss", lambda *_, **__: -float(next(counter)))
    counter = iter(range(9))
    until_best = train(**run, config=replace(config, steps=4, patience=0))
    assert until_best.best_step == 4
    assert same_tensors(stopped, until_best)


def test_a_checkpoint_of_other_settings_is_refused(tmp_path: Path) -> None:
    train(model("gpt2"), parse_one("lora:rank=4"), task(), CONFIG, folder=tmp_path)
    for case, config in (
        ("lora:rank=2", CONFIG),
        ("ia3", CONFIG),
        ("lora:rank=4", replace(CONFIG, seed=1)),
    ):
        with pytest.raises(InputError, match=r"other settings; use another folder"):
            train(model("gpt2"), parse_one(case), task(), config, folder=tmp_path)
    with pytest.raises(InputError, match=r"other settings"):
        train(model("llama"), parse_one("lora:rank=4"), task(), CONFIG, folder=tmp_path)


def test_a_damaged_checkpoint_is_one_clear_error(tmp_path: Path) -> None:
    train(model("gpt2"), parse_one(CASE), task(), CONFIG, folder=tmp_path)
    path = tmp_path / "checkpoint.safetensors"
    whole = path.read_bytes()
    torch.save({"a": torch.ones(2)}, tmp_path / "pickle.pt")
    for bad in (whole[: len(whole) // 2], b"", b"{}", (tmp_path / "pickle.pt").read_bytes()):
        path.write_bytes(bad)
        with pytest.raises(InputError, match=r"is damaged .*; delete it to start again"):
            train(model("gpt2"), parse_one(CASE), task(), CONFIG, folder=tmp_path)


def test_a_folder_that_goes_away_is_one_clear_error(tmp_path: Path) -> None:
    @contextmanager
    def losing_it(*_: object) -> Iterator[Show]:
        yield lambda step, *_: shutil.rmtree(tmp_path / "out") if step == 4 else None

    run: dict[str, Any] = {"model": model("gpt2"), "method": parse_one(CASE), "task": task()}
    with pytest.raises(DiskFull, match=r"metrics.jsonl cannot be written: its folder is gone"):
        train(**run, config=CONFIG, folder=tmp_path / "out", display=losing_it)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("diverges", [False, True])
def test_a_training_that_ended_leaves_no_kept_trunk(
    diverges: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(trunk, "_DISK_RESERVE", 0)
    config = replace(CONFIG, steps=12, trunk_memory=0, checkpoint_seconds=1e9)  # twice each row
    run: dict[str, Any] = {"model": model("gpt2"), "method": parse_one("last_k:k=1")}
    run |= {"task": task(), "config": config, "folder": tmp_path}
    with pytest.raises(Interrupted):
        train(**run, display=_interrupting)
    assert list((tmp_path / "trunk").glob("*.safetensors"))  # the same call continues with them
    if diverges:
        monkeypatch.setattr(trainee, "mean_loss", lambda *_, **__: math.nan)
        with pytest.raises(Diverged):
            train(**run)
    else:
        assert train(**run).trunk_bytes > 0
    assert not (tmp_path / "trunk").exists()
