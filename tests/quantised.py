"""Tiny models whose linear maps are kept in 8 or 4 bits, loaded from a folder as users' are."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from peftlab.frozen import quantised
from peftlab.frozen.model import FrozenLM
from tests.laws import world
from tests.models import tiny


@lru_cache
def folder(family: str) -> Path:
    """A checkpoint of the tiny model with the laws' tokenizer."""
    place = Path(tempfile.mkdtemp(prefix="peftlab-tests-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    tiny(family).save_pretrained(place)
    world.tokenizer().save_pretrained(place)
    return place


@lru_cache(maxsize=16)
def base(family: str, dtype: str) -> FrozenLM:
    """A frozen model in a format; no test may change it."""
    return FrozenLM.load(folder(family), dtype=dtype)


def plain_twin(lm: FrozenLM, family: str) -> PreTrainedModel:
    """A plain fp32 model that holds the weights as bitsandbytes itself dequantises them."""
    from transformers.integrations.bitsandbytes import dequantize_bnb_weight

    twin = AutoModelForCausalLM.from_pretrained(folder(family), dtype=torch.float32)
    stored = dict(lm.model.named_modules())
    for path, module in twin.named_modules():
        if not quantised.is_quantised(stored[path]):
            continue
        held = stored[path]
        state = getattr(held, "state", None)
        weight = dequantize_bnb_weight(held.weight, state).float()
        own = module.weight
        own.data.copy_(weight.T if type(module).__name__ == "Conv1D" else weight)
    return twin
