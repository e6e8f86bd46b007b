"""`peftlab doctor`: what this machine has, and what that means for a base of some size."""

from __future__ import annotations

import platform
import shutil
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from peftlab.cli.listing import check_format
from peftlab.measure.company import MOST
from peftlab.printable import echo, json_text, printable
from peftlab.units import size

_PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "peft", "datasets")
_EXTRAS = {
    "gguf": "gguf", "serve": "fastapi", "structured": "llguidance", "prompts": "gepa",
    "quantised": "bitsandbytes", "peft": "peft", "ray": "ray", "png": "resvg_py",
}  # fmt: skip
_SIZES = {"SmolLM2-135M": 0.135e9, "Llama-3.2-1B": 1.24e9, "Llama-3.1-8B": 8.03e9}
_FORMATS = {"fp32": 4.0, "bf16": 2.0, "int8": 1.1, "nf4": 0.6}
_WATCHED = 0.5  # seconds in which others are watched


@dataclass(frozen=True)
class Machine:
    """What was found. Memory in bytes; others: their share of the cores; None: not known."""

    system: str
    python: str
    processor: str
    cores: int
    instructions: str
    memory: int
    free: int
    disk: int
    others: float | None
    device: str
    devices: tuple[str, ...]
    packages: dict[str, str]
    missing: tuple[str, ...]
    precision: str


def doctor(
    format: Annotated[str, typer.Option(help="table or json.")] = "table",
) -> None:
    """Say what this machine has, which formats are fast on it, and which bases fit."""
    from dataclasses import asdict

    check_format(format)
    found = look()
    if format == "json":
        echo(json_text(asdict(found)))
        return
    for line in told(found):
        echo(printable(line))


def look() -> Machine:
    """Find out; how busy the machine is, and how fast its formats are, is measured for a moment."""
    import psutil
    import torch

    from peftlab.frozen.named import device_name
    from peftlab.measure import in_company
    from peftlab.measure.environment import environment, versions
    from peftlab.measure.precision import choose_precision

    about = environment()["hardware"]
    memory = psutil.virtual_memory()
    with in_company() as company:
        time.sleep(_WATCHED)
    device = device_name("auto")
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return Machine(
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        processor=str(about["cpu"]),
        cores=psutil.cpu_count() or 1,
        instructions=str(about["instructions"]),
        memory=memory.total,
        free=memory.available,
        disk=shutil.disk_usage(Path.cwd()).free,
        others=company.share,
        device=device,
        devices=tuple([gpu["name"] for gpu in about["gpus"]] + mps),
        packages=versions(_PACKAGES),
        missing=tuple(extra for extra, module in _EXTRAS.items() if find_spec(module) is None),
        precision=choose_precision([(1024, 1024)], device).reason,
    )


def told(found: Machine) -> list[str]:
    """The same for people, and what follows from it."""
    devices = ", ".join(found.devices) or "no accelerator"
    lines = [
        f"{found.system}, Python {found.python}",
        f"{found.processor}, {found.cores} cores ({found.instructions}); {devices}",
        f"Memory {size(found.memory)}, free {size(found.free)}; "
        f"{size(found.disk)} of disk free here",
        "Versions: " + ", ".join(f"{name} {value}" for name, value in found.packages.items()),
        f"Runs go to {found.device}: {found.precision}",
    ]
    if found.others is not None and found.others > MOST:
        lines.append(
            f"Other programs use {found.others:.0%} of the cores: times that are measured now are "
            "too long. Records say so, too."
        )
    if found.missing:
        lines.append("Not installed: " + ", ".join(f"peftlab[{extra}]" for extra in found.missing))
    lines.append("The weights of a base alone take:")
    for name, count in _SIZES.items():
        fits = [
            f"{kind} {size(count * each)}{'' if count * each < found.free else ' (no room)'}"
            for kind, each in _FORMATS.items()
        ]
        lines.append(f"  {name}: {', '.join(fits)}")
    lines.append(
        "More exactly, for a base and your rows: peftlab estimate --model NAME --task FILE"
    )
    return lines
