"""What tests of the base server let its children do; imported there by name."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from peftlab.frozen import named as base
from peftlab.training.stopping import graceful


def about_base(_say: Any, name: str) -> dict[str, Any]:
    """Whose child this is, and where the base's first weights lie."""
    import torch

    model = base.load(name)
    first = next(model.model.parameters())
    return {
        "parent": os.getppid(),
        "process": os.getpid(),
        "address": first.data_ptr(),
        "private": _private_bytes(first.data_ptr()),
        "threads": torch.get_num_threads(),
        "setting": os.environ.get("CUDA_VISIBLE_DEVICES"),
    }


def _private_bytes(address: int) -> int:
    """Bytes of the mapping around an address that this process alone has."""
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first = line.split()[0]
        if "-" in first and ":" not in first:
            low, high = (int(part, 16) for part in first.split("-"))
            inside = low <= address < high
        elif inside and first == "Private_Dirty:":
            return int(line.split()[1]) * 1024
    raise AssertionError("no such mapping")


def says_and_sleeps(say: Any, seconds: float) -> str:
    """Says where it is, then takes its time."""
    say("here", os.getpid())
    time.sleep(seconds)
    return "slept"


def keeps_talking(say: Any, seconds: float) -> None:
    """Says something all the time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        say("step", 1)
        time.sleep(0.1)


def talks_until_told(say: Any, saved: Path) -> None:
    """As a run does: says every step, and saves when it is told to end."""
    with graceful(together=False) as stop:
        while not stop:
            say("step", 1)
    saved.touch()


def kills_itself(_say: Any) -> None:
    """As when memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)
