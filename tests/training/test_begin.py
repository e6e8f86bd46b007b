"""Training from the cue on: equal steps, and sources that are read once by whoever needs them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from peftlab import pasts
from peftlab.comparison.hosts import _OwnHost
from peftlab.comparison.plan import Base, Plan, runs_of
from peftlab.errors import InputError
from peftlab.evaluation import AdaptedLM, evaluate_once
from peftlab.frozen.batch import GivenPast
from peftlab.frozen.model import FrozenLM
from peftlab.frozen.packing import Row
from peftlab.methods import parse_one
from peftlab.training import TrainConfig, train
from peftlab.training.budget import Budget
from peftlab.training.checkpoint import Progress
from peftlab.trunk import Trunk, TrunkStore
from tests.laws import world

BASE = Base(name="llama", fingerprint="", parameters=1, device="cpu")
VALIDATED = 4
CONFIG = TrainConfig(steps=12, batch_size=4, evaluate_every=6, validation_limit=VALIDATED)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, ...]]]:
    """All sources that the base has read, in order."""
    texts: list[tuple[int, ...]] = []
    own = pasts._read

    def counting(model: FrozenLM, ids: tuple[int, ...]) -> GivenPast:
        texts.append(ids)
        return own(model, ids)

    monkeypatch.setattr(pasts, "_read", counting)
    yield texts


@pytest.mark.parametrize("where", ["memory", "files"])
def test_a_source_is_read_once_for_epochs_methods_and_evaluation(
    read: list[tuple[int, ...]], where: str, tmp_path: Path
) -> None:
    model, task = world.model("llama"), world.task()
    room = 1 << 28
    store = TrunkStore(room) if where == "memory" else TrunkStore(0, room, tmp_path / "kept")
    first = train(model, parse_one("lora:rank=2,begin=cue"), task, CONFIG, store=store)
    assert len(read) == len(set(read)) == len(task.train) + VALIDATED
    train(model, parse_one("prefix_tuning:length=3,begin=cue"), task, CONFIG, store=store)
    assert len(read) == len(task.train) + VALIDATED, "another method reads none again"
    for _ in range(2):
        evaluate_once(AdaptedLM(model, first.adaptation, store), task)
    sources = len(task.train) + VALIDATED + len(task.test)
    assert len(read) == len(set(read)) == sources


def test_the_bare_base_goes_on_from_what_is_kept(read: list[tuple[int, ...]]) -> None:
    """Where others of its comparison begin at the cue; a prompt of its own is nobody else's."""
    model, task, room = world.model("llama"), world.task(), 1 << 28
    store = TrunkStore(room)
    trained = train(model, parse_one("lora:rank=2,begin=cue"), task, CONFIG, store=store)
    evaluate_once(AdaptedLM(model, trained.adaptation, store), task)
    count = len(read)

    def base(spec: str, beside: str) -> AdaptedLM:
        methods = (parse_one(spec), parse_one(beside))
        (run, *_) = runs_of(Plan(model="llama", task=task, methods=methods), BASE, task)
        bare = _OwnHost.__new__(_OwnHost)  # loads no base of a name
        bare.run, bare.model = run, model
        bare.train(run, None, store)
        return bare.adapted

    whole, losses = evaluate_once(base("hard_prompt", "lora"), task)
    again, others = evaluate_once(base("hard_prompt", "ia3:begin=cue"), task)
    assert len(read) == count, "all that it needs was kept"
    assert [reply.tokens for reply in again.replies] == [reply.tokens for reply in whole.replies]
    assert others.sums == pytest.approx(losses.sums, rel=1e-5)
    begins = [
        base(spec, beside).edits.begin
        for spec, beside in (
            ("hard_prompt", "lora"),
            ("hard_prompt", "ia3:begin=cue"),
            ("hard_prompt:instruction=say it now", "ia3:begin=cue"),
        )
    ]
    assert begins == ["row", "cue", "row"]


def test_what_is_kept_decides_no_bit(tmp_path: Path) -> None:
    model, task, method = world.model("llama"), world.task(), parse_one("lora:rank=2,begin=cue")
    losses = [
        train(model, method, task, CONFIG, store=store).losses
        for store in (TrunkStore(1 << 28), TrunkStore(0, 1 << 28, tmp_path / "kept"), TrunkStore(0))
    ]
    assert losses[0] == losses[1] == losses[2]


def test_a_damaged_file_is_read_again(read: list[tuple[int, ...]], tmp_path: Path) -> None:
    model, task, method = world.model("llama"), world.task(), parse_one("lora:rank=2,begin=cue")
    expected = train(model, method, task, CONFIG, store=TrunkStore(0, 1 << 28, tmp_path / "kept"))
    for path in (tmp_path / "kept").glob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:100])
    count = len(read)
    again = train(model, method, task, CONFIG, store=TrunkStore(0, 1 << 28, tmp_path / "kept"))
    assert len(read) > count and again.losses == expected.losses


def test_a_budget_in_tokens_takes_equal_steps() -> None:
    model, task = world.model("gpt2"), world.task()
    config = TrainConfig(tokens=2500, batch_size=4, evaluate_every=0)
    row, cue = (train(model, parse_one(m), task, config) for m in ("lora", "lora:begin=cue"))
    for count in ("steps", "tokens", "forward_tokens"):
        assert getattr(row, count) == getattr(cue, count)


def test_methods_that_begin_at_two_places_are_refused_as_they_are_named() -> None:
    with pytest.raises(InputError, match="begin at one place"):
        parse_one("lora:begin=cue+bottleneck")
    with pytest.raises(InputError, match="hard_prompt has no setting 'begin'"):
        parse_one("hard_prompt:begin=cue")


def test_equal_seconds_count_what_was_spared() -> None:
    """A second method, which finds all sources read, gets no more steps for that."""
    progress = Progress(step=4, seconds=6.0, spared_seconds=4.0)
    budget = Budget.of(TrainConfig(seconds=12), 10)
    assert budget.used(progress) == 10 and budget.is_spent(progress)
    assert not budget.is_spent(replace(progress, spared_seconds=0.0))


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma3_text"])
@pytest.mark.parametrize("method", ["last_k:k=1,begin=cue", "lora:layers=2,begin=cue"])
def test_blocks_below_the_change_run_once_for_what_follows_the_cue(
    method: str, family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of whole rows they do anyway: see `Trunk`."""
    model, task = world.model(family), world.task()
    config = replace(CONFIG, steps=24)
    plain = train(model, parse_one(method), task, replace(config, fast=False))
    below: list[int] = []
    own = Trunk._run_few

    def counting(trunk: Trunk, rows: Sequence[Row]) -> list[torch.Tensor]:
        states = own(trunk, rows)
        for row, state in zip(rows, states, strict=True):
            assert len(state) == len(row.ids) - row.begin < len(row.ids)
        below.extend(range(len(rows)))
        return states

    monkeypatch.setattr(Trunk, "_run_few", counting)
    stores = (TrunkStore(1 << 28), TrunkStore(0, 1 << 28, tmp_path / "kept"))
    for store in stores:
        below.clear()
        kept = train(model, parse_one(method), task, config, store=store)
        assert kept.losses == pytest.approx(plain.losses, rel=2e-5 if family == "llama" else 1e-4)
        assert len(below) == len(task.train) + VALIDATED, "each row once"
