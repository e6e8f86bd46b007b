"""Which number format to compute in: asked for and checked, or found by timing the model's matmuls.

Machines differ too much to assume: bf16 on a CPU is up to twice as fast as fp32 with AVX512_BF16 or
AMX, and a hundred times slower with AVX2 alone.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final, Literal, cast, get_args

from peftlab.errors import InputError, nearest

if TYPE_CHECKING:
    import torch

Name = Literal["fp32", "bf16", "fp16"]

_WORTH_IT: Final = 1.3  # bf16 changes numbers, so a small gain does not pay for it
_TIMED_SHAPES: Final = 3
_LARGEST_EXTENT: Final = 2048  # larger matrices are timed as a piece of them
_REPEATS: Final = 5
_ROWS: Final = {"cpu": 128, "cuda": 4096}


@dataclass(frozen=True)
class Precision:
    """The format of the autocast region, and why. `speedup` is fp32's time / bf16's, if timed."""

    name: Name
    reason: str
    speedup: float | None = None

    @property
    def dtype(self) -> torch.dtype:
        """The format as torch names it."""
        import torch

        return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[self.name]


def choose_precision(
    shapes: Iterable[Sequence[int]], device: str | torch.device, requested: str = "auto"
) -> Precision:
    """Check the requested format for the device, or for "auto" take bf16 where it clearly pays.

    `shapes` are those of the model's parameters; the largest of its matrices [out, in] are timed,
    once a process, in a fraction of a second. The answer to "auto" depends on a timing: keep it
    with the run, so that a resumed run computes as it began.

    Raises `InputError` for an unknown format, a device that is not here, and a format that the
    device cannot compute in (fp16 needs CUDA).
    """
    import torch

    if requested not in (*get_args(Name), "auto"):
        known = ("auto", *get_args(Name))
        raise InputError(
            f"unknown precision {requested!r}.{nearest(requested, known)} Known: {', '.join(known)}"
        )
    device = torch.device(device)
    check_present(device)
    if requested != "auto":
        _check_able(device, requested)
        return Precision(cast(Name, requested), "asked for")
    if device.type not in _ROWS:
        return Precision("fp32", f"bf16 is not timed on {device.type} devices")
    if not _computes_bf16(device):
        return Precision("fp32", "this GPU has no bf16")
    matrices = _largest_matrices(shapes)
    if not matrices:
        return Precision("fp32", "the model has no matrices to time")
    speedup = _speedup(matrices, str(device), torch.get_num_threads())
    if speedup >= _WORTH_IT:
        return Precision("bf16", f"{speedup:.1f} times as fast as fp32 here", speedup)
    return Precision("fp32", f"bf16 is only {speedup:.2f} times as fast here", speedup)


def check_present(device: torch.device) -> None:
    """Refuse a device that is not here.

    Raises:
        InputError: says how many there are.
    """
    import torch

    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(
            f"device {str(device)!r} is not here: torch sees {torch.cuda.device_count()} CUDA "
            "devices. Use --device cpu, or install a CUDA build of torch and its driver"
        )
    other = device.type not in ("cpu", "cuda")
    accelerator = torch.accelerator.current_accelerator(check_available=True) if other else None
    if other and (accelerator is None or accelerator.type != device.type):
        raise InputError(f"device {str(device)!r} is not here. Use --device cpu")


def _check_able(device: torch.device, requested: str) -> None:
    if requested == "fp16" and device.type != "cuda":
        raise InputError(
            f"fp16 needs a CUDA device, got {str(device)!r}: use bf16, fp32 or auto there"
        )
    if requested == "bf16" and not _computes_bf16(device):
        raise InputError(
            f"{str(device)!r} cannot compute in bf16 (it needs an Ampere GPU or newer): "
            "use fp16, fp32 or auto there"
        )


def _computes_bf16(device: torch.device) -> bool:
    import torch

    if device.type != "cuda":
        return True
    with torch.cuda.device(device):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def _largest_matrices(shapes: Iterable[Sequence[int]]) -> tuple[tuple[int, int], ...]:
    """Up to three different shapes, smallest first so that a hopeless format is noticed early."""
    cut = {tuple(min(n, _LARGEST_EXTENT) for n in shape) for shape in shapes if len(shape) == 2}
    largest = sorted(cut, key=lambda shape: (shape[0] * shape[1], shape))[-_TIMED_SHAPES:]
    return tuple((out, into) for out, into in largest)


@cache
def _speedup(matrices: tuple[tuple[int, int], ...], device: str, _threads: int) -> float:
    """Time of the matmuls in fp32 / under bf16 autocast. `threads` only keeps answers apart."""
    import torch

    plain = fast = 0.0
    for out, into in matrices:
        rows = torch.ones(_ROWS[torch.device(device).type], into, device=device)
        weight = torch.ones(out, into, device=device)
        plain += _seconds(rows, weight, bf16=False)
        fast += _seconds(rows, weight, bf16=True)
        if fast > 4 * plain:
            break
    return plain / fast


def _seconds(rows: torch.Tensor, weight: torch.Tensor, *, bf16: bool) -> float:
    """Best of some linear maps, with the input's cast and without the weight's, which is kept."""
    import torch

    weight = weight.bfloat16() if bf16 else weight
    best = float("inf")
    with torch.no_grad(), torch.autocast(rows.device.type, torch.bfloat16, enabled=bf16):
        for repeat in range(_REPEATS + 1):  # the first one warms up caches and kernels
            _wait(rows)
            start = time.perf_counter()
            torch.nn.functional.linear(rows, weight)
            _wait(rows)
            took = time.perf_counter() - start
            best = min(best, took) if repeat else best
            if took > 0.2 and repeat:
                break
    return best


def _wait(tensor: torch.Tensor) -> None:
    import torch

    if tensor.is_cuda:
        torch.cuda.synchronize(tensor.device)
