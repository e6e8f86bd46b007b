"""Where a run happened: versions, hardware, and the settings that change speed or numbers."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from peftlab import version

_PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "accelerate",
    "datasets",
    "peft",
    "numpy",
    "scipy",
    "rouge-score",
    "sacrebleu",
)
_SETTING_PREFIXES = (
    "OMP_",
    "KMP_",
    "MKL_",
    "PYTORCH_",
    "TORCH_",
    "NCCL_",
    "MALLOC_",
    "PEFTLAB_",
)
_SETTINGS = (
    "CUDA_VISIBLE_DEVICES",
    "CUBLAS_WORKSPACE_CONFIG",
    "NVIDIA_TF32_OVERRIDE",
    "GLIBC_TUNABLES",
    "LD_PRELOAD",
    "PYTHONHASHSEED",
    "TOKENIZERS_PARALLELISM",
    "HF_HUB_OFFLINE",
    "TRANSFORMERS_OFFLINE",
)
_SECRET_WORDS = ("TOKEN", "SECRET", "PASSWORD", "KEY")


def environment() -> dict[str, Any]:
    """Versions, hardware, operating system, git commit, threads and settings, ready for JSON.

    Memory in bytes. `git` is None unless the package runs from a checkout of its own. Neither the
    machine's name nor anything that looks like a secret is recorded.
    """
    return {
        "versions": _built_versions(),
        "hardware": _hardware(),
        "os": platform.platform(),
        "git": _git(),
        "threads": _threads(),
        "settings": _settings(),
    }


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Of python, of this package, and of others as far as they are installed."""
    known = {"python": platform.python_version(), "peftlab": version.__version__}
    for package in packages:
        with suppress(metadata.PackageNotFoundError):  # an optional one; its absence says enough
            known[package] = metadata.version(package)
    return known


def _built_versions() -> dict[str, str]:
    import torch

    built = str(torch.__version__)  # which names the build, where metadata may not
    return versions(_PACKAGES) | {"torch": built}


def _hardware() -> dict[str, Any]:
    import torch

    return {
        "cpu": _cpu_model(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": psutil.cpu_count(logical=False),
        "logical_cores": psutil.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "gpus": [
            {
                "name": gpu.name,
                "memory_bytes": gpu.total_memory,
                "capability": f"{gpu.major}.{gpu.minor}",
            }
            for gpu in map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
        ],
        "cuda": torch.version.cuda,
    }


def _cpu_model() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _git() -> dict[str, Any] | None:
    root = version.PACKAGE.parent
    if not (root / ".git").exists():
        return None
    try:
        commit = _run_git(root, "rev-parse", "HEAD")
        changed = _run_git(root, "status", "--porcelain", "--untracked-files=no", "--", "peftlab")
    except (OSError, subprocess.SubprocessError):  # no git here, or a checkout without a commit
        return None
    return {"commit": commit, "changed": bool(changed)}


def _run_git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()


def _threads() -> dict[str, int]:
    import torch

    return {"within": torch.get_num_threads(), "between": torch.get_num_interop_threads()}


def _settings() -> dict[str, Any]:
    import torch

    chosen: dict[str, Any] = {
        name: value
        for name, value in sorted(os.environ.items())
        if (name in _SETTINGS or name.startswith(_SETTING_PREFIXES))
        and not any(word in name for word in _SECRET_WORDS if name not in _SETTINGS)
    }
    chosen["float32_matmul_precision"] = torch.get_float32_matmul_precision()
    chosen["deterministic_algorithms"] = torch.are_deterministic_algorithms_enabled()
    return chosen
