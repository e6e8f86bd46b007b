"""The engine of a Ray cluster: each job is a Ray task, as many at once as the nodes have room for.

Tasks whose worker, run or node dies are sent again, to another node where there is one, and go on
from the run's checkpoint. A job that fails by an error of its own is not tried again, as on the
local engine. Tries are counted here and not by Ray, so that each is known and told.
"""

from __future__ import annotations

import itertools
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from peftlab.comparison.engine import SURVEY, Course, Job, Opened, T
from peftlab.comparison.plan import Plan, Run
from peftlab.comparison.processes import RunFailed, Say, Stopped
from peftlab.comparison.profile import Survey
from peftlab.comparison.ray import cluster
from peftlab.comparison.ray.actors import Mailbox
from peftlab.comparison.ray.cluster import Needs
from peftlab.comparison.ray.nodes import Fleet
from peftlab.comparison.ray.payload import packed, unpack
from peftlab.comparison.ray.task import Order, Outcome, carry_out, without_common
from peftlab.errors import DiskFull, InputError, PeftlabError
from peftlab.records import folders

_TRIES = 4  # of one job whose processes die
_TURN = 1.0  # seconds between looks at the mail
_GRACE = 60.0  # seconds that runs get to save and end
_PATIENCE = 120.0  # seconds without any node that could do what is left
_MARGIN = 1.1  # of predicted memory
_PROCESS = 512 << 20  # bytes of a process that has only imported its libraries, and some more


class Ray:
    """Runs on a cluster.

    Args:
        address: of the head node, see `cluster.connect`.
        cpus: of a run; None: all of the smallest node.
        notice: is told what a person wants to know on the way.
    """

    def __init__(
        self,
        address: str | None = None,
        cpus: int | None = None,
        notice: Callable[[str], None] | None = None,
    ) -> None:
        self.address, self.cpus, self.notice = address, cpus, notice or (lambda _: None)

    @contextmanager
    def opened(self, plan: Plan, out: Path) -> Iterator[Opened]:
        """Connect, and make every node ready.

        Raises:
            InputError: no Ray, nobody answers, or a node that cannot take part.
        """
        if plan.device not in ("cpu", "cuda"):
            raise InputError(f"--device {plan.device}: on Ray cpu or cuda was expected")
        ray = cluster.connect(self.address)
        with ExitStack() as stack:
            stack.callback(ray.shutdown)
            grid = _Grid(ray, plan, out.resolve(), self)
            stack.callback(grid.fleet.close)
            grid.make_ready()
            yield grid


@dataclass(eq=False)
class _Task:
    """A job that is under way.

    Attributes:
        number: of this try. node: where it has begun. died: nodes on which it did.
        waiting: courses that want its result.
    """

    function: str
    asked: Plan | Run
    folder: Path | None
    needs: Needs
    more: tuple[Any, ...] = ()
    number: int = 0
    node: str | None = None
    died: list[str] = field(default_factory=list)
    waiting: list[int] = field(default_factory=list)

    def __str__(self) -> str:
        asked = self.asked
        return f"{asked.label}, seed {asked.seed}" if isinstance(asked, Run) else "the survey"


