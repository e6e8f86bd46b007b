"""The nodes that take part: each is looked at once, then keeps a holder until the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from types import ModuleType
from typing import Any

from peftlab.comparison.ray import cluster
from peftlab.comparison.ray.actors import Node, Place, Refused
from peftlab.errors import InputError

_OPEN_SECONDS = 1800.0  # for reading a large base from a slow disk
_CLOSE_SECONDS = 20.0
_REOPENED = 3  # times that a node's holder is started again


class Fleet:
    """Nodes by their ids.

    Args:
        arguments: of `Node`.

    Attributes:
        places: of those that take part. refused: why others do not.
    """

    def __init__(self, ray: ModuleType, *arguments: Any) -> None:
        self.ray, self.arguments = ray, arguments
        self.places: dict[str, Place] = {}
        self.refused: dict[str, str] = {}
        self._actors: dict[str, Any] = {}
        self._opened: dict[str, int] = {}

    def open(self, nodes: Sequence[str]) -> None:
        """Look at nodes, and start a holder on each; what is wrong with one is in `refused`."""
        ray, names = self.ray, cluster.names(self.ray)
        wrong = cluster.check_versions(ray, nodes)
        asked = {}
        for node in nodes:
            if node in wrong:
                continue
            made = ray.remote(Node).options(num_cpus=0, **cluster.pinned(node))
            self._actors[node] = made.remote(*self.arguments)
            self._opened[node] = self._opened.get(node, 0) + 1
            asked[node] = self._actors[node].open.remote(node, names[node])
        for node, answer in asked.items():
            try:
                place = ray.get(answer, timeout=_OPEN_SECONDS)
            except (ray.exceptions.RayError, ray.exceptions.GetTimeoutError) as error:
                place = Refused(names[node], str(error).strip().splitlines()[0])
            if isinstance(place, Refused):
                wrong[node] = place.reason
            elif self._other_weights(place):
                wrong[node] = "its copy of the base has other weights than those of other nodes"
            else:
                self.places[node] = place
        for node, reason in wrong.items():
            self.refused[node] = f"{names[node]}: {reason}"
            self._end(node)

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

    def reopen(self, node: str, notice: Callable[[str], None]) -> None:
        """Take in a node that has come later, or whose holder does not answer any more."""
        if node in self.refused or node not in cluster.alive(self.ray):
            return
        self.places.pop(node, None)
        self._end(node)
        if self._opened.get(node, 0) > _REOPENED:
            self.refused[node] = f"{node[:6]}: its process that holds the base dies again and again"
        else:
            self.open([node])
        if node in self.refused:
            notice(f"A node is left out: {self.refused[node]}")

    def stop(self) -> None:
        """Let every run save and end."""
        for actor in self._actors.values():
            actor.stop.remote()

    def close(self) -> None:
        """End all holders."""
        for node in list(self._actors):
            self._end(node)

    def _other_weights(self, place: Place) -> bool:
        known = {other.fingerprints for other in self.places.values()}
        return bool(known) and place.fingerprints not in known

    def _end(self, node: str) -> None:
        actor = self._actors.pop(node, None)
        if actor is None:
            return
        errors = (self.ray.exceptions.RayError, self.ray.exceptions.GetTimeoutError)
        with suppress(*errors):  # it is gone, and its holder sees that by itself
            self.ray.get(actor.close.remote(), timeout=_CLOSE_SECONDS)
        self.ray.kill(actor)
