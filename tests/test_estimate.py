"""Predictions: what is exact, what is probed, limits, and models whose weights are not here."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from peftlab.bases import known_models
from peftlab.cli.app import run
from peftlab.cli.watch import Shown
from peftlab.comparison.plan import Samples
from peftlab.comparison.profile import profile
from peftlab.comparison.run import compare
from peftlab.comparison.settings import Limits
from peftlab.errors import InputError
from peftlab.estimate import Miniature, Prediction, probe
from peftlab.estimate.prediction import errors
from peftlab.frozen import named as bases
from peftlab.frozen.model import FrozenLM
from peftlab.methods import parse, parse_one
from peftlab.options import byte_size, duration
from peftlab.tasks import Task
from peftlab.training import TrainConfig, train
from peftlab.trunk import Trunk
from peftlab.units import size
from tests.comparison.conftest import base, data, task  # noqa: F401 - fixtures
from tests.comparison.odd_methods import Odd
from tests.comparison.test_comparison import Counting, make

probing = import_module("peftlab.estimate.probe")  # the package has a function of this name

# ruff: noqa: F811 - pytest hands fixtures in under the names they are imported by
CONFIG = TrainConfig(steps=12, batch_size=4, evaluate_every=6)


@pytest.fixture(scope="module")
def model(base: str) -> FrozenLM:
    return bases.load(base)


def test_what_is_counted_is_exact(model: FrozenLM, task: Task, tmp_path: Path) -> None:
    method = parse_one("lora:rank=2")
    probed = probe(model, method, task, CONFIG)
    trained = train(model, method, task, CONFIG)
    trained.adaptation.save(tmp_path / "adapter")
    assert probed.trainable == method.count(model.shape).trainable
    saved = sum(file.stat().st_size for file in (tmp_path / "adapter").iterdir())
    assert probed.adapter_bytes == pytest.approx(saved, abs=3000)
    assert probed.peak_memory and probed.step_seconds and probed.train_seconds
    assert probed.train_seconds == pytest.approx(12 * probed.step_seconds, rel=1e-6)


def test_what_does_not_train_takes_nothing(model: FrozenLM, task: Task) -> None:
    probed = probe(model, parse_one("hard_prompt"), task, CONFIG)
    assert (probed.trainable, probed.peak_memory, probed.train_seconds) == (0, None, None)
    assert probed.values() == {"trainable_parameters": 0.0}


def test_the_largest_step_is_met_with_the_optimisers_moments(
    model: FrozenLM, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The probe takes it first, before there are any: of full, two numbers a parameter."""

    @contextmanager
    def phase(name: str, _: object) -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(peak_bytes=10**9 if name == "the largest step" else 1)

    monkeypatch.setattr(import_module("peftlab.estimate.probe"), "phase", phase)
    probed = probe(model, parse_one("full"), task, CONFIG)
    assert probed.peak_memory is not None
    trained = parse_one("full").count(model.shape).trainable
    assert probed.peak_memory - 10**9 == pytest.approx(8 * trained, rel=0.01)


def test_budgets_are_predicted_in_their_own_units(model: FrozenLM, task: Task) -> None:
    seconds = probe(model, parse_one("ia3"), task, replace(CONFIG, seconds=7.0))
    assert seconds.train_seconds == 7.0
    tokens = probe(model, parse_one("ia3"), task, replace(CONFIG, tokens=100_000))
    assert tokens.train_seconds and tokens.step_seconds
    per_step = 100_000 * tokens.step_seconds / tokens.train_seconds
    whole = train(model, parse_one("ia3"), task, CONFIG)
    assert per_step == pytest.approx(whole.forward_tokens / whole.steps, rel=0.2)


