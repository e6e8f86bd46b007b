"""What an adapter's folder notes of its base, in either format, and expressions in bounded time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from peftlab import export
from peftlab.admission import OtherBase
from peftlab.errors import InputError
from peftlab.export.peft import modules
from peftlab.export.peft.folder import PeftFolder
from tests.export.made import made
from tests.models import frozen


def test_the_base_of_either_format_is_known(tmp_path: Path) -> None:
    adaptation = made("lora:rank=2", "gpt2")
    adaptation.save(tmp_path / "own")
    export.peft.save(adaptation, frozen("gpt2"), tmp_path / "peft")
    for name in ("own", "peft"):
        noted = export.noted_base(tmp_path / name)
        assert (noted["name"], noted["dtype"]) == ("gpt2", "fp32")
    (tmp_path / "peft" / "peftlab.json").unlink()
    assert export.noted_base(tmp_path / "peft") == {"name": "gpt2"}
    _change(tmp_path / "peft", base_model_name_or_path=None)
    with pytest.raises(InputError, match="--model"):
        export.noted_base(tmp_path / "peft")
    with pytest.raises(InputError, match=r"adaptation\.json.*adapter_config\.json"):
        export.noted_base(tmp_path)


def test_a_peft_adapter_that_names_another_base_is_used_with_a_warning(tmp_path: Path) -> None:
    export.peft.save(made("lora:rank=2", "gpt2"), frozen("gpt2"), tmp_path)
    (tmp_path / "peftlab.json").unlink()
    for same in ("gpt2", "openai-community/gpt2", "/models/GPT2", None):
        _change(tmp_path, base_model_name_or_path=same)
        export.open_adaptation(tmp_path, frozen("gpt2"))
    _change(tmp_path, base_model_name_or_path="facebook/opt-125m")
    with pytest.warns(OtherBase, match=r"names facebook/opt-125m as its base and is used on gpt2"):
        export.open_adaptation(tmp_path, frozen("gpt2"))


def _change(folder: Path, **values: object) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def test_expressions_take_bounded_time_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = PeftFolder(Path("it") / "adapter_model.safetensors", {}, frozen("gpt2"))
    bomb = modules.Expression(folder, "(([a-z0-9_.])+)+!")  # `re` would take years
    assert not bomb.match("transformer.h.0.attn.c_attn.and.many.more")
    assert modules.Expression(folder, r".*\.(c_attn|c_fc)").match("h.0.c_fc")
    assert not modules.Expression(folder, "c_fc").match("h.c_fc")  # the whole name
    for pattern, words in (
        ("((a{1000}){1000}){1000}", "too large"),
        ("a" * 20_000, "too large"),
        ("(", "cannot be read"),
        ("(" * 2000 + ")" * 2000, "cannot be read"),
    ):
        with pytest.raises(InputError, match=words):
            modules.Expression(folder, pattern)
    folder.seconds = modules._SECONDS
    with pytest.raises(InputError, match="takes more than"):
        bomb.match("one more")
