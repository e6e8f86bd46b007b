"""The engine of a Ray cluster: each call is a Ray task, as many at once as the nodes have room for.

Ray sends tasks again whose worker, run or node dies; they go on from the run's checkpoint. A call
that fails by an error of its own is not tried again, as on the local engine.
"""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from peftlab.comparison.engine import Call, Opened, T, Workflow, advance
from peftlab.comparison.plan import Plan, Run
from peftlab.comparison.processes import Died, RunFailed, Say, Stopped, remembered_ctrl_c
from peftlab.comparison.ray import cluster
from peftlab.comparison.ray.cluster import Needs
from peftlab.comparison.ray.nodes import NodePool, carry_out
from peftlab.comparison.ray.task import Home, without_common
from peftlab.errors import DiskFull, InputError, PeftlabError
from peftlab.records import folders

_TRIES = 4  # of one call whose processes die
_TURN = 1.0  # seconds between looks at notices
_GRACE = 60.0  # seconds that runs get to save and end
_PATIENCE = 120.0  # seconds without any node that could do what is left
_MARGIN = 1.1  # of predicted memory
_PROCESS = 512 << 20  # bytes of a process that has only imported its libraries, and some more


@dataclass
class Ray:
    """Runs on a cluster.

    address: of the head node, see `cluster.connect`. cpus: of a run; None: all of the smallest
    node. notice: is told what a person wants to know on the way.
    """

    address: str | None = None
    cpus: int | None = None
    notice: Callable[[str], None] = lambda _: None

    @contextmanager
    def opened(self, plan: Plan, out: Path) -> Iterator[Opened]:
        """Connect, and make every node ready.

        Raises:
            InputError: no Ray, nobody answers, or a node that cannot take part.
        """
        if plan.device not in ("cpu", "cuda"):
            raise InputError(f"--device {plan.device}: on Ray cpu or cuda was expected")
        ray = cluster.connect(self.address)
        try:
            yield _Scheduler(ray, plan, out.resolve(), self)
        finally:
            ray.shutdown()  # its actors end with it, and with them the base servers


