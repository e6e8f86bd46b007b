"""A few real steps of a training, from which all of it is predicted.

The steps are taken by the loop that will train, on rows of the training split: the step with the
most tokens, which decides the peak of memory, then usual ones. Where activations of the frozen
trunk are kept only the first visit of a row pays for those, so their rows are visited twice. Time
grows with the tokens; how many there will be is counted. Where steps are slow, the usual one is
taken with some of its rows. A pack of validation and a few tokens that are decoded say what
evaluation will cost.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING

import torch

from peftlab.estimate.pace import Pace, decoding, reading
from peftlab.estimate.prediction import Prediction
from peftlab.measure import phase
from peftlab.methods import Method
from peftlab.methods.adaptation import Adaptation
from peftlab.processes import ALONE
from peftlab.tasks.fit import fitted
from peftlab.token_limits import max_row_tokens
from peftlab.training import TrainConfig
from peftlab.training.budget import Budget
from peftlab.training.data import Data, lengths
from peftlab.training.loop import Loop
from peftlab.training.rows import Order, Rows
from peftlab.training.steps import Steps
from peftlab.training.trainee import MethodInTraining
from peftlab.trunk import TrunkStore

if TYPE_CHECKING:
    from peftlab.frozen.model import FrozenLM
    from peftlab.tasks import Task

_STEPS = 5  # warm ones, of usual size
_LOOKED_AT = 400  # planned steps whose tokens are counted; of more, evenly spaced ones
_ALONE = 0.7  # share of the time that a program which has a core to itself computes
_VALIDATED = 32  # rows of the validation split, the longest of which are read
_PARTS = 4  # a slow step is taken with so small a part of its rows


class _Probed(Loop[Adaptation]):
    """The loop that will train, whose trainee is one of our methods."""

    trainee: MethodInTraining


@dataclass
class _Taken:
    """What the usual steps took; the largest comes first and pays for what is done once.

    filling: seconds that keeping the trunk takes: what first visits took beyond second ones, for
        all chunks.
    watched: seconds in all. computing: those of the processor, of all threads together.
    peak: bytes that the largest step needs once the optimiser has its moments.
    """

    seconds: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    forward_tokens: list[int] = field(default_factory=list)
    filling: float = 0.0
    watched: float = 0.0
    computing: float = 0.0
    peak: int = 0

    def per_token(self, amounts: Sequence[float]) -> float:
        """Of a usual step; the median, since a busy machine makes single steps slow."""
        return median(amount / count for amount, count in zip(amounts, self.tokens, strict=True))


def probe(
    model: FrozenLM,
    method: Method,
    task: Task,
    config: TrainConfig,
    *,
    steps: int = _STEPS,
    patience: float = 10.0,
    replies: int = 0,
) -> Prediction:
    """Predict one training by taking a few of its steps.

    On a CPU the memory is that of the process: what it has done before counts too.

    Args:
        steps: of usual size that are taken, after the largest one.
        patience: seconds after which no further step is begun; two are taken at least, where the
            largest alone has lasted so long a part of a second one. Second visits, where there are
            any, may take as long again.
        replies: rows that will decode together; 0: what evaluation costs is not asked.

    Raises:
        InputError, UnsupportedModel, Diverged: as training would.
    """
    counted = Prediction.counted(method.count(model.shape))
    if method.judges:  # its author may cost money: what the base reads is known without it
        pace = _pace_untrained(model, method, task, config, max(1, replies))
        seconds = None if pace is None else _tokens_of(model, task, config) * pace.read
        return replace(counted, train_seconds=seconds, pace=pace)
    if not (method.trains or method.searches):
        return replace(counted, pace=_pace_untrained(model, method, task, config, replies))
    with (
        tempfile.TemporaryDirectory(prefix="peftlab-probe-") as folder,
        phase("train", model.device) as measured,
    ):
        loop = _loop(model, method, task, config, Path(folder))
        planned = _plan(loop, steps)
        taken = _take(loop, planned, patience)
        read = _validate_and_save(loop)
    pace = _pace(loop, task, read, replies) if replies and read is not None else None
    step, train = _times(loop, planned, taken)
    return replace(
        counted,
        peak_memory=max(measured.peak_bytes, taken.peak),
        step_seconds=step,
        train_seconds=train,
        filling_seconds=taken.filling,
        pace=pace,
        busy=model.device.type == "cpu" and taken.computing < _ALONE * taken.watched,
    )


def _tokens_of(model: FrozenLM, task: Task, config: TrainConfig) -> float:
    """Tokens that a search may use which judges by itself, see `Loop.budget`."""
    task = fitted(task, model.tokenizer, ("train",))
    most = max_row_tokens(model.shape.context, config.max_length)
    rows = Rows(task.pairs("train"), task.template, model.tokenizer, most, task.choices)
    return Budget.of(config, len(rows)).in_tokens(config, lengths(rows)).amount


def _times(loop: _Probed, planned: _Planned, taken: _Taken) -> tuple[float, float]:
    """Seconds of a usual step, and of all."""
    budget = loop.budget
    step = taken.per_token(taken.seconds) * planned.mean_tokens
    forward_tokens = taken.per_token(taken.forward_tokens) * planned.mean_tokens
    if budget.kind == "seconds":
        return step, budget.amount
    steps = budget.amount / (1 if budget.kind == "steps" else forward_tokens)
    return step, steps * step + taken.filling


def _loop(
    model: FrozenLM, method: Method, task: Task, config: TrainConfig, folder: Path
) -> _Probed:
    for site in method.sites:
        model.conformance.require(site, method.name)
    method.check(model.shape)
    task = fitted(task, model.tokenizer, ("train", "validation"))
    start = method.init(model, task, torch.Generator().manual_seed(config.seed))
    store = TrunkStore(config.trunk_memory, config.trunk_disk, folder / "trunk", shared=True)
    trainee = MethodInTraining(model, method, task, config, start, store, ALONE)
    return _Probed(trainee, config, folder, "probe")


@dataclass(frozen=True)
class _Planned:
    """The largest of the planned steps, usual ones, and their mean tokens."""

    largest: int
    usual: list[int]
    mean_tokens: float


def _plan(loop: _Probed, steps: int) -> _Planned:
    total = loop.trainee.data.steps or -(-len(loop.trainee.data.rows) // loop.config.rows_a_step)
    tokens = {
        step: _tokens(loop.trainee.data, step) for step in range(0, total, -(-total // _LOOKED_AT))
    }
    middle = median(tokens.values())
    return _Planned(
        largest=max(tokens, key=tokens.__getitem__),
        usual=sorted(tokens, key=lambda step: abs(tokens[step] - middle))[:steps],
        mean_tokens=fmean(tokens.values()),
    )


def _tokens(data: Data, step: int) -> int:
    return sum(len(data.rows[i].ids) - 1 for i in data.order.step(step))


def _take(loop: _Probed, planned: _Planned, patience: float) -> _Taken:
    begun, worked, taken = time.perf_counter(), time.process_time(), _Taken()
    data, steps, end = loop.trainee.data, planned.usual, begun + patience
    with phase("the largest step", loop.trainee.steps.model.device) as measured:
        first = [_timed(loop, data, planned.largest)[0]]
    # A later one meets what the optimiser keeps from the first step on.
    taken.peak = measured.peak_bytes + _moments(loop.trainee.steps)
    visited = [planned.largest]
    parts = data.kept_parts(loop.config.rows_a_step)
    if parts:
        for step in _in_time(steps, end):
            first.append(_timed(loop, data, step)[0])
            visited.append(step)
        data = replace(data, order=_Regrouped(data.order, visited))
        steps, end = list(range(len(visited))), end + patience
    elif time.perf_counter() > end:
        data, steps = replace(data, order=_Part(data.order)), steps[:1]
    for step in _in_time(steps, end):
        seconds, forward_tokens = _timed(loop, data, step)
        taken.seconds.append(seconds)
        taken.forward_tokens.append(forward_tokens)
        taken.tokens.append(_tokens(data, step))
    if parts and len(loop.trainee.store):
        tokens = sum(_tokens(loop.trainee.data, step) for step in visited)
        seen = max(0.0, sum(first) - taken.per_token(taken.seconds) * tokens)
        taken.filling = seen / len(loop.trainee.store) * parts
    taken.watched = time.perf_counter() - begun
    taken.computing = time.process_time() - worked
    return taken


class _Regrouped(Order):
    """The rows of some steps in other groups, as a later epoch meets them.

    In the same groups a step would find all that the first visit compiled for its shapes.
    """

    def __init__(self, order: Order, steps: Sequence[int]) -> None:
        rows = [row for step in steps for row in order.step(step)]
        self._groups = [rows[i :: len(steps)] for i in range(len(steps))]

    def step(self, step: int) -> list[int]:
        return self._groups[step]


class _Part(Order):
    """Some of the rows of every step, evenly spaced."""

    def __init__(self, order: Order) -> None:
        self._order = order

    def step(self, step: int) -> list[int]:
        return self._order.step(step)[::_PARTS]


def _in_time(steps: Sequence[int], end: float) -> Iterator[int]:
    """The first step, and those after it that can begin in time."""
    for i, step in enumerate(steps):
        if i and time.perf_counter() > end:
            return
        yield step


def _timed(loop: _Probed, data: Data, step: int) -> tuple[float, int]:
    """Seconds and passes of one step."""
    begun = time.perf_counter()
    taken = loop.trainee.steps.take(step, data)
    seconds = time.perf_counter() - begun
    loop.progress.add(taken.loss, taken.tokens, taken.forward_tokens, seconds)
    return seconds, taken.forward_tokens


def _moments(steps: Steps) -> int:
    """Bytes of what the optimiser keeps."""
    kept = steps.descending.moments.values()
    tensors = (value for each in kept for value in each.values())
    return sum(value.nbytes for value in tensors if isinstance(value, torch.Tensor))


def _validate_and_save(loop: _Probed) -> float | None:
    """What else a run does while its memory is measured, with a new best state as the peak has.

    Returns the seconds that reading takes a token; None where there are no validation rows.
    """
    trainee, read = loop.trainee, None
    count = min(_VALIDATED, len(trainee.data.validation))
    if count:
        rows = [trainee.data.validation[i] for i in range(count)]
        with torch.no_grad(), trainee.steps.accelerator.autocast():
            edits, pasts = trainee.steps.edits().detach(), trainee.data.pasts
            read = reading(trainee.model, edits, rows, pasts)
    loop.best = trainee.steps.snapshot()
    loop.save()
    return read


def _pace(loop: _Probed, task: Task, read: float, replies: int) -> Pace:
    trainee = loop.trainee
    with torch.no_grad():
        edits = trainee.steps.edits().detach()
    template = edits.template or trainee.method.template(task.template, trainee.steps.state)
    return Pace(read, decoding(trainee.model, edits, template, task.test[:replies], replies))


def _pace_untrained(
    model: FrozenLM, method: Method, task: Task, config: TrainConfig, replies: int
) -> Pace | None:
    """Of a method that trains nothing: of its first state."""
    pairs = task.pairs("validation")[:_VALIDATED]
    if not replies or not pairs:
        return None
    start = method.init(model, task, torch.Generator().manual_seed(config.seed))
    edits = method.edits(method.materialise(start, model), model)
    template = edits.template or method.template(task.template, start)
    most = max_row_tokens(model.shape.context, config.max_length, edits.prefix_length)
    rows = [template.encode(model.tokenizer, *pair, most) for pair in pairs]
    read = reading(model, edits, rows)
    return Pace(read, decoding(model, edits, template, task.test[:replies], replies))
