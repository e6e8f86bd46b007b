"""For vLLM: LoRA as PEFT folders, soft prompts as vectors that a client sends with each request.

vLLM removed prompt adapters in version 0.10; what it takes instead is `prompt_embeds`, the embedded
prompt of one request. `python -m peftlab.export.send` embeds a text with its soft prompt, wherever
its pseudo tokens stand, and sends it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from peftlab.errors import InputError
from peftlab.export import peft, plain
from peftlab.export.cue import begins_at_cue
from peftlab.export.embedding_rows import embedding_scale, soft_prompt
from peftlab.export.files import write_tensors
from peftlab.export.instead import AS_LORA
from peftlab.files import make_folder, together, write_json, write_text
from peftlab.methods.adaptation import Adaptation
from peftlab.methods.lora import LoRA

if TYPE_CHECKING:
    from peftlab.frozen.model import FrozenLM

PROMPTS, VECTORS = "prompts.json", "prompts.safetensors"

_SOFT = ("prompt_tuning", "p_tuning")
_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # what vLLM's --max-lora-rank takes
_REFUSED = {
    "prefix_tuning": "it takes no keys and values from outside; peftlab's own server and PEFT do",
    "llama_adapter": "it has no gated prompts inside attention; peftlab's own server has",
    "bottleneck": "it has no bottleneck adapters; peftlab's own server has",
    "ia3": "it has no IA3; the merged export is exact",
    "bitfit": "it has no trained biases; the merged export is exact where the base has biases",
    "last_k": "it takes whole checkpoints only; use the merged export",
    "layers": "it takes whole checkpoints only; use the merged export",
    "intrinsic": "it takes whole checkpoints only; use the merged export",
    "full": "it takes whole checkpoints only; use the merged export",
    "hard_prompt": "there is nothing to load; send the prompt's text to the base",
}


@dataclass(frozen=True)
class ForVllm:
    """The folder, the command that starts the server, and one that sends a request a task."""

    folder: Path
    serve: str
    send: Mapping[str, str]


def vllm(adaptations: Mapping[str, Adaptation], model: FrozenLM, folder: Path | str) -> ForVllm:
    """Write what vLLM needs to serve these adaptations of one base.

    Raises:
        InputError: vLLM cannot serve one of them, with the reason and the nearest alternative.
    """
    folder = Path(folder)
    for name, adaptation in adaptations.items():
        refuse(name, adaptation)
    loras = {n: a for n, a in adaptations.items() if isinstance(a.method, LoRA)}
    soft = {n: a for n, a in adaptations.items() if n not in loras}
    ranks = [_saved_lora(adaptation, model, folder / name) for name, adaptation in loras.items()]
    if soft:
        _save_prompts(soft, model, folder)
    result = ForVllm(
        folder,
        _serve(model.name, [f"{n}={folder / n}" for n in loras], ranks, bool(soft)),
        {name: _send(folder, name) for name in soft},
    )
    make_folder(folder)
    write_text(folder / "SERVE.md", _readme(result))
    return result


def refuse(name: str, adaptation: Adaptation) -> None:
    """Refuse what vLLM has no place for.

    Raises:
        InputError: with the reason and the nearest alternative.
    """
    method = adaptation.method
    if begins_at_cue(adaptation):
        raise InputError(
            f"{name}: {method.name} begins at the cue, which vLLM cannot hold; peftlab's own "
            f"server serves it, and {AS_LORA}."
        )
    if (isinstance(method, LoRA) and not method.dora) or method.name in _SOFT:
        return
    reason = _REFUSED.get(method.name, "it serves one kind of adapter a request")
    if isinstance(method, LoRA):
        reason = "it does not support DoRA; the merged export is exact"
    raise InputError(f"{name}: vLLM cannot serve {method.name}: {reason}; {AS_LORA}.")


def _saved_lora(adaptation: Adaptation, model: FrozenLM, folder: Path) -> int:
    """Write the PEFT folder; returns the smallest --max-lora-rank that lets it in."""
    peft.save(adaptation, model, folder)
    rank = peft.rank_of(folder)
    if rank > _RANKS[-1]:
        raise InputError(
            f"{folder.name}: vLLM takes LoRA up to rank {_RANKS[-1]}, and this one is stored with "
            f"{rank}; the merged export has no limit"
        )
    return next(r for r in _RANKS if r >= rank)


def _save_prompts(soft: Mapping[str, Adaptation], model: FrozenLM, folder: Path) -> None:
    table = model.model.get_input_embeddings().weight
    name = next(n for n, p in model.model.named_parameters() if p is table)
    vectors = {n: soft_prompt(n, a, model) for n, a in soft.items()}
    described: dict[str, Any] = {"base": model.name, "embedding": name}
    described |= {"embedding_scale": embedding_scale(model), "context": model.shape.context}
    described["tasks"] = {
        n: (a.edits(model).template or a.template).to_dict() for n, a in soft.items()
    }
    with together(folder) as place:
        write_tensors(place / VECTORS, {n: _checked(n, v) for n, v in vectors.items()})
        write_json(place / PROMPTS, plain.about("vllm", described))


def _checked(name: str, vectors: torch.Tensor) -> torch.Tensor:
    if not vectors.isfinite().all():
        raise InputError(f"{name}: its prompt holds NaN or infinite values, which vLLM refuses")
    return vectors


def _serve(base: str, loras: list[str], ranks: list[int], soft: bool) -> str:
    options = [f"vllm serve {base}"]
    if loras:
        options.append(f"--enable-lora --max-lora-rank {max(ranks)}")
        options.append(f"--lora-modules {' '.join(loras)}")
    if soft:
        options.append("--enable-prompt-embeds")
    return " ".join(options)


def _send(folder: Path, name: str) -> str:
    server = "--server http://localhost:8000"
    return f'python -m peftlab.export.send {folder} {name} {server} --source "…"'


def _readme(result: ForVllm) -> str:
    lines = ["# For vLLM", "", "Start the server:", "", f"    {result.serve}", ""]
    if result.send:
        lines += ["Send a text with its task's soft prompt:", ""]
        lines += [f"    {command}" for command in result.send.values()]
        lines += ["", "The vectors travel as `prompt_embeds`; the server needs no adapter.", ""]
    lines += [
        "LoRA needs a model class that vLLM lists with LoRA support. Its GPT-2 had none when this",
        "was written: use the merged export there.",
        "",
    ]
    return "\n".join(lines)
