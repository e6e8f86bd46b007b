"""Where `peftlab compare` runs: options of the command line, and who shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from peftlab.errors import InputError
from peftlab.printable import echo

if TYPE_CHECKING:
    from pathlib import Path

    from peftlab.cli.watch import Shown
    from peftlab.comparison.engine import Engine as AnEngine
    from peftlab.comparison.plan import Plan

Engine = Annotated[
    Literal["processes", "ray"],
    typer.Option(help="Processes of this machine, one run at a time, or a Ray cluster."),
]
Address = Annotated[
    str | None,
    typer.Option(help="HOST:PORT of the cluster's head; by default that of RAY_ADDRESS, or here."),
]
Cpus = Annotated[
    int | None,
    typer.Option(
        help="CPUs of each run on a cluster; by default all of the smallest node, so that no "
        "runs disturb each other's times."
    ),
]


def engine_of(name: str, address: str | None, cpus: int | None) -> AnEngine:
    """The engine that the options name.

    Raises:
        InputError: options of a cluster without one, or no Ray.
    """
    if name == "processes":
        given = {"--address": address, "--cpus": cpus}
        extra = [option for option, value in given.items() if value is not None]
        if extra:
            raise InputError(f"{' and '.join(extra)} belong to --engine ray, which is not given")
        from peftlab.comparison.local import Processes

        return Processes()
    if cpus is not None and cpus < 1:
        raise InputError(f"--cpus is {cpus}; at least 1 was expected")
    from peftlab.comparison.ray.cluster import the_ray
    from peftlab.comparison.ray.engine import Ray

    the_ray()  # says at once what to install
    return Ray(address, cpus, echo)


def watcher(name: str, plan: Plan, out: Path) -> Shown:
    """What shows a comparison on this engine."""
    from peftlab.cli.together import Together
    from peftlab.cli.watch import Shown

    return Together(plan, out) if name == "ray" else Shown(plan, out)
