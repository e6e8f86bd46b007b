"""What is sent to nodes by value, since a node may lack peftlab, or have it in another version."""

from __future__ import annotations

import importlib.metadata
import platform
from contextlib import suppress
from importlib import import_module
from typing import Any

PACKAGES = ("peftlab", "torch", "transformers")


def versions() -> dict[str, str]:
    """What must be the same on all machines of a cluster; `missing` for what is not installed."""
    return {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES}


def _version(package: str) -> str:
    """Of what is installed, else of a checkout."""
    for read in (importlib.metadata.version, lambda name: import_module(name).__version__):
        with suppress(ImportError):
            return str(read(package))
    return "missing"


def differences(wanted: dict[str, str], here: dict[str, str] | None = None) -> list[str]:
    """`torch 2.9 instead of 2.13`, for each package whose version here is another."""
    installed = versions() if here is None else here
    return [
        f"{name} {installed.get(name, 'missing')} instead of {version}"
        for name, version in wanted.items()
        if installed.get(name) != version
    ]


def carry_out(nodes: dict[str, Any], references: list[Any]) -> tuple[str, Any]:
    """A Ray task: one call.

    Args:
        nodes: actors, by the ids of the nodes that were ready when the task was sent.
        references: to the arguments of `carry_out_on`; Ray fetches those of a list only when asked.

    Returns:
        ("result", value), or ("new", node): the node has come since, and has to be looked at.
    """
    import ray

    node = ray.get_runtime_context().get_node_id()
    if node not in nodes:
        return "new", node
    from peftlab.comparison.ray.task import carry_out_on

    (home, call, threads), common = ray.get(references)
    return "result", carry_out_on(nodes[node], home, call, threads, common)
