"""Adapters that PEFT has saved, served from their folders, reply as PEFT itself does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import pytest
import torch

from peftlab.serve import Engine, Library, Limits, ServeRequest
from tests.export.made import deprecations_of_peft
from tests.laws import world as laws
from tests.models import tiny
from tests.serve.world import run, sources

_KIND: dict[str, Any] = {"task_type": "CAUSAL_LM"}
CONFIGS = {
    "lora": lambda: peft.LoraConfig(
        **_KIND, r=4, lora_alpha=9, target_modules=["c_attn", "c_fc"], fan_in_fan_out=True
    ),
    "dora": lambda: peft.LoraConfig(
        **_KIND, r=2, target_modules=["c_attn"], use_dora=True, fan_in_fan_out=True
    ),
    "ia3": lambda: peft.IA3Config(
        **_KIND, target_modules=["c_attn", "mlp.c_proj"], feedforward_modules=["mlp.c_proj"],
        fan_in_fan_out=True,
    ),
    "prompt": lambda: peft.PromptTuningConfig(**_KIND, num_virtual_tokens=4),
    "prefix": lambda: peft.PrefixTuningConfig(**_KIND, num_virtual_tokens=4),
}  # fmt: skip
COUNT = 8


def trained(kind: str, folder: Path) -> Any:
    """PEFT's own model with an adapter far from its start, saved."""
    torch.manual_seed(3)
    with deprecations_of_peft():
        model = peft.get_peft_model(tiny("gpt2"), CONFIGS[kind]()).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.5 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return model


def greedy(model: Any, ids: list[int]) -> tuple[list[int], float]:
    """The likeliest tokens one by one, and how near the nearest decision was."""
    made: list[int] = []
    nearest = float("inf")
    for _ in range(COUNT):
        with torch.no_grad():
            scores = model(torch.tensor([ids + made])).logits[0, -1].log_softmax(-1)
        best = scores.topk(2)
        nearest = min(nearest, float(best.values[0] - best.values[1]))
        made.append(int(best.indices[0]))
        if made[-1] == laws.tokenizer().eos_token_id:
            return made[:-1], nearest
    return made, nearest


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_reply_is_pefts(kind: str, tmp_path: Path) -> None:
    theirs = trained(kind, tmp_path / kind)
    library = Library(laws.model("gpt2"), tmp_path)
    engine = Engine(library.model, library, Limits(slots=3, capacity=64, prefill_tokens=7))
    tickets = [engine.submit(ServeRequest(kind, source, COUNT)) for source in sources()]
    run(engine)
    texts, exact = set(), 0
    for source, ticket in zip(sources(), tickets, strict=True):
        ids = laws.tokenizer()(source, add_special_tokens=False)["input_ids"]
        expected, nearest = greedy(theirs, ids)
        tokens = [token.id for token in ticket.result(0).tokens]
        assert tokens == expected or nearest < 1e-4
        exact += tokens == expected
        texts.add(tuple(expected))
    assert exact >= len(sources()) - 1 and len(texts) > 1
    plain = [greedy(tiny("gpt2").eval(), ids)[0]]
    assert plain[0] != expected, "the adapter says something of its own"
