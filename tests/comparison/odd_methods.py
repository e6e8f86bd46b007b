"""Methods that go wrong, or take their time, outside the registry."""

from __future__ import annotations

import errno
import os
import signal
import time
from dataclasses import dataclass
from typing import ClassVar

import torch

from peftlab.edits import Edits
from peftlab.frozen.model import FrozenLM
from peftlab.methods import Method, Shapes, State
from peftlab.methods.lora import LoRA


@dataclass(frozen=True, kw_only=True)
class Odd(Method):
    """Goes wrong in one way when its run begins (the look before the runs does not start it)."""

    name: ClassVar = "odd"
    sites: ClassVar = ("linear",)

    how: str = "defect"

    def init(self, model: object, task: object, rng: torch.Generator) -> State:
        if self.how == "disk":
            raise OSError(errno.ENOSPC, "No space left on device")
        if self.how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        raise RuntimeError("a defect of this method")

    def edits(self, state: State, model: object, seed: int | None = None) -> Edits:
        return Edits()

    def stored(self, shape: object) -> Shapes:
        return {"odd": (7,)}


@dataclass(frozen=True, kw_only=True)
class Slow(LoRA):
    """LoRA whose steps take a while on any machine, so that something can happen meanwhile."""

    name: ClassVar = "slow"

    def edits(self, state: State, model: FrozenLM, seed: int | None = None) -> Edits:
        time.sleep(0.02)
        return super().edits(state, model, seed)
