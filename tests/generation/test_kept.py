"""Prompts that are kept change no reply, and are not read again below the adapted blocks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from peftlab.generation import Request, generate
from peftlab.methods import parse
from peftlab.tasks import Decoding
from peftlab.trunk import TrunkStore
from tests.generation.test_generate import _adaptation
from tests.laws import world

_METHODS = (
    "last_k:k=1,llama_adapter:layers=1,lora:layers=1,bottleneck:bottleneck=4,last_k:k=2,lora,"
    "prompt_tuning"
)


def _requests(family: str, methods: str = _METHODS) -> list[Request]:
    return [
        Request(_adaptation(family, method, seed), example.source, 6)
        for seed, method in enumerate(parse(methods))
        for example in world.task().test[:3]
    ]


@pytest.mark.parametrize("family", world.FAMILIES)
@pytest.mark.parametrize("limits", [(1 << 30, 0), (0, 1 << 30), (0, 0), (5_000, 0)])
@pytest.mark.parametrize("beams", [1, 2])
def test_replies_are_the_same_at_every_reading(
    family: str, limits: tuple[int, int], beams: int, tmp_path: Path
) -> None:
    model, requests = world.model(family), _requests(family)
    decoding = Decoding(beams=beams)
    expected = [r.tokens for r in generate(model, requests, decoding)]
    store = TrunkStore(*limits, tmp_path / "kept")
    for _ in range(2):
        replies = generate(model, requests, decoding, batch_size=5, store=store)
        assert [r.tokens for r in replies] == expected
    assert store.bytes_in_memory <= limits[0] and store.bytes_on_disk <= limits[1]


@pytest.mark.parametrize("family", world.FAMILIES)
def test_the_lower_blocks_do_not_read_a_kept_prompt(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, store = world.model(family), TrunkStore(1 << 30)
    lowest = model.model.get_submodule(f"{model.shape.block_prefix}0").mlp
    plain, read = lowest.forward, list[int]()

    def counted(hidden: torch.Tensor, *args: object) -> torch.Tensor:
        read.append(hidden.shape[-2])
        return plain(hidden, *args)  # type: ignore[no-any-return]

    monkeypatch.setattr(lowest, "forward", counted)
    top = model.shape.layers - 1
    one, other = (_requests(family, "last_k:k=1")[:1], _requests(family, f"lora:layers={top}")[:1])
    generate(model, one, store=store)
    assert max(read) > 1, "the prompt was read"
    read.clear()
    generate(model, other, store=store)  # another method on the same prompt
    assert set(read) == {1}, "only new tokens run through the lower blocks"
