"""The gate of adaptations: what files hold is checked whole before anything of it is used.

Names, shapes and number formats come from a safetensors file's header, which costs no memory, and
are held against `Method.stored`; then the numbers are read, and must be finite. So a damaged file
is refused in one line, whoever opens it, and never reaches a batch that others share.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from safetensors import SafetensorError, safe_open

from peftlab.errors import InputError, listed, shown
from peftlab.lazy import torch


class OtherBase(UserWarning):
    """An adaptation may have been made on another base than the one that it is used on."""


def outline(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file without their numbers, on the meta device.

    Raises:
        InputError: it is missing (a pickled one beside it is not read), no regular file, damaged,
            or of a number format that torch lacks.
    """
    _check_regular(path)
    try:
        with safe_open(path, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            return {n: _empty(n, it.get_shape(), it.get_dtype()) for n, it in slices.items()}
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from error


def numbers(path: Path, names: Iterable[str]) -> dict[str, torch.Tensor]:
    """The tensors of those names in float32.

    Raises:
        InputError: the file is damaged, or holds numbers that are none: names the tensors.
    """
    try:
        with safe_open(path, framework="pt") as file:
            # Copied: the numbers of a file lie where it has them, and products of unaligned ones
            # round otherwise than those of the trained ones did.
            tensors = {name: file.get_tensor(name).to(torch.float32, copy=True) for name in names}
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from error
    if bad := not_finite(tensors):
        raise InputError(f"{path} cannot be used: {'; '.join(bad)}")
    return tensors


def misfits(
    tensors: Mapping[str, torch.Tensor], expected: Mapping[str, Sequence[int]]
) -> list[str]:
    """Everything that is wrong with tensors by name, shape and format, a sentence a kind."""
    missing = [f"{shown(n)} {list(s)}" for n, s in expected.items() if n not in tensors]
    surplus = [f"{shown(n)} {list(t.shape)}" for n, t in tensors.items() if n not in expected]
    both = [(n, t, list(expected[n])) for n, t in tensors.items() if n in expected]
    shape = [f"{shown(n)} {list(t.shape)}, expected {s}" for n, t, s in both if list(t.shape) != s]
    kind = [
        f"{shown(n)} {t.dtype}, expected float32, bfloat16 or float16"
        for n, t, _ in both
        if t.dtype not in (torch.float32, torch.bfloat16, torch.float16)
    ]
    kinds = {"missing": missing, "surplus": surplus, "wrong shape": shape, "wrong type": kind}
    return [listed(words, them) for words, them in kinds.items() if them]


def not_finite(tensors: Mapping[str, torch.Tensor]) -> list[str]:
    """The tensors that hold numbers that are none, as one sentence; empty where there are none."""
    bad = [shown(name) for name, tensor in tensors.items() if not bool(tensor.isfinite().all())]
    return [f"{listed('not a number', bad)} (NaN or infinite values)"] if bad else []


def _check_regular(path: Path) -> None:
    """Refuse what is no file: reading a pipe waits for its writer for ever."""
    if path.is_file():
        return
    if path.exists():
        raise InputError(f"{path} is no regular file; a safetensors file was expected")
    pickled = [p.name for ending in ("*.bin", "*.pt", "*.pth") for p in path.parent.glob(ending)]
    also = (
        f"; {', '.join(sorted(pickled))} is pickled, which can run any code, and is never loaded. "
        "Save the adapter again with safe_serialization=True"
        if pickled
        else ""
    )
    raise InputError(f"{path.parent} has no {path.name}{also}")


def _empty(name: str, size: Sequence[int], dtype: str) -> torch.Tensor:
    match = re.fullmatch(r"(BF|F|I|U)(\d+)", dtype)
    kinds = {"BF": "bfloat", "F": "float", "I": "int", "U": "uint"}
    known = "bool" if dtype == "BOOL" else f"{kinds[match[1]]}{match[2]}" if match else ""
    if not isinstance(kind := getattr(torch, known, None), torch.dtype):
        raise InputError(
            f"wrong type: {shown(name)} {dtype}, expected float32, bfloat16 or float16"
        )
    return torch.empty(tuple(size), dtype=kind, device="meta")


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(
        f"{path} is damaged ({error}); a safetensors file was expected (pickled files are never "
        "loaded)"
    )
