"""How the numbers of a frozen base are kept: the names, and what a base takes in each. No torch.

int8 and nf4 are of the linear maps inside the blocks; embeddings, head, norms, biases and experts
stay in the checkpoint's own format (bf16, or fp32 where that is anything else).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, Final

from peftlab.errors import nearest

FORMATS: Final = ("fp32", "bf16", "int8", "nf4")
QUANTISED: Final = ("int8", "nf4")

_BYTES: Final = {"fp32": 4.0, "bf16": 2.0, "int8": 1.0, "nf4": 0.5}
_NF4_SCALES: Final = 1 / 64 + 4 / (64 * 256)  # of a block of 64 one byte, of 256 of those a float


def formats(asked: str | Sequence[str]) -> tuple[str, ...]:
    """`fp32,nf4` as a tuple, or the names of a list.

    Raises:
        ValueError: an unknown name, or one twice.
    """
    names = asked.split(",") if isinstance(asked, str) else asked
    names = tuple(str(part).strip() for part in names)
    for name in names:
        if name not in FORMATS:
            raise ValueError(f"one or more of {', '.join(FORMATS)}", nearest(name, FORMATS))
    if not names or len(set(names)) < len(names):
        raise ValueError("each format once")
    return names


def rest_format(config: Mapping[str, Any]) -> str:
    """The format of what a quantised base does not quantise: the checkpoint's own.

    fp16 becomes fp32, since it overflows without the loss scaling that a frozen base lacks.
    """
    own = str(config.get("dtype") or config.get("torch_dtype") or "")
    return "bf16" if own.endswith("bfloat16") else "fp32"


def base_bytes(
    config: Mapping[str, Any], parameters: Mapping[str, tuple[int, ...]], name: str
) -> int:
    """What the weights of a base take in a format.

    Args:
        parameters: the names and shapes of all of them, tied ones once.
    """
    if name not in QUANTISED:
        return round(_BYTES[name] * sum(map(prod, parameters.values())))
    rest, total = _BYTES[rest_format(config)], 0.0
    for path, shape in parameters.items():
        if not quantises(path, shape):
            total += rest * prod(shape)
        elif name == "int8":
            total += prod(shape) + 4 * max(shape)  # a scale a row
        else:
            total += (_BYTES[name] + _NF4_SCALES) * prod(shape)
    return round(total)


def quantises(path: str, shape: tuple[int, ...]) -> bool:
    """Whether a parameter is of the kind that int8 and nf4 store: a matrix inside a block."""
    inside = any(part.isdigit() for part in path.split("."))
    return inside and len(shape) == 2 and path.endswith(".weight") and "norm" not in path
