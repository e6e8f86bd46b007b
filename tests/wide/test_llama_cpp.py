"""What we write as GGUF, llama.cpp runs as we do: greedy tokens and their log-probabilities."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from peftlab.export import gguf, gguf_lora
from peftlab.export.cue import invocation
from peftlab.export.gguf import ADAPTER, MODEL
from peftlab.frozen.packing import Row, pack
from peftlab.methods.adaptation import Adaptation
from peftlab.pasts import continued
from peftlab.tasks import Example, Template
from tests import real_model
from tests.export.made import made
from tests.export.test_gguf import unchanged
from tests.laws.world import model as frozen
from tests.wide.conftest import PYTHON

ASK = Path(__file__).parent / "llama_cpp.py"
TOKENS = 8
TEXTS = ("the cat sings", "a bird near the old river sleeps")
_REAL = [real_model.REAL] if real_model.FOLDER else []
FAMILIES = ("llama", "qwen2", "qwen3", *_REAL)


def asked(model: Path, prompts: list[list[int]], lora: Path | None = None) -> list[Any]:
    """llama.cpp's replies: by token its id and log-probability."""
    given = {"model": str(model), "lora": str(lora or ""), "prompts": prompts, "tokens": TOKENS}
    done = subprocess.run(
        [PYTHON, str(ASK)], input=json.dumps(given), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    replies = json.loads(done.stdout)
    return [reply["choices"][0]["logprobs"]["content"] for reply in replies]


def adapted(spec: str, family: str) -> Adaptation:
    """With ends that no text of the world's tokenizer comes to, so that replies are long."""
    return replace(made(spec, family), template=Template("{source}\nsay it: {target}"))


def alike(
    replies: list[Any], adaptation: Adaptation, family: str, prompts: list[list[int]]
) -> None:
    """Both choose the same tokens, as nearly as rounding lets them, with equal probability."""
    lm = frozen(family)
    edits = adaptation.edits(lm)
    for reply, prompt in zip(replies, prompts, strict=True):
        made_ids = [one["id"] for one in reply]
        assert len(made_ids) == TOKENS
        begin = len(prompt) - len(invocation(adaptation, lm)) if edits.begin == "cue" else 0
        whole = Row([*prompt, *made_ids[:-1]], 0, len(prompt) - 1, begin=begin)
        rows = continued(lm, [whole])
        with torch.no_grad():
            (logits,) = (lambda batch: batch.split_kept(lm(batch)))(pack(rows, [edits]))
        own = logits.float().log_softmax(-1)
        others = own.clone()
        others[:, lm.tokenizer.eos_token_id] = float("-inf")  # which it was told to ignore
        best = others.max(-1).values
        for step, one in enumerate(reply):
            assert float(own[step, one["id"]]) == pytest.approx(one["logprob"], abs=5e-3)
            assert float(best[step] - own[step, one["id"]]) < 5e-3, "another token"


def prompts_of(adaptation: Adaptation, family: str) -> list[list[int]]:
    lm = frozen(family)
    template = adaptation.edits(lm).template or adaptation.template
    examples = [Example(text, ()) for text in TEXTS]
    return [list(template.encode(lm.tokenizer, one, None, 90).ids) for one in examples]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("spec", ["lora:rank=2", "lora:rank=2,dora=true", "full", "ia3"])
def test_a_merged_model(spec: str, family: str, tmp_path: Path) -> None:
    adaptation = adapted(spec, family)
    gguf(adaptation, frozen(family), tmp_path, "f32")
    prompts = prompts_of(adaptation, family)
    alike(asked(tmp_path / MODEL, prompts), adaptation, family, prompts)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("spec", ["lora:rank=4,alpha=3", "lora:rank=3,targets=q+k"])
def test_an_adapter_beside_its_base(spec: str, family: str, tmp_path: Path) -> None:
    adaptation, lm = adapted(spec, family), frozen(family)
    gguf(unchanged(family), lm, tmp_path / "base", "f32")
    gguf_lora(adaptation, lm, tmp_path / "lora")
    prompts = prompts_of(adaptation, family)
    replies = asked(tmp_path / "base" / MODEL, prompts, tmp_path / "lora" / ADAPTER)
    alike(replies, adaptation, family, prompts)
    with pytest.raises(AssertionError):  # the adapter does something
        alike(asked(tmp_path / "base" / MODEL, prompts), adaptation, family, prompts)


def test_one_that_begins_at_the_cue_begins_there(tmp_path: Path) -> None:
    """llama.cpp's aLoRA: what comes before the tokens is the base's."""
    adaptation, lm = adapted("lora:rank=4,begin=cue", "llama"), frozen("llama")
    gguf(unchanged("llama"), lm, tmp_path / "base", "f32")
    gguf_lora(adaptation, lm, tmp_path / "lora")
    prompts = prompts_of(adaptation, "llama")
    replies = asked(tmp_path / "base" / MODEL, prompts, tmp_path / "lora" / ADAPTER)
    alike(replies, adaptation, "llama", prompts)
