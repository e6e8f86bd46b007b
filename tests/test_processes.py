"""What processes tell each other, and what is refused before any of it; all in one process here.

Real ones are in `tests/training/test_processes.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch

from peftlab.cli.app import run
from peftlab.errors import InputError
from peftlab.frozen.sharded_loading import is_to_be_sharded, load_sharded
from peftlab.frozen.sharding import shard
from peftlab.methods import parse_one
from peftlab.processes import ALONE, Lost, Processes, _flat, join, local_device
from tests.models import tiny


@dataclass(frozen=True)
class _Meeting(Processes):
    """The first of two processes; the other one says what it is given here."""

    other: Any = None

    def told(self, value: Any) -> list[Any]:
        return [value, ("elsewhere", dict(_flat(self.other)))]


def test_a_difference_is_named_with_both_values_and_the_place() -> None:
    mine = {"torch": "2.13", "config": {"seed": 0, "steps": 3}, "base": "a"}
    _Meeting(0, 2, other=mine).agree(mine)
    with pytest.raises(InputError) as error:
        _Meeting(0, 2, other={**mine, "config": {"seed": 1, "steps": 3}}).agree(mine)
    message = str(error.value)
    assert "config.seed is 0 in process 0 and 1 in process 1 (on elsewhere)" in message
    assert "steps" not in message and "torch" not in message
    with pytest.raises(InputError, match=r"torch is '2\.13' in process 0 and None in process 1"):
        _Meeting(0, 2, other={"config": mine["config"], "base": "a"}).agree(mine)


def test_work_is_shared_out_once_and_evenly_where_asked() -> None:
    def share_of(process: int) -> list[int]:
        return list(range(7))[process::3]

    for even in (False, True):
        taken = [list(Processes(i, 3).shares(share_of, even)) for i in range(3)]
        counted = sorted(piece for each in taken for piece, counts in each if counts)
        assert counted == list(range(7))
        assert {len(each) for each in taken} == ({3} if even else {2, 3})
    assert list(ALONE.shares(share_of, even=True)) == [(0, True), (3, True), (6, True)]


def test_alone_nothing_is_sent() -> None:
    tensors = [torch.ones(2), torch.zeros(3)]
    assert all(a is b for a, b in zip(ALONE.sum(tensors), tensors, strict=True))
    assert ALONE.numbers(1, 2) == [(1, 2)] and ALONE.told("x") == ["x"]
    assert join("cpu") is ALONE


def test_only_a_loss_of_a_process_is_told_as_one() -> None:
    two = Processes(0, 2)
    with (
        pytest.raises(Lost, match=r"process 0 of 2 got no answer .* try again"),
        two.watched("try again"),
    ):
        raise RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer")
    with pytest.raises(RuntimeError, match="shape mismatch"), two.watched():
        raise RuntimeError("shape mismatch")
    with pytest.raises(RuntimeError, match="gloo"), ALONE.watched():
        raise RuntimeError("gloo is not there")


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The environment of the second of two processes."""
    for name, value in {"RANK": 1, "WORLD_SIZE": 2, "LOCAL_RANK": 1, "LOCAL_WORLD_SIZE": 2}.items():
        monkeypatch.setenv(name, str(value))
    return monkeypatch


def test_commands_for_one_process_refuse_several(
    launched: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("compare", "evaluate", "generate"):
        assert run([command]) == 2
        said = capsys.readouterr().err
        assert f"in process 1: peftlab {command} was started 2 times at once" in said


def test_more_processes_than_gpus(launched: pytest.MonkeyPatch) -> None:
    launched.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(InputError, match="2 processes were started on a machine with 1 GPU"):
        local_device("cuda")
    launched.setattr(torch.cuda, "device_count", lambda: 2)
    assert local_device("cuda") == "cuda:1"


def test_the_launchers_own_sharding_is_refused(launched: pytest.MonkeyPatch) -> None:
    launched.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(InputError, match="accelerate is configured to use fsdp"):
        join("cpu")


def test_a_base_that_cannot_be_sharded(capsys: pytest.CaptureFixture[str], tmp_path: Any) -> None:
    with pytest.raises(InputError, match="over several processes only, and this is one"):
        shard(tiny("llama"), ALONE)
    with pytest.raises(InputError, match="nf4 cannot be sharded"):
        load_sharded("demo", "nf4", "cpu", Processes(0, 2))
    for word, message in (
        ("always", "there is one process"),
        ("often", "one of auto, never, always"),
    ):
        out = ["--out", str(tmp_path), "--method", "lora", "--device", "cpu"]
        assert run(["train", "--shard", word, *out]) == 2
        assert message in capsys.readouterr().err


@dataclass(frozen=True)
class _Measured(Processes):
    """Two processes that find the same."""

    def numbers(self, *values: float) -> list[tuple[float, ...]]:
        return [values, values]


def test_auto_shards_what_does_not_fit(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """A base of B bytes fits 2 B beside LoRA's tensors, and not beside full fine-tuning's."""
    from peftlab.frozen import sharded_loading

    model = tiny("llama")
    model.config.save_pretrained(tmp_path)
    size = 4 * sum(p.numel() for p in model.parameters())
    monkeypatch.setattr(sharded_loading, "free_memory", lambda _: 2 * 2 * size)
    two = _Measured(0, 2, 2)
    lora, full = parse_one("lora:rank=1"), parse_one("full")
    assert not is_to_be_sharded("auto", str(tmp_path), lora, two)
    assert is_to_be_sharded("auto", str(tmp_path), full, two)
    assert not is_to_be_sharded("auto", str(tmp_path), full, ALONE)
    assert not is_to_be_sharded("never", str(tmp_path), full, two)
    assert is_to_be_sharded("always", str(tmp_path), lora, two)
