"""What each method will cost: a few steps of every one, before the runs.

Each is probed in a process of its own, as its run will have one. So what one leaves behind is not
in another's memory, and where memory runs out, a probe ends and nothing else.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from peftlab.comparison.engine import PREDICT, Call, Opened, Workflow
from peftlab.comparison.finished import finished
from peftlab.comparison.plan import Plan, Run, searches
from peftlab.comparison.processes import RunFailed, Say
from peftlab.comparison.profile import Profile
from peftlab.estimate import Prediction, probe
from peftlab.frozen import named as base
from peftlab.guests import is_guest
from peftlab.methods import Count, Method
from peftlab.tasks import Task
from peftlab.training import TrainConfig

PROBED = "peftlab.comparison.cost_prediction:probed"
WEIGHED = "peftlab.comparison.cost_prediction:weighed"


def predicted(plan: Plan, profiled: Profile, opened: Opened, out: Path) -> Profile:
    """The profile with a prediction of every method that has a run to make.

    Those beyond the plan's limits are left out, with the reason; those that cannot run, or not in
    the memory that is here, become misfits.

    Raises:
        DiskFull, Stopped: see `Opened.run`.
    """
    if not (plan.predict or plan.limits):
        return profiled
    todo: dict[str, Run] = {}
    for run in profiled.runs(plan):
        fits = run.label not in profiled.misfits and not is_guest(run.method)
        if fits and run.label not in todo and finished(run, out) is None:
            todo[run.label] = run
    workflows = [_workflow(run, profiled.counts[label]) for label, run in todo.items()]
    answers = dict(zip(todo, opened.run(workflows, lambda *_: None), strict=True))
    predictions = {label: a for label, a in answers.items() if isinstance(a, Prediction)}
    problems = {label: a for label, a in answers.items() if isinstance(a, str)}
    reasons = {label: plan.limits.reason(one) for label, one in predictions.items()}
    left_out = {label: reason for label, reason in reasons.items() if reason is not None}
    misfits = profiled.misfits | problems
    return replace(profiled, predictions=predictions, misfits=misfits, left_out=left_out)


def _workflow(run: Run, count: Count) -> Workflow[Prediction | str]:
    """A prediction, or why there is none."""
    if not (run.method.trains or run.method.searches):
        return Prediction.counted(count)
    try:
        prediction: Prediction = yield Call(PREDICT, run, run.folder)
    except RunFailed as error:
        return str(error)
    if searches(run):
        trials = run.search.trials * run.search.share * (prediction.train_seconds or 0.0)
        prediction = replace(prediction, search_seconds=trials)
    return prediction


def predict(say: Say, run: Run, _out: Path, _trunk: Path | None = None) -> Prediction:
    """What a run is expected to cost, found in a process of its own."""
    on = run.base
    assert not is_guest(run.method)
    return probed(say, on.name, on.device, on.dtype, run.method, run.task, run.config)


def probed(
    _say: Say, name: str, device: str, dtype: str, method: Method, task: Task, config: TrainConfig
) -> Prediction:
    """The same for a method on a base by its name."""
    return probe(base.load(name, device, dtype), method, task, config)


def weighed(_say: Say, name: str, device: str, dtype: str) -> tuple[int, int]:
    """How many parameters a base has, and the bytes that its weights take."""
    model = base.load(name, device, dtype)
    return model.shape.size, model.base_bytes
