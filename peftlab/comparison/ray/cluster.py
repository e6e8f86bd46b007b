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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from peftlab.comparison.ray import versions
from peftlab.errors import InputError
from peftlab.units import size

_CONNECT_SECONDS = 10.0
_HEALTH_SECONDS = 120.0  # Ray's own check gives up after 40, and has to be imported first
_ANSWER_SECONDS = 120.0  # a first process on a busy node takes its time to import


@dataclass(frozen=True)
class Needs:
    """What one run takes of a node. memory: bytes."""

    cpus: int
    gpus: int
    memory: int = 0

    def options(self) -> dict[str, Any]:
        """By Ray's names."""
        found: dict[str, Any] = {"num_cpus": self.cpus, "num_gpus": self.gpus}
        return found | ({"memory": self.memory} if self.memory else {})

    def fit(self, resources: Mapping[str, float]) -> bool:
        """Whether a node with these resources in all can do it."""
        return (
            resources.get("CPU", 0) >= self.cpus
            and resources.get("GPU", 0) >= self.gpus
            and resources.get("memory", 0) >= self.memory
        )

    def __str__(self) -> str:
        gpus = f", {self.gpus} GPU" if self.gpus else ""
        memory = f", {size(self.memory)} of memory" if self.memory else ""
        return f"{self.cpus} CPU{gpus}{memory}"


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
    where = address or os.environ.get("RAY_ADDRESS")
    if where not in (None, "auto", "local"):
        _check_answer(where)
    options = {"log_to_driver": False, "logging_level": logging.ERROR, "namespace": "peftlab"}
    if where == "local":
        options |= {"include_dashboard": False}
    try:
        ray.init(address=where, **options)
    except ray.exceptions.AuthenticationError as error:
        raise _asks_for_a_token(where or "auto") from error
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = str(error).strip().partition("\n\n")[0]
        raise InputError(f"cannot work with the Ray cluster at {where or 'auto'}: {reason}") from (
            error
        )
    return ray


def _check_answer(address: str) -> None:
    """`ray.init` waits for minutes where nobody answers, so that is found out before."""
    if "://" in address:
        raise InputError(
            f"--address {address} is a Ray client's; HOST:PORT of the head node was expected, "
            "6379 by default, from a machine of the cluster (or through `ray job submit`)"
        )
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise InputError(f"--address {address!r}: HOST:PORT was expected, as 10.0.0.1:6379")
    mend = "check it with `ray status`, or start the head with: ray start --head"
    try:
        socket.create_connection((host, int(port)), _CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise InputError(f"nobody answers at --address {address} ({error}): {mend}") from error
    check = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
    try:
        subprocess.run(check, capture_output=True, timeout=_HEALTH_SECONDS, check=True)
    except subprocess.SubprocessError as error:
        if b"AuthenticationError" in (error.stderr or b""):  # type: ignore[attr-defined]
            raise _asks_for_a_token(address) from error
        raise InputError(f"what answers at --address {address} is no Ray cluster: {mend}") from (
            error
        )


def _asks_for_a_token(address: str) -> InputError:
    return InputError(
        f"the Ray cluster at {address} asks for a token: set RAY_AUTH_MODE=token, and put the "
        "token of its head node into ~/.ray/auth_token or RAY_AUTH_TOKEN"
    )


def alive(ray: ModuleType) -> dict[str, dict[str, float]]:
    """What the nodes that are up have in all, by their ids."""
    return {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}


def names(ray: ModuleType) -> dict[str, str]:
    """What people call the nodes."""
    return {
        node["NodeID"]: f"{node['NodeManagerHostname']} ({node['NodeID'][:6]})"
        for node in ray.nodes()
    }


def needs(resources: Sequence[Mapping[str, float]], cpus: int | None, gpu: bool) -> Needs:
    """What every run takes, besides memory.

    Args:
        cpus: None: all of the smallest node, or of a GPU's share of it, so that no runs disturb
            each other's times.

    Raises:
        InputError: no node has that.
    """
    fitting = [node for node in resources if node.get("CPU", 0) >= 1]
    if gpu:
        fitting = [node for node in fitting if node.get("GPU", 0) >= 1]
    if not fitting:
        what = "a CPU and a GPU" if gpu else "a CPU"
        raise InputError(f"none of the cluster's {len(resources)} nodes has {what} to give")
    shares = [node["CPU"] // (node["GPU"] if gpu else 1) for node in fitting]
    found = Needs(cpus or max(1, int(min(shares))), int(gpu))
    check_fit(found, resources, "a run")
    return found


def check_fit(need: Needs, resources: Sequence[Mapping[str, float]], what: str) -> None:
    """Refuse what would wait for ever.

    Raises:
        InputError: no node is large enough.
    """
    if any(need.fit(node) for node in resources):
        return
    largest = Needs(
        int(max((node.get("CPU", 0) for node in resources), default=0)),
        int(max((node.get("GPU", 0) for node in resources), default=0)),
        int(max((node.get("memory", 0) for node in resources), default=0)),
    )
    raise InputError(
        f"{what} needs {need} on one node, and the {len(resources)} nodes of the cluster have at "
        f"most {largest}: add a larger one, ask for fewer --cpus, or leave it out with --max-memory"
    )


def check_versions(ray: ModuleType, nodes: Sequence[str]) -> dict[str, str]:
    """Compare versions with those of this process; returns what is wrong, by node.

    The function is sent as text, since a node may lack peftlab.
    """
    ray.cloudpickle.register_pickle_by_value(versions)
    try:
        told = {node: _on(ray, node, versions.versions) for node in nodes}
        mine, wrong = versions.versions(), {}
        for node, answer in told.items():
            try:
                other = versions.differences(mine, ray.get(answer, timeout=_ANSWER_SECONDS))
            except (ray.exceptions.RayError, ray.exceptions.GetTimeoutError) as error:
                first = str(error).strip().splitlines()[0]
                wrong[node] = f"it does not answer ({type(error).__name__}: {first})"
                continue
            if other:
                wrong[node] = f"it has {', '.join(other)}"
    finally:
        ray.cloudpickle.unregister_pickle_by_value(versions)
    return wrong


def _on(ray: ModuleType, node: str, function: Any) -> Any:
    return ray.remote(function).options(**pinned(node), num_cpus=0, max_retries=0).remote()


def pinned(node: str) -> dict[str, Any]:
    """Ray's option for something that runs on this node only, and fails without it."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False)}


def elsewhere(nodes: Sequence[str]) -> dict[str, Any]:
    """Ray's option for something that runs on any node but these."""
    return {"label_selector": {"ray.io/node-id": f"!in({','.join(nodes)})"}} if nodes else {}
