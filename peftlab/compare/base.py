"""Names of bases: `demo` is the bundled model, everything else a folder or a hub id."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from peftlab.frozen.model import FrozenLM

DEMO = "demo"


def located(name: str) -> str:
    """The folder or hub id that a name stands for."""
    if name != DEMO:
        return name
    from peftlab.demo.world import MODEL_FOLDER

    return str(MODEL_FOLDER)


def load(name: str, device: str = "cpu") -> FrozenLM:
    """The frozen model of a name; it keeps that name, wherever the package lies.

    Raises:
        InputError, UnsupportedModel: see `FrozenLM.load`.
    """
    from transformers.utils import logging

    from peftlab.frozen.model import FrozenLM

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    model = FrozenLM.load(located(name), device=device)
    model.name = name
    return model
