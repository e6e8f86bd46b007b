"""The family `real`: the model in the folder that PEFTLAB_REAL_MODEL names, for tests/real.

Laws and other tests are functions of a family's name. Called with `real`, they hold on that model
what they hold on the tiny ones; nothing of them is written twice.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

REAL = "real"
FOLDER = os.environ.get("PEFTLAB_REAL_MODEL", "")
GGUF = Path(os.environ.get("PEFTLAB_REAL_GGUF", f"{FOLDER.rstrip('/')}.gguf"))
"""The file that the folder was made of; by default beside it, with its name."""


def plain() -> PreTrainedModel:
    """transformers' own reading, in fp32, anew at each call: a test may change it."""
    made: PreTrainedModel = AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32)
    made.name_or_path = made.config._name_or_path = ""  # as of the tiny ones, which no file names
    return made.eval()


@cache
def tokenizer() -> Any:
    """transformers' own reading of the folder's tokenizer."""
    return AutoTokenizer.from_pretrained(FOLDER)
