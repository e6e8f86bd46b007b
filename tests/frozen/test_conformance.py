"""Families that must work, families that must be refused, and failures that the check must see."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from peftlab.errors import InputError
from peftlab.frozen.conformance import UnsupportedModel
from peftlab.frozen.model import FrozenLM
from tests.models import REQUIRED, frozen, tiny


@pytest.mark.parametrize("family", REQUIRED)
def test_required_families_pass_at_every_site(family: str) -> None:
    gaps = {site: why for site, why in frozen(family).conformance.sites.items() if why}
    assert set(gaps) <= ({"parallel"} if family == "opt" else set())


@pytest.mark.parametrize("family", ["falcon", "bloom", "gptj"])
def test_families_that_bypass_our_attention_are_refused(family: str) -> None:
    with pytest.raises(UnsupportedModel, match="AttentionInterface"):
        FrozenLM(tiny(family))


def test_a_family_that_ignores_its_window_in_our_attention_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from peftlab.frozen import attention

    real = attention.attend_row
    monkeypatch.setattr(
        attention,
        "attend_row",
        lambda b, q, k, v, rule: real(b, q, k, v, attention.Rule(rule.scale)),
    )
    with pytest.raises(UnsupportedModel, match="differ from separate ones"):
        FrozenLM(tiny("mistral"))


def test_names_and_saved_weights_are_those_of_the_plain_model(tmp_path: Path) -> None:
    plain = tiny("gpt2")
    names = list(plain.state_dict())
    lm = FrozenLM(tiny("gpt2"))
    assert list(lm.model.state_dict()) == names
    lm.model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    ids = torch.arange(5, 25)[None]
    torch.testing.assert_close(again.eval()(ids).logits, plain.eval()(ids).logits)


def test_a_folder_without_weights_is_one_clear_error(tmp_path: Path) -> None:
    tiny("gpt2").config.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="cannot load a model from"):
        FrozenLM.load(tmp_path)
