"""LLaMA-Adapter in PEFT's layout (ADAPTION_PROMPT): a prompt [1, P, D] and a gate [1] a block.

PEFT has one gate a block, without tanh; a tanh is taken on saving. Its definition is the paper's
on Llama and Mistral only: on GPT-2 it adds its term after the output projection without projecting
it, and where the output projection has a bias it adds that bias twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from peftlab.errors import InputError
from peftlab.export.peft.folder import PeftFolder
from peftlab.export.peft.modules import key
from peftlab.methods.base import Method, State
from peftlab.methods.llama_adapter import LlamaAdapter

if TYPE_CHECKING:
    from peftlab.frozen.model import FrozenLM
    from peftlab.methods.adaptation import Adaptation

_FAMILIES = ("llama", "mistral")
_KNOWN = {"target_modules", "adapter_len", "adapter_layers"}
_MODULE = "self_attn"


def differs(model: FrozenLM) -> str | None:
    """Why PEFT computes something else than the paper on this base; None where it does not."""
    shape = model.shape
    if shape.family == "gpt2":
        return "on GPT-2 PEFT adds the prompt's term after the output projection, unprojected"
    if shape.family not in _FAMILIES:
        return f"PEFT knows adaption prompts on {' and '.join(_FAMILIES)} only, not {shape.family}"
    if any(name.endswith("o_proj.bias") for name in shape.parameters):
        return "PEFT adds the output projection's bias twice"
    if shape.heads * shape.head_dim != shape.hidden:
        return "PEFT takes the head size for the hidden size divided by the heads"
    return None


def write(
    adaptation: Adaptation, model: FrozenLM
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Prompts and gates of the top blocks.

    Raises:
        InputError: PEFT's definition differs on this base, or gates differ between heads.
    """
    method = adaptation.method
    assert isinstance(method, LlamaAdapter)
    if reason := differs(model):
        raise InputError(
            f"this llama_adapter cannot become a PEFT adapter: {reason}. Its logits would not be "
            "these. Keep peftlab's own format, or train prefix_tuning or lora for use in PEFT."
        )
    if method.gate != "layer":
        raise InputError(
            "PEFT has one gate a block, and this llama_adapter has one a head. Train it with "
            "llama_adapter:gate=layer, or keep peftlab's own format."
        )
    tensors = {}
    for block in method.blocks(model.shape):
        path = f"{model.shape.block_prefix}{block}.{_MODULE}"
        gate = adaptation.state.tensors[f"{block}.gate"]
        prompt = adaptation.state.tensors[f"{block}.prompt"]
        tensors[key(path, "adaption_gate")] = torch.tanh(gate) if method.tanh else gate
        tensors[key(path, "adaption_prompt")] = prompt.unsqueeze(0)
    config = {
        "target_modules": _MODULE,
        "adapter_len": method.length,
        "adapter_layers": len(method.blocks(model.shape)),
    }
    return config, tensors


def read(folder: PeftFolder) -> tuple[Method, State]:
    """The same as `gate=layer, tanh=false`."""
    folder.understand(_KNOWN)
    if reason := differs(folder.model):
        raise InputError(
            f"{folder.path.parent} is an ADAPTION_PROMPT, whose logits here would not be PEFT's: "
            f"{reason}"
        )
    shape, length = folder.model.shape, folder.number("adapter_len")
    method = LlamaAdapter(
        length=length, layers=folder.number("adapter_layers"), gate="layer", tanh=False
    )
    paths = {
        block: f"{shape.block_prefix}{block}.{_MODULE}"
        for block in range(max(0, shape.layers - method.layers), shape.layers)
    }
    for path in paths.values():
        folder.expect(key(path, "adaption_prompt"), (1, length, shape.hidden))
        folder.expect(key(path, "adaption_gate"), (1,))
    folder.settle(method)
    tensors = {}
    for block, path in paths.items():
        tensors[f"{block}.prompt"] = folder.take(key(path, "adaption_prompt")).squeeze(0)
        tensors[f"{block}.gate"] = folder.take(key(path, "adaption_gate"))
    return method, State(tensors)
