"""The task of a Ray cluster: one job, carried out by a process forked from its node's holder."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from peftlab.comparison.engine import SURVEY
from peftlab.comparison.plan import GeneralText, Plan, Run
from peftlab.comparison.processes import Died, RunFailed, Stopped, describe
from peftlab.comparison.ray import holder
from peftlab.comparison.ray.actors import Letter, Place
from peftlab.comparison.ray.payload import Changes, Files, packed, unpack
from peftlab.errors import DiskFull
from peftlab.tasks import Task

_PASSED_ON = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "OMP_NUM_THREADS")


@dataclass(frozen=True)
class Order:
    """What a task is to do.

    Attributes:
        task: its number; every try has another.
        folder: of the run, relative; None: it has none.
        threads: of torch.
        places: by node, those that were ready when the task was sent.
        sent: the run's files, for nodes that do not share the comparison's folder.
        more: further arguments.
    """

    task: int
    function: str
    folder: Path | None
    threads: int
    places: dict[str, Place]
    sent: Files = field(default_factory=dict)
    more: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """How a task ended.

    Attributes:
        word: result, failed, stopped, disk (full), died (its process), or absent: the node has no
            holder, or one that does not answer.
        value: the result, or a message.
        files: of its folder, from nodes that do not share the comparison's.
    """

    word: str
    value: Any
    node: str
    files: Files = field(default_factory=dict)


Common = tuple[Task, GeneralText | None]


def without_common(run: Run) -> tuple[Run, Common]:
    """A run as it is sent, and what is large and the same for all runs, which is sent once."""
    rows = replace(run.task, train=(), validation=(), test=())
    return replace(run, task=rows, general=None), (run.task, run.general)


def carry_out(order: Order, asked: Plan | Run, common: Common | None, mailbox: Any) -> Outcome:
    """A Ray task: one job, in a process forked from the node's holder."""
    import ray

    node = ray.get_runtime_context().get_node_id()
    mailbox.post.remote(Letter(order.task, node))
    place = order.places.get(node)
    if place is None:
        return Outcome("absent", "the node has just come", node)
    if isinstance(asked, Run) and common is not None:
        asked = replace(asked, task=common[0], general=common[1])

    def post(files: Files) -> None:
        mailbox.post.remote(Letter(order.task, node, files))

    return _Errand(order, place, post).go(asked)


class _Errand:
    """One order on the node where it is carried out."""

    def __init__(self, order: Order, place: Place, post: Callable[[Files], None]) -> None:
        self.order, self.place, self.post = order, place, post
        self.away = not place.shared and order.folder is not None
        self.folder = place.out / (order.folder or "")

    def go(self, asked: Plan | Run) -> Outcome:
        word, value = self._outcome(asked)
        files = packed(self.folder) if self.away else {}
        return Outcome(word, value, self.place.node, files)

    def _outcome(self, asked: Plan | Run) -> tuple[str, Any]:
        try:
            return "result", self._call(asked)
        except holder.NotThere as error:
            return "absent", str(error)
        except Died as error:
            return "died", str(error)
        except Stopped as error:
            return "stopped", str(error)
        except DiskFull as error:
            return "disk", f"{self.place.name}: {error}"
        except RunFailed as error:
            return "failed", str(error)
        except OSError as error:
            kind, message = describe(error)
            return ("disk" if kind == "disk" else "failed"), f"{self.place.name}: {message}"

    def _call(self, asked: Plan | Run) -> Any:
        order, place = self.order, self.place
        if self.away:
            unpack(order.sent, self.folder)
        trunk = place.holder / holder.TRUNK
        arguments: tuple[Any, ...] = (asked, place.out, trunk)
        if order.function == SURVEY:
            arguments = (asked, place.out if place.shared else None, *order.more)
        settings = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        call = holder.Call(order.function, arguments, order.threads, settings)
        changes = Changes(self.folder) if self.away else None

        def tick() -> None:
            files = changes.take() if changes is not None else {}
            if files:
                self.post(files)

        return holder.call(place.holder, call, tick=tick)
