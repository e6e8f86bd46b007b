"""The frozen model of a name; held where processes that are forked from this one share it."""

from __future__ import annotations

import time
import warnings
from typing import TYPE_CHECKING

from peftlab.bases.names import located
from peftlab.errors import InputError
from peftlab.measure import tune_allocator

if TYPE_CHECKING:
    from peftlab.frozen.model import FrozenLM
    from peftlab.processes import Processes

_held: dict[tuple[str, str], FrozenLM] = {}  # by name and number format, see `hold`


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
    begun = time.perf_counter()
    tune_allocator()  # before anything is loaded
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
    model.name, model.load_seconds = name, time.perf_counter() - begun
    return model


def hold(name: str, dtype: str = "fp32") -> str:
    """Load a base for all processes that are forked from this one; `load` gives it to them.

    Returns its fingerprint.

    Raises:
        InputError, UnsupportedModel: see `FrozenLM.load`.
    """
    _held[name, dtype] = load(name, dtype=dtype)
    return _held[name, dtype].fingerprint


def device_name(name: str, *, is_here: bool = True) -> str:
    """The device that `auto` stands for here, or the one that is named.

    Args:
        is_here: whether it has to be on this machine, and not on others of a cluster.

    Raises:
        InputError: torch does not know such a device, or it is not here.
    """
    import torch

    from peftlab.measure.precision import check_present
    from peftlab.processes import local_device

    if name == "auto":
        return local_device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(
            f"there is no device {name!r}; auto, cpu, cuda or cuda:1 was expected"
        ) from error
    if is_here:
        check_present(device)
    return str(device)