class _Scheduler:
    def __init__(self, ray: ModuleType, plan: Plan, out: Path, engine: Ray) -> None:
        self.ray, self.notice = ray, engine.notice
        self.calls: dict[Any, Call] = {}  # under way, by Ray's references to what they return
        self.waiting: dict[Any, list[int]] = {}  # workflows that want a result, by the call's key
        self.common: dict[int, tuple[Any, Any]] = {}  # Ray's references to what is sent once
        self.deadline = math.inf  # of a node that could do what is left
        token, gpu = uuid.uuid4().hex, plan.device == "cuda"
        (out / folders.LOCK).write_text(token)  # in place: the lock is on this very file
        base = plan.model, () if gpu else plan.base_dtypes, Path.cwd()
        self.nodes = NodePool(ray, (out, token, base))
        self.needs = cluster.needs([*cluster.alive(ray).values()], engine.cpus, gpu)
        here = cluster.lasting(ray.get_runtime_context().get_node_id())
        self.home = ray.remote(Home).options(**here).remote(out)
        self._open_nodes(out)

    def _open_nodes(self, out: Path) -> None:
        """Look at every node that a run would fit on; what is wrong can be mended at once."""
        nodes = {n: has for n, has in cluster.alive(self.ray).items() if self.needs.fit(has)}
        if refused := self.nodes.open(nodes):
            raise InputError(
                f"{len(refused)} of {len(nodes)} nodes cannot take part: {'; '.join(refused)}. All "
                "need the same versions, and the base under the same name (a hub id, or a folder "
                "that every node has); mend them, or stop Ray there with `ray stop`"
            )
        together = sum(int(has["CPU"] // self.needs.num_cpus) for has in nodes.values())
        apart = [place.name for place in self.nodes.places.values() if not place.shared]
        told = f" Files are fetched from {', '.join(apart)}: they do not see {out}."
        self.notice(
            f"Ray: {len(nodes)} nodes, {self.needs} a run, at most {together} runs at once."
            + (told if apart else "")
        )

    def run(self, workflows: Sequence[Workflow[T]], hear: Say) -> list[T]:
        """All at once, as far as there is room; see `Opened`."""
        ends: dict[int, T] = {}
        try:
            with remembered_ctrl_c() as check:
                for number, answer in self._answers(len(workflows), check):
                    try:
                        self._ask(number, advance(workflows[number], answer))
                    except StopIteration as end:
                        ends[number] = end.value
        except KeyboardInterrupt:
            raise Stopped from None
        finally:
            self._stop()
        return [ends[number] for number in range(len(workflows))]

    def _ask(self, number: int, call: Call) -> None:
        """Have a call carried out, once for all that want its result."""
        if call.key not in self.waiting:
            try:
                cluster.check_fit(self._needs(call), cluster.alive(self.ray).values(), str(call))
                self._send(call)
            except InputError as error:  # its answer is known at once
                self.calls[self.ray.put(("result", RunFailed(str(error))))] = call
        self.waiting.setdefault(call.key, []).append(number)

    def _answers(self, workflows: int, check: Callable[[], None]) -> Iterator[tuple[int, Any]]:
        """First None for every workflow, then what comes for which, until nothing is under way."""
        yield from ((number, None) for number in range(workflows))
        while self.calls:
            ended, _ = self.ray.wait([*self.calls], num_returns=1, timeout=_TURN)
            for notice in self.ray.get(self.home.take.remote()):
                self.notice(notice)
            check()
            self._check_not_stuck(moving=bool(ended))
            for reference in ended:
                call = self.calls.pop(reference)
                word, value = self._outcome(reference)
                if word == "new":
                    for left_out in self.nodes.open([value]):
                        self.notice(f"A node is left out: {left_out}")
                    self._send(call)
                else:
                    yield from ((number, value) for number in self.waiting.pop(call.key))

    def _needs(self, call: Call) -> Needs:
        """Of memory what was predicted, and at least the base and a process."""
        run = call.subject
        if not isinstance(run, Run):
            return self.needs
        least = (run.base.bytes or 4.0 * run.base.parameters) + _PROCESS
        predicted = 0.0 if self.needs.num_gpus else run.predicted.get("peak_memory", 0.0)
        return self.needs._replace(memory=int(_MARGIN * max(least, predicted)))

    def _send(self, call: Call) -> None:
        subject, common = without_common(call.subject)
        known = id(common and common[0])  # of an object that is kept, so that its id is
        if known not in self.common:
            self.common[known] = common, self.ray.put(common)
        references = [self.ray.put(replace(call, subject=subject)), self.common[known][1]]
        others = {"ray.io/node-id": f"!in({','.join(self.nodes.refused)})"}
        task = self.ray.remote(carry_out).options(
            max_retries=_TRIES - 1,
            retry_exceptions=[Died, Stopped],
            scheduling_strategy="SPREAD",
            label_selector=others if self.nodes.refused else None,
            **self._needs(call)._asdict(),
        )
        self.calls[task.remote(self.nodes.actors, self.home, references)] = call

    def _outcome(self, reference: Any) -> tuple[str, Any]:
        """What `carry_out` returns; an error that concerns a run alone is a result too."""
        try:
            return self.ray.get(reference)
        except DiskFull as error:
            raise DiskFull(cluster.reason(error)) from None
        except self.ray.exceptions.RayError as error:
            return "result", RunFailed(cluster.reason(error))

    def _check_not_stuck(self, moving: bool) -> None:
        """Nodes may come back, or an autoscaler may start some; but not for ever."""
        nodes, needs = cluster.alive(self.ray), [self._needs(call) for call in self.calls.values()]
        left = [has for node, has in nodes.items() if node not in self.nodes.refused]
        if moving or any(need.fit(has) for need in needs for has in left):
            self.deadline = time.monotonic() + _PATIENCE
        elif time.monotonic() > self.deadline:
            raise PeftlabError(
                f"no node is left for {len(needs)} runs ({self.needs} each): start nodes and "
                "give the same command again; what is finished is kept"
            )

    def _stop(self) -> None:
        """Let what runs save and end, and forget what waits."""
        for reference in self.calls:
            self.ray.cancel(reference, recursive=False)
        if self.calls:
            self.ray.wait([*self.calls], num_returns=len(self.calls), timeout=_GRACE)
        self.calls.clear()
        self.waiting.clear()