class _Grid:
    def __init__(self, ray: ModuleType, plan: Plan, out: Path, engine: Ray) -> None:
        self.ray, self.plan, self.out, self.engine = ray, plan, out, engine
        token, gpu = uuid.uuid4().hex, plan.device == "cuda"
        (out / folders.LOCK).write_text(token)  # in place: the lock is on this very file
        formats = () if gpu else plan.base_dtypes
        self.fleet = Fleet(ray, out, token, plan.model, formats, Path.cwd())
        self.needs = cluster.needs([*cluster.alive(ray).values()], engine.cpus, gpu)
        here = cluster.pinned(ray.get_runtime_context().get_node_id())
        mailbox = ray.remote(Mailbox).options(num_cpus=0, max_restarts=-1, **here)
        self.mailbox = mailbox.remote()
        self.tasks: dict[Any, _Task] = {}
        self.jobs: dict[object, _Task] = {}
        self.numbers = itertools.count()
        self.common: dict[int, Any] = {}
        self.courses: list[Course[Any]] = []
        self.ends: dict[int, Any] = {}
        self.stuck_since: float | None = None

    def make_ready(self) -> None:
        """Look at every node that a run would fit on."""
        resources = cluster.alive(self.ray)
        fitting = [node for node, has in resources.items() if self.needs.fit(has)]
        self.fleet.open(fitting)
        self.fleet.require_all()
        together = sum(int(resources[n]["CPU"] // self.needs.cpus) for n in fitting)
        apart = [p.name for p in self.fleet.places.values() if not p.shared]
        told = f" Files are fetched from {', '.join(apart)}: they do not see {self.out}."
        self.engine.notice(
            f"Ray: {len(fitting)} nodes, {self.needs} a run, at most {together} runs at once."
            + (told if apart else "")
        )

    def survey(self, dtype: str) -> Survey:
        found: list[Survey] = []
        task = _Task(SURVEY, self.plan, None, self.needs, (dtype,))
        with self._stopping_at_errors():
            self._send(task)
            while self.tasks:
                for outcome in self._turn():
                    if outcome.word == "failed":
                        raise RunFailed(outcome.value)
                    found.append(outcome.value)
        return found[0]

    def go(self, courses: Sequence[Course[T]], hear: Say) -> list[T]:
        self.courses = list(courses)
        with self._stopping_at_errors():
            for number in range(len(courses)):
                self._advance(number, None)
            while self.tasks:
                self._turn()
        return [self.ends[number] for number in range(len(courses))]

    @contextmanager
    def _stopping_at_errors(self) -> Iterator[None]:
        try:
            yield
        except KeyboardInterrupt:
            self._stop()
            raise Stopped(
                "stopped; what is finished is kept, and the same command continues"
            ) from None
        except BaseException:
            self._stop()
            raise

    def _advance(self, number: int, answer: Any) -> None:
        """Take a course on to its next job, or to its end."""
        course = self.courses[number]
        try:
            job = course.throw(answer) if isinstance(answer, RunFailed) else course.send(answer)
        except StopIteration as end:
            self.ends[number] = end.value
            return
        task = self.jobs.get(job.key)
        if task is not None:
            task.waiting.append(number)
            return
        task = _Task(job.function, job.run, job.folder, self._needs(job))
        task.waiting.append(number)
        try:
            resources = cluster.alive(self.ray)
            cluster.check_fit(task.needs, [*resources.values()], job.run.label)
        except InputError as error:
            self._advance(number, RunFailed(str(error)))
            return
        self.jobs[job.key] = task
        self._send(task)

    def _needs(self, job: Job) -> Needs:
        """Of memory what was predicted, and at least the base and a process."""
        run = job.run
        least = (run.base.bytes or 4.0 * run.base.parameters) + _PROCESS
        predicted = run.predicted.get("peak_memory", 0.0) if self.plan.device == "cpu" else 0.0
        return Needs(self.needs.cpus, self.needs.gpus, int(_MARGIN * max(least, predicted)))

    def _send(self, task: _Task) -> None:
        task.number, task.node = next(self.numbers), None
        places = self.fleet.places
        apart = task.folder is not None and not all(place.shared for place in places.values())
        order = Order(
            task.number,
            task.function,
            task.folder,
            self.needs.cpus,
            places,
            packed(self.out / task.folder) if apart and task.folder is not None else {},
            task.more,
        )
        asked, common = task.asked, None
        if isinstance(asked, Run):
            asked, (rows, general) = without_common(asked)
            if id(rows) not in self.common:
                self.common[id(rows)] = self.ray.put((rows, general))
            common = self.common[id(rows)]
        options = task.needs.options() | cluster.elsewhere(self._avoided(task))
        remote = self.ray.remote(carry_out).options(max_retries=0, **options)
        self.tasks[remote.remote(order, asked, common, self.mailbox)] = task

    def _avoided(self, task: _Task) -> list[str]:
        """Nodes that cannot take part, and those where it died as long as there are others."""
        refused = set(self.fleet.refused)
        others = self._fitting(task) - refused - set(task.died)
        return sorted(refused | set(task.died) if others else refused)

    def _fitting(self, task: _Task) -> set[str]:
        return {node for node, has in cluster.alive(self.ray).items() if task.needs.fit(has)}

    def _turn(self) -> list[Outcome]:
        """Wait a little; returns how jobs of no course ended."""
        ended, _ = self.ray.wait([*self.tasks], num_returns=1, timeout=_TURN)
        self._read_mail()
        if not ended:
            self._check_not_stuck()
        found = []
        for ref in ended:
            task = self.tasks.pop(ref)
            outcome = self._outcome(task, ref)
            if outcome is None:
                continue
            self.jobs.pop((task.function, task.folder), None)
            answer = RunFailed(outcome.value) if outcome.word == "failed" else outcome.value
            for number in task.waiting:
                self._advance(number, answer)
            found.append(outcome)
        return found

    def _outcome(self, task: _Task, ref: Any) -> Outcome | None:
        """How a job ended; None where it is tried again."""
        outcome = self._fetched(task, ref)
        if outcome.word == "disk":
            raise DiskFull(outcome.value)
        if outcome.word in ("result", "failed"):
            return outcome
        if outcome.word == "absent":
            self.fleet.reopen(outcome.node, self.engine.notice)
        else:
            task.died.append(outcome.node)
        where = cluster.names(self.ray).get(outcome.node, "a node")
        if len(task.died) >= _TRIES:
            return Outcome("failed", outcome.value, outcome.node)
        if outcome.word != "absent":
            self.engine.notice(f"{task}: tried again, since on {where} {outcome.value}")
        self._send(task)
        return None

    def _fetched(self, task: _Task, ref: Any) -> Outcome:
        """What a task returned, its files put in place, or how Ray says that it died."""
        errors = self.ray.exceptions
        try:
            outcome: Outcome = self.ray.get(ref)
        except errors.RayTaskError as error:
            return Outcome("failed", str(error.cause or error), task.node or "")
        except errors.RayError as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else ""
            return Outcome("died", f"{type(error).__name__}: {reason}", task.node or "")
        if task.folder is not None:
            unpack(outcome.files, self.out / task.folder)
        return outcome

    def _read_mail(self) -> None:
        try:
            letters = self.ray.get(self.mailbox.take.remote(), timeout=_GRACE)
        except (self.ray.exceptions.RayError, self.ray.exceptions.GetTimeoutError):
            return  # it starts again; what it had said is said by the tasks' ends too
        known = {task.number: task for task in self.tasks.values()}
        for letter in letters:
            task = known.get(letter.task)
            if task is not None:
                task.node = letter.node
                if task.folder is not None:
                    unpack(letter.files, self.out / task.folder)

    def _check_not_stuck(self) -> None:
        """Nodes may come back, or an autoscaler may start some; but not for ever."""
        refused = set(self.fleet.refused)
        if any(self._fitting(task) - refused for task in self.tasks.values()):
            self.stuck_since = None
            return
        self.stuck_since = self.stuck_since or time.monotonic()
        if time.monotonic() - self.stuck_since > _PATIENCE:
            raise PeftlabError(
                f"no node is left for {len(self.tasks)} runs ({self.needs} each): start nodes and "
                "give the same command again; what is finished is kept"
            )

    def _stop(self) -> None:
        """Let what runs save and end, and forget what waits."""
        self.fleet.stop()
        self._read_mail()
        for ref, task in self.tasks.items():
            if task.node is None:
                self.ray.cancel(ref)
        end = time.monotonic() + _GRACE
        while self.tasks and time.monotonic() < end:
            ended, _ = self.ray.wait([*self.tasks], num_returns=1, timeout=_TURN)
            self._read_mail()
            for ref in ended:
                self._fetched(self.tasks.pop(ref), ref)
