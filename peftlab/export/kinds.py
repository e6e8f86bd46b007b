"""The exports by name, as `peftlab export --to` has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from peftlab.errors import InputError, nearest
from peftlab.export import peft
from peftlab.export.embedding_rows import EmbeddingRows, embedding_rows
from peftlab.export.gguf import ForLlamaCpp, adapter, gguf, gguf_lora
from peftlab.export.merging import Merged, merged
from peftlab.export.vllm import ForVllm, refuse, vllm
from peftlab.methods.adaptation import Adaptation

if TYPE_CHECKING:
    from peftlab.frozen.model import FrozenLM

KINDS = ("peft", "merged", "embedding-rows", "vllm", "gguf", "gguf-lora")


def export(
    kind: str, adaptations: Mapping[str, Adaptation], model: FrozenLM, folder: Path | str
) -> Path | Merged | EmbeddingRows | ForVllm | ForLlamaCpp:
    """Write adaptations of one base, by the names that an engine will know them under.

    Raises:
        InputError: no such kind, several adaptations where one folder holds one, or what the kind
            itself refuses.
    """
    if kind not in KINDS:
        raise InputError(
            f"no export is called {kind!r}; there are {', '.join(KINDS)}.{nearest(kind, KINDS)}"
        )
    if kind == "embedding-rows":
        return embedding_rows(adaptations, model, folder)
    if kind == "vllm":
        return vllm(adaptations, model, folder)
    if len(adaptations) != 1:
        raise InputError(f"{kind} writes one adaptation a folder; got {len(adaptations)}")
    (adaptation,) = adaptations.values()
    one: Mapping[str, Callable[..., Path | Merged | ForLlamaCpp]] = {
        "peft": peft.save, "merged": merged, "gguf": gguf, "gguf-lora": gguf_lora,
    }  # fmt: skip
    return one[kind](adaptation, model, folder)


def refusal(kind: str, name: str, adaptation: Adaptation, model: FrozenLM) -> str | None:
    """Why an engine that takes LoRA cannot take an adaptation as it is; None where it can."""
    refuses: Mapping[str, Callable[[], object]] = {
        "peft": lambda: peft.check(adaptation),
        "vllm": lambda: refuse(name, adaptation),
        "gguf-lora": lambda: adapter.check(adaptation, model),
    }
    try:
        if kind in refuses:
            refuses[kind]()
    except InputError as error:
        return str(error)
    return None
