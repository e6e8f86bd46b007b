"""Experiment trackers, by accelerate's own classes for them: what `metrics.jsonl` gets, they get.

A run that was cut off continues in the same TensorBoard folder, and in the same W&B and trackio
run; MLflow begins another run of the same name. Where they write besides TensorBoard (a server, a
folder) is their own settings' affair: WANDB_MODE, MLFLOW_TRACKING_URI, TRACKIO_DIR, …
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from peftlab.errors import InputError, nearest

Listen = Callable[[int, Mapping[str, Any]], None]  # step, what is logged of it

INSTALL = {
    "tensorboard": "pip install 'peftlab[trackers]'",
    "wandb": "pip install wandb",
    "mlflow": "pip install mlflow",
    "trackio": "pip install trackio",
}
"""The trackers by name, and what installs each; its package is called as it is."""


def trackers(names: Sequence[str]) -> tuple[str, ...]:
    """The trackers of those names, after a look whether they are installed.

    Raises:
        InputError: an unknown one, or one whose package is missing.
    """
    for name in names:
        if name not in INSTALL:
            raise InputError(
                f"there is no tracker {name!r}; there are {', '.join(INSTALL)}."
                f"{nearest(name, INSTALL)}"
            )
        if find_spec(name) is None:
            raise InputError(f"--track {name} needs a package that is missing: {INSTALL[name]}")
    return tuple(dict.fromkeys(names))


@contextmanager
def tracking(
    names: Sequence[str], folder: Path, project: str, run: str, settings: Mapping[str, Any]
) -> Iterator[Listen]:
    """Trackers of one run, by one function that takes what is logged.

    Args:
        folder: of the run; TensorBoard's files go into its folder `tensorboard`.
        project, run: as the trackers shall call them.
        settings: of the run, JSON values; nested ones are named with dots.
    """
    if not names:
        yield _nothing
        return
    from accelerate import PartialState

    PartialState()  # the trackers ask it which process they are in
    with ExitStack() as open_ones:
        started = []
        for name in names:
            tracker = _made(name, folder, project, run)
            tracker.start()
            open_ones.callback(tracker.finish)
            tracker.store_init_configuration(dict(_flat("", settings)))
            started.append(tracker)

        def listen(step: int, values: Mapping[str, Any]) -> None:
            numbers = {_plain(key): value for key, value in values.items() if _is_number(value)}
            for tracker in started:
                tracker.log(numbers, step=step)

        yield listen


def _nothing(step: int, values: Mapping[str, Any]) -> None:
    """Where nobody tracks."""


def _made(name: str, folder: Path, project: str, run: str) -> Any:
    from accelerate import tracking as theirs

    if name == "tensorboard":
        return theirs.TensorBoardTracker("tensorboard", folder)
    if name == "mlflow":
        return theirs.MLflowTracker(experiment_name=project, run_name=run)
    if name == "trackio":
        return theirs.TrackioTracker(project, name=run, resume="allow", embed=False)
    known_again = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    return theirs.WandBTracker(project, name=run, dir=folder, id=known_again, resume="allow")


def _is_number(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value)


def _plain(name: str) -> str:
    """MLflow takes no other signs in a metric's name."""
    return re.sub(r"[^\w\-. /]", "_", name)


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Leaves of nested settings; what is no scalar as text."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _flat(f"{name}.{key}".lstrip("."), part)
    elif isinstance(value, bool | int | float | str):
        yield name, value
    else:
        yield name, str(value)
