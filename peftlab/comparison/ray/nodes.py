"""The nodes that take part: each is looked at once, then keeps a base server until the end.

`Node` and `carry_out` go there by value, and import of peftlab only what they are about to use: a
node may lack it, or have it in another version.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from peftlab.comparison.ray import cluster
from peftlab.comparison.ray.task import Place
from peftlab.measure.environment import versions

PACKAGES = ("torch", "transformers")  # whose versions must be the same everywhere
_OPEN_SECONDS = 1800.0  # for reading a large base from a slow disk
_ANSWER_SECONDS = 120.0  # a first process on a busy node takes its time to import


def differences(wanted: dict[str, str], here: dict[str, str]) -> list[str]:
    """`torch 2.9 instead of 2.13`, for each package whose version here is another."""
    other = {name: version for name, version in wanted.items() if here.get(name) != version}
    return [f"{name} {here.get(name, 'missing')} instead of {v}" for name, v in other.items()]


@dataclass
class Node:
    """An actor, one a node: starts the base server, and takes it along when it ends."""

    name: str
    versions: dict[str, str]  # that it needs
    out: Path
    token: str  # what the lock in `out` says
    base: tuple[Any, ...]  # further arguments of `base_server.start`
    server: Any = None
    held: Any = None

    def place(self) -> Place:
        """Where the base is held; the server starts with the first call, and again if it died.

        Raises:
            RuntimeError: other versions. RunFailed, RuntimeError: the base cannot be loaded.
        """
        if self.server is not None and not self.server.poll():  # it says nothing until it is gone
            return self.held
        try:
            from peftlab.measure.environment import versions
        except ImportError as error:
            raise RuntimeError(f"it has no peftlab, or an older one: {error}") from None
        if other := differences(self.versions, versions(PACKAGES)):
            raise RuntimeError(f"it has {', '.join(other)}")
        from peftlab.comparison import base_server
        from peftlab.comparison.ray.task import Place
        from peftlab.records import folders

        folder, shared = Path(tempfile.mkdtemp(prefix="peftlab-")), False
        self.server = base_server.start(folder, *self.base)
        try:
            fingerprints = base_server.fingerprints(self.server)
        except EOFError:
            raise RuntimeError("its base could not be loaded: the process died") from None
        with suppress(OSError):  # whether the folder here is the one that the command holds
            shared = (self.out / folders.LOCK).read_text() == self.token
        out = self.out if shared else folder / "out"
        self.held = Place(self.name, folder, out, shared, fingerprints)
        return self.held


def carry_out(nodes: dict[str, Any], home: Any, references: list[Any]) -> tuple[str, Any]:
    """A Ray task: one call; returns ("result", value), or ("new", node) of a node to be looked at.

    Args:
        nodes: actors, by the ids of the nodes that were ready when the task was sent. home: actor.
        references: to the call and to what is common; Ray fetches those of a list only when asked.
    """
    import ray

    node = ray.get_runtime_context().get_node_id()
    if node not in nodes:
        return "new", node
    from peftlab.comparison.ray.task import carry_out_on

    return "result", carry_out_on(nodes[node], home, *ray.get(references))


@dataclass
class NodePool:
    """Nodes by their ids; `arguments` are those of `Node`, but for its name and the versions."""

    ray: ModuleType
    arguments: tuple[Any, ...]
    actors: dict[str, Any] = field(default_factory=dict)  # of those that take part
    places: dict[str, Place] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)  # what is wrong with others

    def open(self, nodes: Collection[str]) -> list[str]:
        """Look at nodes, all at once, and start a base server on each that can take part.

        Returns:
            What is wrong with those that cannot; nodes that are known are not looked at again.
        """
        self.ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
        asked = {}
        for about in self.ray.nodes():
            node, name = about["NodeID"], f"{about['NodeManagerHostname']} ({about['NodeID'][:6]})"
            if node in nodes and node not in self.actors | self.refused:
                made = self.ray.remote(Node).options(**cluster.lasting(node))
                actor = made.remote(name, versions(PACKAGES), *self.arguments)
                asked[node] = name, actor, actor.place.remote()
        for node, (name, actor, answer) in asked.items():
            try:
                self.ray.get(actor.__ray_ready__.remote(), timeout=_ANSWER_SECONDS)
                place = self.ray.get(answer, timeout=_OPEN_SECONDS)
            except self.ray.exceptions.RayError as error:
                self.refused[node] = f"{name}: {cluster.reason(error)}"
                continue
            if any(place.fingerprints != other.fingerprints for other in self.places.values()):
                self.refused[node] = f"{name}: its base has other weights than other nodes'"
            else:
                self.actors[node], self.places[node] = actor, place
        return [self.refused[node] for node in asked if node in self.refused]
