"""Trackers get what `metrics.jsonl` gets: the real libraries write, and are read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from peftlab.errors import InputError
from peftlab.methods import parse_one
from peftlab.training import TrainConfig, tracking, train
from peftlab.training.tracking import INSTALL, trackers
from tests.laws.world import model, task

CONFIG = TrainConfig(steps=4, batch_size=2, evaluate_every=2, validation_limit=2)
SETTINGS = {"method": "lora", "train": {"steps": 4, "epochs": None}, "layers": [1, 2]}


def _trained(name: str, folder: Path) -> dict[str, dict[int, float]]:
    """Train under a tracker; by name, what `metrics.jsonl` holds."""
    with tracking.tracking([name], folder, "tests", "lora/seed-0", SETTINGS) as listen:
        train(model("llama"), parse_one("lora"), task(), CONFIG, folder=folder, listen=listen)
        listen(4, {"test/rougeL": 0.5, "text": "no number", "missing": None, "odd": float("nan")})
    logged: dict[str, dict[int, float]] = {"test/rougeL": {4: 0.5}}
    for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        values = json.loads(line)
        for key, value in values.items():
            if key != "step" and isinstance(value, int | float):
                logged.setdefault(key, {})[values["step"]] = value
    assert {"loss", "lr", "validation_loss", "tokens_per_second"} <= logged.keys()
    return logged


def _same(got: dict[str, dict[int, float]], expected: dict[str, dict[int, float]]) -> None:
    assert got.keys() == expected.keys()
    for key, curve in expected.items():
        assert got[key] == pytest.approx(curve, rel=1e-6), key


def test_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    expected = _trained("tensorboard", tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    got = {
        tag: {event.step: event.value for event in events.Scalars(tag)}
        for tag in events.Tags()["scalars"]
    }
    _same(got, expected)
    (settings,) = (tmp_path / "tensorboard").rglob("hparams.yml")
    assert "train.steps: 4" in settings.read_text(encoding="utf-8")


def test_trackio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "kept"))
    pytest.importorskip("trackio")
    from trackio.sqlite_storage import SQLiteStorage

    expected = _trained("trackio", tmp_path / "run")
    got: dict[str, dict[int, float]] = {}
    for line in SQLiteStorage.get_logs("tests", "lora/seed-0"):
        for key in line.keys() & expected.keys():
            got.setdefault(key, {})[line["step"]] = line[key]
    _same(got, expected)


@pytest.mark.filterwarnings("ignore")  # SQLAlchemy's, in the middle of MLflow
def test_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'kept.db'}")
    expected = _trained("mlflow", tmp_path / "run")
    client = mlflow.MlflowClient()
    (experiment,) = client.search_experiments(filter_string="name = 'tests'")
    (run,) = client.search_runs([experiment.experiment_id])
    got = {
        key: {point.step: point.value for point in client.get_metric_history(run.info.run_id, key)}
        for key in run.data.metrics
    }
    _same(got, expected)
    assert run.data.params["train.steps"] == "4" and run.info.run_name == "lora/seed-0"


def test_wandb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its files are its own affair; what it kept it says at the end."""
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    expected = _trained("wandb", tmp_path)
    (kept,) = tmp_path.rglob("*.wandb")
    assert kept.stat().st_size > 500
    said = " ".join(capfd.readouterr().err.split())
    summary = said.partition("Run summary:")[2]
    assert "test/rougeL 0.5" in summary
    assert f"validation_loss {expected['validation_loss'][4]:.4f}"[:-1] in summary


def test_without_trackers_nothing_is_imported_or_written(tmp_path: Path) -> None:
    with tracking.tracking([], tmp_path, "tests", "run", {}) as listen:
        listen(1, {"loss": 1.0})
    assert not list(tmp_path.iterdir())


def test_names_of_trackers(monkeypatch: pytest.MonkeyPatch) -> None:
    present: Any = lambda name: object()  # noqa: E731 - a stand-in
    monkeypatch.setattr(tracking, "find_spec", present)
    assert trackers(("tensorboard", "wandb", "tensorboard")) == ("tensorboard", "wandb")
    assert trackers(()) == ()
    with pytest.raises(
        InputError, match=r"no tracker 'tensorbord'; .*Did you mean \"tensorboard\""
    ):
        trackers(("tensorbord",))
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    for name, install in INSTALL.items():
        with pytest.raises(InputError) as caught:
            trackers((name,))
        assert str(caught.value) == f"--track {name} needs a package that is missing: {install}"
