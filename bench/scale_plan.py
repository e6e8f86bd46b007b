"""What large plans cost: closed formulas from a model's shape, and assumptions that are said."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Any

from bench.queueing import expected_hits, zipf
from peftlab.bases.layouts import parameter_shapes
from peftlab.bases.shapes import ModelShape
from peftlab.comparison.label import parse

FORMAT_BYTES = {"fp32": 4.0, "bf16": 2.0, "int8": 1.0, "nf4": 0.5 + 4 / 64}  # a scale for 64 of nf4

# Llama 3's 70 B, by its config.json.
LLAMA_70B = {
    "model_type": "llama",
    "hidden_size": 8192,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "intermediate_size": 28672,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": False,
}


@dataclass(frozen=True)
class Machine:
    """Assumed of one GPU and of the share of it that our code reaches.

    Attributes:
        memory: bytes. flops: of bf16 matrices, a second. bandwidth: bytes a second.
        training, decoding: shares of those two that are reached. price: dollars an hour.
        disk: bytes a second that adapters are read with.
    """

    name: str = "H100 SXM"
    memory: float = 80e9
    flops: float = 989e12
    bandwidth: float = 3.35e12
    training: float = 0.35
    decoding: float = 0.6
    price: float = 2.5
    disk: float = 2e9


def large_shape() -> ModelShape:
    """The shape of the 70 B base; no weights are needed."""
    return ModelShape.read(LLAMA_70B, parameter_shapes(LLAMA_70B))


def weights(shape: ModelShape) -> dict[str, float]:
    """Bytes of a base by number format; embeddings and head stay as they are in int8 and nf4."""
    apart = 2 * shape.vocab * shape.hidden
    inner = shape.size - apart
    return {name: inner * size + apart * max(size, 2.0) for name, size in FORMAT_BYTES.items()}


def training_seconds(shape: ModelShape, passes: float, machine: Machine) -> float:
    """Of tokens through the base, those of a backward pass counted once more, as budgets do."""
    return 2 * shape.size * passes / (machine.flops * machine.training)


def activations(shape: ModelShape, tokens: int, recompute: bool) -> float:
    """Bytes kept for the backward pass of so many packed tokens, in bf16.

    With recomputation a block keeps its input alone; without, about 34 values a token and hidden
    unit (Korthikanti et al. 2022, without attention scores, which are never written).
    """
    return shape.layers * tokens * shape.hidden * (2.0 if recompute else 34.0)


def keys_values(shape: ModelShape) -> float:
    """Bytes of a position's keys and values, in bf16."""
    return 2 * 2.0 * shape.kv_heads * shape.head_dim * shape.layers


def step_seconds(shape: ModelShape, dtype: str, machine: Machine) -> float:
    """Of a decoding step: the weights are read once; quantised ones are also written and read."""
    moved = weights(shape)[dtype]
    if dtype in ("int8", "nf4"):
        moved += 2 * weights(shape)["bf16"]
    return moved / (machine.bandwidth * machine.decoding)


def adapter_bytes(shape: ModelShape, method: str) -> int:
    """Of one adapter's numbers in fp32."""
    (parsed,) = parse(method)
    return 4 * int(parsed.count(shape).stored)  # type: ignore[union-attr]


def adapters(
    size: float, count: int, memory: float, exponent: float, machine: Machine
) -> dict[str, Any]:
    """Many adapters of which some fit into memory: bytes on disk, hits, and what a miss waits."""
    slots = max(1, int(memory // size))
    share = expected_hits(zipf(count, exponent), min(slots, count))
    return {
        "disk": count * size,
        "slots": min(slots, count),
        "hits": share,
        "miss_seconds": size / machine.disk,
    }


def nodes_needed(seconds: float, hours: float) -> int:
    """Machines that end work of so many seconds within these hours, if it could be split freely."""
    return ceil(seconds / (hours * 3600))
