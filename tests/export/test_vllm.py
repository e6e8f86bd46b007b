"""What a vLLM server is sent embeds to our logits; what it cannot serve is refused."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from peftlab import export
from peftlab.errors import InputError
from peftlab.export import send
from peftlab.frozen.model import FrozenLM
from peftlab.frozen.packing import Row, pack
from peftlab.methods import parse_one
from peftlab.methods.adaptation import Adaptation, base_of
from peftlab.methods.base import State
from peftlab.tasks import Example, Template
from tests.export.fake_server import serving
from tests.export.made import gap, in_peft, made, ours, theirs
from tests.laws import world
from tests.models import tiny

SOURCE = "red cat runs"


def _base(folder: Path, family: str, shard: str = "50GB") -> FrozenLM:
    """A tiny model as it lies on a disk."""
    tiny(family).save_pretrained(folder, max_shard_size=shard)
    world.tokenizer().save_pretrained(folder)
    return FrozenLM.load(folder)


def _prompt(lm: FrozenLM, spec: str) -> Adaptation:
    method = parse_one(spec)
    rng = torch.Generator().manual_seed(4)
    size = (method.settings()["length"], lm.shape.hidden)
    state = State({"prompt": torch.randn(size, generator=rng)})
    base = base_of(lm)
    return Adaptation(method, state, Template("sing {source}\nsay it: {target}"), base)


@pytest.mark.parametrize(
    ("family", "shard"), [("gpt2", "50GB"), ("llama", "20KB"), ("gemma3_text", "50GB")]
)
@pytest.mark.parametrize("spec", ["prompt_tuning:length=3", "p_tuning:length=4"])
def test_sent_prompts_give_our_logits(
    spec: str, family: str, shard: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lm = _base(tmp_path / "base", family, shard)
    assert (tmp_path / "base" / "model.safetensors").exists() == (shard == "50GB")
    adaptation = _prompt(lm, spec)
    result = export.vllm({"song": adaptation}, lm, tmp_path / "out")
    assert result.serve == f"vllm serve {tmp_path / 'base'} --enable-prompt-embeds"
    assert not list((tmp_path / "out").glob("*.pt"))

    with serving(lambda _: (200, {"choices": [{"text": " la la\n"}]})) as fake:
        words = [str(tmp_path / "out"), "song", "--source", SOURCE, "--server", fake.url]
        assert send.main([*words, "--max-tokens", "9"]) == 0
    assert capsys.readouterr().out == "la la\n"
    (asked,) = fake.asked
    body = json.loads(asked.body)
    assert (asked.path, body["max_tokens"], body["stop_token_ids"]) == ("/v1/completions", 9, [2])
    sent = torch.load(io.BytesIO(base64.b64decode(body["prompt_embeds"])), weights_only=True)
    with torch.no_grad():
        plain = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
        logits = plain(inputs_embeds=sent[None]).logits[0, -1]
        edits = adaptation.edits(lm)
        assert edits.template is not None
        ids = edits.template.encode(lm.tokenizer, Example(SOURCE, ("",)), None, 90).ids
        expected = lm(pack([Row(ids)], [edits]))[0]
    assert gap([logits], [expected]) < 1e-5


def test_errors_of_sending(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lm = _base(tmp_path / "base", "gpt2")
    export.vllm({"song": _prompt(lm, "prompt_tuning:length=3")}, lm, tmp_path)
    words = [str(tmp_path), "song", "--source", SOURCE]
    with serving(lambda _: (400, {"message": "prompt_embeds are off"})) as fake:
        assert send.main([*words, "--server", fake.url]) == 1
        assert "400" in (said := capsys.readouterr().err)
        assert "prompt_embeds are off" in said
        assert "--enable-prompt-embeds" in said
    assert send.main([*words, "--server", fake.url]) == 1
    assert f"no server at {fake.url}" in capsys.readouterr().err
    assert send.main([str(tmp_path), "sing", "--source", SOURCE]) == 1
    assert 'Did you mean "song"' in capsys.readouterr().err
    (tmp_path / "base" / "model.safetensors").unlink()
    assert send.main([*words, "--server", fake.url]) == 1
    assert "no tensor transformer.wte.weight" in capsys.readouterr().err


def test_lora_is_a_peft_folder(tmp_path: Path) -> None:
    lm, adaptation = world.model("llama"), made("lora:rank=10,targets=q+v", "llama")
    result = export.vllm({"a": adaptation}, lm, tmp_path)
    assert result.serve == (
        f"vllm serve llama --enable-lora --max-lora-rank 16 --lora-modules a={tmp_path / 'a'}"
    )
    assert result.serve in (tmp_path / "SERVE.md").read_text()
    assert gap(theirs(in_peft(tmp_path / "a", "llama")), ours(adaptation, lm)) < 1e-5


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("lora:dora=true", "does not support DoRA; the merged export"),
        ("prefix_tuning:initialisation=random", "no keys and values from outside"),
        ("llama_adapter", "no gated prompts"),
        ("bottleneck", "no bottleneck adapters"),
        ("ia3", "merged export is exact"),
        ("bitfit", "where the base has biases"),
        ("last_k", "whole checkpoints"),
        ("full", "whole checkpoints"),
        ("lora:targets=q+ia3:targets=o", "one kind of adapter a request"),
    ],
)
def test_what_vllm_cannot_serve(spec: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"song: vLLM cannot serve .*{reason}"):
        export.vllm({"song": made(spec, "gpt2")}, world.model("gpt2"), tmp_path)
    assert not list(tmp_path.iterdir())
