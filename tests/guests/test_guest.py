"""Guests in words and files."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from peftlab.errors import InputError
from peftlab.guests import Guest


def test_words() -> None:
    guest = Guest.parse("peft:oft,r=4,target_modules=q_proj+v_proj,bias=none")
    assert (guest.kind, guest.name) == ("oft", "peft:oft")
    assert guest.options == {"r": 4, "target_modules": ["q_proj", "v_proj"], "bias": "none"}
    assert guest.label == "peft:oft,bias=none,r=4,target_modules=q_proj+v_proj"
    assert Guest.parse(guest.label) == guest
    assert Guest.parse("peft:vera,target_modules=q+").options == {"target_modules": ["q"]}
    assert Guest.parse(Guest.parse("peft:vera,target_modules=q+").label).options == {
        "target_modules": ["q"]
    }
    assert json.loads(json.dumps(guest.settings())) == guest.settings()


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "adapter_config.json"
    values = {
        "peft_type": "VERA",
        "r": 8,
        "inference_mode": True,
        "peft_version": "0",
        "bias": None,
    }
    path.write_text(json.dumps(values))
    assert Guest.parse(f"peft:{path}") == Guest("vera", {"r": 8})
    assert Guest.parse(f"peft:{path},r=2") == Guest("vera", {"r": 2})
    for text, reason in (
        ("{", "damaged"),
        ("{}", "names no peft_type"),
        ("[]", "an object was expected"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=reason):
            Guest.parse(f"peft:{path}")
    with pytest.raises(InputError, match="is missing"):
        Guest.parse(f"peft:{tmp_path}/none.json")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("peft:ofts", 'Did you mean "oft"'),
        ("peft:oft,ranks=3", "has no option 'ranks'"),
        ("peft:oft,4", "'4' is no option; key=value"),
    ],
)
def test_bad_words(text: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        Guest.parse(text)


def test_options_that_peft_refuses() -> None:
    guest = Guest.parse("peft:ia3,target_modules=a+b,feedforward_modules=c+")
    with pytest.raises(InputError, match="PEFT refuses its options"):
        guest.config(10)


def test_without_peft(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft.mapping", None)
    with pytest.raises(InputError, match="pip install 'peftlab"):
        Guest.parse("peft:oft")


def test_planned_methods_are_told_the_length_of_training() -> None:
    config = Guest.parse("peft:adalora,tinit=1,tfinal=1").config(77)
    assert config.total_step == 77
    assert Guest.parse("peft:adalora,total_step=9,tinit=1,tfinal=1").config(77).total_step == 9