def test_filling_the_trunk_is_predicted_for_all_rows(
    model: FrozenLM, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where the first step, whose time says nothing else, fills all of it."""
    pause, run_chunk = 0.5, Trunk._run

    def slowly(self: Trunk, rows: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        time.sleep(pause)
        return run_chunk(self, rows)

    monkeypatch.setattr(Trunk, "_run", slowly)
    probed = probe(model, parse_one("last_k"), task, replace(CONFIG, steps=40))
    chunks = -(-len(task.pairs("train")) // 16)
    assert probed.train_seconds and probed.step_seconds
    filling = probed.train_seconds - 40 * probed.step_seconds
    assert 0.7 < filling / (pause * chunks) < 1.6


def test_of_a_slow_step_only_a_part_is_taken_again(
    model: FrozenLM, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The largest for its memory, then a quarter of a usual one's rows."""
    taken = list[int]()
    plain = probing._timed

    def counting(loop: Any, data: Any, step: int) -> tuple[float, int]:
        taken.append(len(data.order.step(step)))
        return plain(loop, data, step)

    monkeypatch.setattr(probing, "_timed", counting)
    config = replace(CONFIG, steps=4, batch_size=8)
    slow = probe(model, parse_one("ia3"), task, config, patience=0.0)
    assert taken == [8, 2]
    taken.clear()
    fast = probe(model, parse_one("ia3"), task, config, patience=60.0)
    assert taken == [8] * 5 and slow.peak_memory and fast.step_seconds and slow.step_seconds


def test_evaluation_is_predicted(base: str, task: Task, tmp_path: Path) -> None:
    """Of every method, and the whole run of it; held against the record."""
    compared = compare(make(base, task, "hard_prompt,lora:rank=2", predict=True), tmp_path)
    bare, lora = compared.records
    found = compared.profile.predictions["lora:rank=2"]
    parts = (found.validation_seconds, found.evaluate_seconds, found.generate_seconds)
    assert all(parts) and found.besides_seconds
    assert found.run_seconds == pytest.approx(
        (found.train_seconds or 0) + sum(p or 0 for p in parts) + found.besides_seconds
    )
    assert bare.predicted["generate_seconds"] > 0 and "train_seconds" not in bare.predicted
    assert bare.predicted["validation_seconds"] == 0.0
    assert lora.predicted["run_seconds_error"] == pytest.approx(
        lora.predicted["run_seconds"] / (lora.seconds.total or 0) - 1
    )


def test_the_plan_shows_evaluation_s_share(
    base: str, task: Task, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = make(base, task, "lora:rank=2", seeds=(0, 1))
    evaluation = {"validation_seconds": 20.0, "evaluate_seconds": 10.0, "generate_seconds": 30.0}
    found = Prediction(1, 1, 1, train_seconds=300.0, besides_seconds=45.0, **evaluation)
    looked = replace(profile(lambda *_: None, plan, tmp_path), predictions={"lora:rank=2": found})
    looked = replace(looked, samples=Samples(test=3))
    watcher = Shown(plan, tmp_path)
    watcher.board.began -= 30.0
    watcher.planned(looked.runs(plan), looked, 0)
    said = capsys.readouterr().out
    assert (
        "Training will take about 10 min here. Evaluation adds 25% to that: 30 s for this" in said
    )
    assert (
        "2 min for validations, losses and texts. Loading, latency and the like take 90 s." in said
    )
    assert "Evaluation reads 3 of 6 test examples, the same for every method" in said
    assert watcher.board.left() == pytest.approx(2 * 405.0, rel=0.01)


def test_a_probe_leaves_no_trace(model: FrozenLM, task: Task) -> None:
    method, before = parse_one("full"), model.fingerprint
    first = train(model, method, task, replace(CONFIG, steps=2)).losses
    probe(model, method, task, CONFIG)
    assert train(model, method, task, replace(CONFIG, steps=2)).losses == first
    del model.__dict__["fingerprint"]
    assert model.fingerprint == before


def test_limits_say_why() -> None:
    prediction = Prediction(
        5, 5, 3 << 20, peak_memory=2 << 30, train_seconds=30.0, search_seconds=60.0
    )
    assert Limits().reason(prediction) is None and not Limits()
    assert Limits(memory=4 << 30, adapter=4 << 20, seconds=100).reason(prediction) is None
    said = Limits(memory=1 << 30, adapter=1 << 20, seconds=80).reason(prediction)
    assert said == (
        "predicted to take 2 GiB of memory, above 1 GiB and an adapter of 3 MiB, above 1 MiB and "
        "90 s of training, above 80 s"
    )
    with pytest.raises(InputError, match="memory is -1"):
        Limits(memory=-1)


def test_sizes_and_times_are_read() -> None:
    assert byte_size("2GB") == byte_size("2 gib") == 2 << 30
    assert byte_size("1.5m") == 1.5 * (1 << 20) and byte_size(7) == 7
    assert duration("10m") == 600 and duration("90") == 90
    for bad in ("two", "-1GB", "5 parsecs", "", None):
        with pytest.raises(ValueError, match="2GB or 500MB"):
            byte_size(bad)
    assert (size(1500), size(2 << 30), size(12)) == ("1.46 KiB", "2 GiB", "12 B")


def test_errors_are_shares_of_what_was_measured() -> None:
    shares = errors({"peak_memory": 110.0, "train_seconds": 3.0}, {"peak_memory": 100.0})
    assert shares == {"peak_memory_error": pytest.approx(0.1)}


def test_a_model_of_which_only_the_configuration_is_known(
    base: str, task: Task, tmp_path: Path
) -> None:
    config = json.loads((Path(base) / "config.json").read_text())
    small = Miniature(config)
    few, many = (bases.load(str(path)) for path in small.write(tmp_path, base))
    assert (few.shape.layers, many.shape.layers) == (2, 4)
    for method in parse("lora:rank=2,last_k"):
        low, high = (probe(model, method, task, CONFIG) for model in (few, many))
        predicted, count = small.whole(method, low, high), method.count(small.shape)
        assert (predicted.trainable, predicted.stored) == (count.trainable, count.stored)
        assert predicted.peak_memory and predicted.train_seconds


def test_what_a_block_costs_is_multiplied() -> None:
    small = Miniature(known_models.config("gpt2"))
    few, many = (Prediction(1, 1, 1, peak_memory=m, train_seconds=3.0) for m in (100.0, 140.0))
    predicted = small.whole(parse_one("lora"), few, many)
    assert predicted.peak_memory == 100.0 + 10 * 20.0 and predicted.train_seconds == 3.0
    with pytest.raises(InputError, match="k=13"):
        small.whole(parse_one("last_k:k=13"), few, many)


def test_a_configuration_with_a_strange_number_format(base: str, tmp_path: Path) -> None:
    config = {**known_models.config("gpt2"), "dtype": "bfloat17"}
    with pytest.raises(InputError, match=r"bfloat17.*; float32, bfloat16 or float16 was expected"):
        Miniature(config).write(tmp_path, base)


def test_no_room_for_even_a_small_model(
    base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = {**known_models.config("gpt2"), "n_embd": 98_304, "n_head": 96}
    with pytest.raises(InputError, match=r"probing needs .* of memory"):
        Miniature(wide).write(tmp_path, base)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1 << 20))
    with pytest.raises(InputError, match=r"probing needs .* of disk, and 1 MiB are free .* TMPDIR"):
        Miniature(known_models.config("gpt2")).write(tmp_path, base)


@pytest.mark.slow
def test_a_probe_sees_no_memory_of_another(base: str, task: Task, tmp_path: Path) -> None:
    """Each in a process of its own: the second is not above what it takes alone."""
    greedy, modest = "bottleneck:bottleneck=20000", "ia3"
    together, alone = (
        compare(make(base, task, methods, predict=True), tmp_path / methods[:3]).profile.predictions
        for methods in (f"{greedy},{modest}", modest)
    )
    peaks = [predictions[modest].peak_memory for predictions in (together, alone)]
    assert peaks[0] and peaks[1] and together[greedy].peak_memory
    assert together[greedy].peak_memory > peaks[0] + (20 << 20)
    assert abs(peaks[0] - peaks[1]) < 8 << 20


@pytest.mark.slow
def test_a_probe_that_is_killed_ends_nothing_else(base: str, task: Task, tmp_path: Path) -> None:
    """As Linux does when memory runs out."""
    plan = make(base, task, (Odd(how="killed"), parse_one("ia3")), predict=True)
    compared = compare(plan, tmp_path / "out")
    assert (
        "SIGKILL; the system does that when memory runs out"
        in compared.profile.misfits["odd:how=killed"]
    )
    assert list(compared.profile.predictions) == ["ia3"]
    assert [record.status for record in compared.records] == ["failed", "finished"]


@pytest.mark.slow
def test_what_exceeds_a_limit_is_left_out_and_recorded(
    base: str, task: Task, tmp_path: Path
) -> None:
    plan = make(
        base,
        task,
        "hard_prompt,lora:rank=2,full",
        limits=Limits(adapter=20_000),
        seeds=(0, 1),
    )
    watcher = Counting()
    records = compare(plan, tmp_path / "out", watcher).records
    told = [(record.label, record.status) for record in records]
    assert told.count(("full", "left out")) == 1 and ("full", "finished") not in told
    assert watcher.made.count("full") == 0 and watcher.made.count("lora:rank=2") == 2
    full = next(record for record in records if record.label == "full")
    assert "an adapter of" in str(full.error) and "above 19.5 KiB" in str(full.error)
    lora = next(record for record in records if record.label == "lora:rank=2")
    assert lora.predicted["trainable_parameters"] == lora.parameters.trainable
    assert lora.predicted["trainable_parameters_error"] == 0.0
    measured = lora.peak_memory.train
    assert measured and lora.predicted["peak_memory_error"] == pytest.approx(
        lora.predicted["peak_memory"] / measured - 1
    )
    assert {"train_seconds", "train_seconds_error"} <= lora.predicted.keys()


def test_the_command(base: str, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = f"estimate --model {base} --task {data} --steps 3 --batch-size 2 --device cpu"
    asked = "--methods lora:rank=2,targets=q+v,last_k:k=9 --max-adapter-size 1KB"
    assert run([*line.split(), *asked.split(), "--format", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    lora, last = told["methods"]
    assert lora["trainable_parameters"] == 768 and lora["peak_memory"] > 0
    assert "above 1 KiB" in lora["left_out"]
    assert "k=9" in last["problem"]
    assert run([*line.split(), *asked.split()]) == 0
    shown = capsys.readouterr().out
    assert "lora:rank=2,targets=q+v" in shown and "768" in shown and "k=9" in shown
