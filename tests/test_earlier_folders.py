"""Folders that commit 337d2ee wrote are read as they are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import peftlab as pl
from peftlab.records.reading import read

EARLIER = Path(__file__).parent / "data" / "commit_337d2ee"
REPLIES = [json.loads(line) for line in (EARLIER / "replies.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def model() -> pl.FrozenLM:
    return pl.load("demo", device="cpu")


@pytest.mark.parametrize("reply", REPLIES, ids=[reply["adapter"] for reply in REPLIES])
def test_its_adapters_answer_as_they_did(reply: dict[str, str], model: pl.FrozenLM) -> None:
    adaptation = pl.load_adaptation(EARLIER / "adapters" / reply["adapter"], model)
    (answer,) = pl.generate(model, [(adaptation, reply["source"])], max_new_tokens=12)
    assert (answer.text, answer.finished) == (reply["text"], reply["finished"])


def test_its_records_are_read_whole() -> None:
    stored = read(EARLIER / "comparison")
    assert not stored.problems
    labels = ("hard_prompt", "lora:rank=1,targets=q+v", "peft:ia3", "prompt_tuning:length=2")
    runs = sorted((run.record.label, run.record.seed) for run in stored.runs)
    assert runs == [(label, seed) for label in labels for seed in (0, 1)]
    lora = next(run.record for run in stored.runs if run.record.label == "lora:rank=1,targets=q+v")
    assert lora.progress is not None and lora.progress.forward_tokens  # `passes` there
    assert lora.parameters.trainable == 3072
