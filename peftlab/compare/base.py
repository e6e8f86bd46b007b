"""Names of bases: `demo` is the bundled model, `demo-0.3m` and the like are others of its kind
(`demo.sizes`), everything else is a folder or a hub id."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from peftlab.demo.world import MODEL_FOLDER
from peftlab.errors import InputError

if TYPE_CHECKING:
    from peftlab.frozen.model import FrozenLM
    from peftlab.processes import Processes

DEMO = "demo"
_held: dict[tuple[str, str], FrozenLM] = {}  # by name and number format, see `hold`


def located(name: str) -> str:
    """The folder or hub id that a name stands for.

    Raises:
        InputError: a demo base that has not been made yet.
    """
    from peftlab.demo import sizes

    if name in sizes.SIZES:
        if not sizes.is_made(name):
            raise InputError(
                f"{name} has not been made on this machine yet; that takes minutes: "
                f"python -m peftlab.demo.sizes {name}"
            )
        return str(sizes.folder(name))
    return str(MODEL_FOLDER) if name == DEMO else name


def is_here(name: str) -> bool:
    """Whether a model can be loaded without a network: from a folder, or from the hub's cache."""
    where = located(name)
    folder = Path(where)
    if folder.is_dir():
        return any(folder.glob("*.safetensors")) or any(folder.glob("pytorch_model*.bin"))
    from huggingface_hub import try_to_load_from_cache

    files = ("model.safetensors", "model.safetensors.index.json")
    return any(isinstance(try_to_load_from_cache(where, file), str) for file in files)


def load(
    name: str, device: str = "cpu", dtype: str = "fp32", over: Processes | None = None
) -> FrozenLM:
    """The frozen model of a name; it keeps that name, wherever the package lies.

    What its user should know of it stands in its `notes`.

    Args:
        dtype: the format its numbers are kept in, see `number_formats`.
        over: the processes that it is split over.

    Raises:
        InputError, UnsupportedModel: see `FrozenLM.load`.
    """
    if device == "cpu" and (name, dtype) in _held:
        return _held[name, dtype]
    from transformers.utils import logging

    from peftlab.frozen.checkpoint import BaseNote
    from peftlab.frozen.model import FrozenLM

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    spread = {} if over is None else {"over": over}
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        model = FrozenLM.load(located(name), dtype=dtype, device=device, **spread)
    model.notes = tuple(str(w.message) for w in said if issubclass(w.category, BaseNote))
    for warning in said:
        if not issubclass(warning.category, BaseNote):
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
    model.name = name
    return model


def hold(name: str, dtype: str = "fp32") -> str:
    """Load a base for all processes that are forked from this one; `load` gives it to them.

    Returns its fingerprint.

    Raises:
        InputError, UnsupportedModel: see `FrozenLM.load`.
    """
    _held[name, dtype] = load(name, dtype=dtype)
    return _held[name, dtype].fingerprint
