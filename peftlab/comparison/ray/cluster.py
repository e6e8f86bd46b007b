"""A connection to a Ray cluster: its nodes, what they have, and whether they fit together.

Nothing here waits without end: an address that does not answer, a node that does not answer and
resources that no node has are errors.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from types import ModuleType
from typing import Any, NamedTuple

from peftlab.errors import InputError
from peftlab.units import size

_RESOURCES = ("CPU", "GPU", "memory")
_CONNECT_SECONDS = 10.0
_HEALTH_SECONDS = 120.0  # Ray's own check gives up after 40, and has to be imported first


class Needs(NamedTuple):
    """What one run takes of a node, as Ray's options call it. memory: bytes."""

    num_cpus: int
    num_gpus: int
    memory: int = 0

    def fit(self, resources: Mapping[str, float]) -> bool:
        """Whether a node with these resources in all can do it."""
        return all(resources.get(n, 0) >= v for n, v in zip(_RESOURCES, self, strict=True))

    def __str__(self) -> str:
        gpus = f", {self.num_gpus} GPU" if self.num_gpus else ""
        memory = f", {size(self.memory)} of memory" if self.memory else ""
        return f"{self.num_cpus} CPU{gpus}{memory}"


def the_ray() -> ModuleType:
    """Ray, if it is installed; it sends no usage statistics.

    Raises:
        InputError: it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Of a Ray that is started here: its runs are worth as much as those of the other engine.
    os.environ.setdefault("RAY_worker_niceness", "0")
    # What Ray will do by itself one day, and warns of until then.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Its monitor of memory ends tasks too; without this it would send them again for ever.
    os.environ.setdefault("RAY_task_oom_retries", "3")
    try:
        import ray
    except ImportError as error:
        raise InputError(
            "--engine ray needs Ray, which is not installed: pip install 'peftlab[ray]'"
        ) from error
    return ray


def connect(address: str | None) -> ModuleType:
    """Ray, connected to the cluster at HOST:PORT.

    Args:
        address: None: what RAY_ADDRESS or a cluster on this machine says; without either, Ray is
            started on this machine for as long as the comparison takes.

    Raises:
        InputError: nobody answers there, or a Ray or Python of another version does.
    """
    ray = the_ray()
    where = address or os.environ.get("RAY_ADDRESS") or "auto"
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR, "include_dashboard": False}
    try:
        if where not in ("auto", "local"):
            _check_answer(ray, where)
        ray.init(address, **quiet)
    except ray.exceptions.AuthenticationError as error:
        raise InputError(
            f"the Ray cluster at {where} asks for a token: set RAY_AUTH_MODE=token, and put the "
            "token of its head node into ~/.ray/auth_token or RAY_AUTH_TOKEN"
        ) from error
    except (ConnectionError, RuntimeError, ValueError) as error:
        first = str(error).strip().partition("\n\n")[0]
        raise InputError(f"cannot work with Ray at {where}: {first}") from error
    return ray


def _check_answer(ray: ModuleType, address: str) -> None:
    """Where nobody answers, `ray.init` waits for minutes and then ends this process."""
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdecimal():
        given = f"{address} is a Ray client's" if "://" in address else repr(address)
        raise InputError(
            f"--address {given}; HOST:PORT was expected, as 10.0.0.1:6379, given on a machine of "
            "the cluster (or through `ray job submit`)"
        )
    check = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
    mend = "check it with `ray status`, or start the head with: ray start --head"
    try:
        socket.create_connection((host, int(port)), _CONNECT_SECONDS).close()
        subprocess.run(check, capture_output=True, timeout=_HEALTH_SECONDS, check=True)
    except (OSError, OverflowError) as error:
        raise InputError(f"nobody answers at --address {address} ({error}): {mend}") from error
    except subprocess.SubprocessError as error:
        if b"AuthenticationError" in (error.stderr or b""):  # type: ignore[attr-defined]
            raise ray.exceptions.AuthenticationError("asked for a token") from error
        raise InputError(f"what is at --address {address} is no Ray cluster: {mend}") from error


def alive(ray: ModuleType) -> dict[str, dict[str, float]]:
    """What the nodes that are up have in all, by their ids."""
    return {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}


def needs(resources: Sequence[Mapping[str, float]], cpus: int | None, gpu: bool) -> Needs:
    """What every run takes, besides memory.

    Args:
        cpus: None: all of the smallest node, or of a GPU's share of it, so that no runs disturb
            each other's times.

    Raises:
        InputError: no node has that.
    """
    least = Needs(1, int(gpu))
    shares = [node["CPU"] // (node["GPU"] if gpu else 1) for node in resources if least.fit(node)]
    if not shares:
        what = "a CPU and a GPU" if gpu else "a CPU"
        raise InputError(f"none of the cluster's {len(resources)} nodes has {what} to give")
    wanted = Needs(cpus or max(1, int(min(shares))), int(gpu))
    check_fit(wanted, resources, "a run")
    return wanted


def check_fit(need: Needs, resources: Collection[Mapping[str, float]], what: str) -> None:
    """Refuse what would wait for ever.

    Raises:
        InputError: no node is large enough.
    """
    if any(need.fit(node) for node in resources):
        return
    most = (max((node.get(n, 0) for node in resources), default=0) for n in _RESOURCES)
    largest = Needs(*map(int, most))
    raise InputError(
        f"{what} needs {need} on one node, and the {len(resources)} nodes of the cluster have at "
        f"most {largest}: add a larger one, ask for fewer --cpus, or leave it out with --max-memory"
    )


def lasting(node: str) -> dict[str, Any]:
    """Ray's options of an actor on this node, besides the runs.

    If it dies it starts again, with what it was asked for then.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(node, soft=False)
    again = {"max_restarts": -1, "max_task_retries": -1}
    return {"num_cpus": 0, "scheduling_strategy": here, **again}


def reason(error: Any) -> str:
    """What an error of Ray says, or, if it tells of one that was raised elsewhere, that one."""
    if cause := getattr(error, "cause", None):
        return str(cause)
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
