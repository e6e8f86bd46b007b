"""The nodes that take part: each is looked at once, then keeps a base server until the end."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import Any

from peftlab.comparison import base_server
from peftlab.comparison.ray import cluster, remote
from peftlab.comparison.ray.payload import Place
from peftlab.errors import InputError
from peftlab.records import folders

_OPEN_SECONDS = 1800.0  # for reading a large base from a slow disk
_ANSWER_SECONDS = 120.0  # a first process on a busy node takes its time to import


class Node:
    """An actor, one a node: starts the base server, and takes it along when it ends.

    Args:
        token: what the lock in `out` says. base: further arguments of `base_server.start`.
    """

    def __init__(self, name: str, out: Path, token: str, *base: Any) -> None:
        self.name, self.out, self.token, self.base = name, out, token, base
        self._server: Connection | None = None

    def place(self) -> Place:
        """Where the base is held; the server starts with the first call, and again if it died.

        Raises:
            InputError: the base cannot be loaded.
        """
        if self._server is None or self._server.poll():  # all that it still says is that it is gone
            folder = Path(tempfile.mkdtemp(prefix="peftlab-"))
            self._server = base_server.start(folder, *self.base)
            try:
                word, *values = self._server.recv()
            except EOFError:
                word, values = "failed", ["", "its base could not be loaded: the process died"]
            if word == "failed":
                raise InputError(values[1])
            shared = False
            with suppress(OSError):  # whether the folder here is the one that the command holds
                shared = (self.out / folders.LOCK).read_text() == self.token
            out = self.out if shared else folder / "out"
            self._place = Place(self.name, folder, out, shared, values[0])
        return self._place


class NodePool:
    """Nodes by their ids.

    Args:
        notice: is told of nodes that are left out. arguments: of `Node`, but for the name.

    Attributes:
        actors, places: of those that take part. refused: why others do not.
    """

    def __init__(
        self, ray: ModuleType, notice: Callable[[str], None], arguments: tuple[Any, ...]
    ) -> None:
        self.ray, self.notice, self.arguments = ray, notice, arguments
        self.actors: dict[str, Any] = {}
        self.places: dict[str, Place] = {}
        self.refused: dict[str, str] = {}
        ray.cloudpickle.register_pickle_by_value(remote)

    def open(self, nodes: Sequence[str]) -> None:
        """Look at nodes, and start a base server on each; what is wrong is in `refused`."""
        names = {
            node["NodeID"]: f"{node['NodeManagerHostname']} ({node['NodeID'][:6]})"
            for node in self.ray.nodes()
        }
        differences, opened = self.ray.remote(remote.differences), {}
        looks = {n: differences.options(**cluster.pinned(n, max_retries=0)) for n in nodes}
        told = {node: look.remote(remote.versions()) for node, look in looks.items()}
        for node, answer in told.items():
            if other := self._get(node, answer, _ANSWER_SECONDS):
                self.refused[node] = f"it has {', '.join(other)}"
            if node not in self.refused:
                made = self.ray.remote(Node).options(**cluster.pinned(node, **cluster.LASTING))
                self.actors[node] = made.remote(names[node], *self.arguments)
                opened[node] = self.actors[node].place.remote()
        for node, answer in opened.items():
            place = self._get(node, answer, _OPEN_SECONDS)
            known = {other.fingerprints for other in self.places.values()}
            if place and known and place.fingerprints not in known:
                self.refused[node] = "its copy of the base has other weights than other nodes'"
            if node in self.refused:
                del self.actors[node]
            else:
                self.places[node] = place
        self.refused |= {n: f"{names[n]}: {self.refused[n]}" for n in nodes if n in self.refused}

    def _get(self, node: str, answer: Any, seconds: float) -> Any:
        """What a node answers; None, and it is refused, if it does not."""
        try:
            return self.ray.get(answer, timeout=seconds)
        except (self.ray.exceptions.RayError, self.ray.exceptions.GetTimeoutError) as error:
            self.refused[node] = cluster.reason(error)[0]

    def take_in(self, node: str) -> None:
        """Look at a node that has come later."""
        if node not in self.actors and node not in self.refused:
            self.open([node])
            if node in self.refused:
                self.notice(f"A node is left out: {self.refused[node]}")

    def require_all(self) -> None:
        """At the start a node that cannot take part is an error, since it can be mended at once.

        Raises:
            InputError: says of each such node what is wrong.
        """
        if self.refused:
            raise InputError(
                f"{len(self.refused)} of {len(self.refused) + len(self.places)} nodes cannot take "
                f"part: {'; '.join(self.refused.values())}. All need the same versions, and the "
                "base under the same name (a hub id, or a folder that every node has); mend them, "
                "or stop Ray there with `ray stop`"
            )
