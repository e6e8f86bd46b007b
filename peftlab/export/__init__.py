"""Adaptations leave peftlab: as PEFT adapters, merged models, GGUF, embedding rows, or for vLLM.

Every way out checks that what it writes gives the adaptation's own logits, or refuses with the
reason and the nearest alternative.
"""

from peftlab.export import peft
from peftlab.export.embedding_rows import EmbeddingRows, embedding_rows
from peftlab.export.gguf import ForLlamaCpp, gguf, gguf_lora
from peftlab.export.hub import kind_of, push
from peftlab.export.kinds import KINDS, export, refusal
from peftlab.export.merging import Merged, merged
from peftlab.export.opening import noted_base, open_adaptation
from peftlab.export.vllm import ForVllm, vllm

__all__ = [
    "KINDS",
    "EmbeddingRows",
    "ForLlamaCpp",
    "ForVllm",
    "Merged",
    "embedding_rows",
    "export",
    "gguf",
    "gguf_lora",
    "kind_of",
    "merged",
    "noted_base",
    "open_adaptation",
    "peft",
    "push",
    "refusal",
    "vllm",
]
