"""From an experiment to plans: for every task and base, rows that share their settings together."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from peftlab.comparison.label import parse, slug
from peftlab.comparison.plan import Plan
from peftlab.comparison.settings import EvaluationConfig
from peftlab.errors import InputError, nearest
from peftlab.experiments.spec import ExperimentSpec, RowSpec, Setting, TaskSpec
from peftlab.guests import Guest
from peftlab.methods import Method
from peftlab.options import entries, made, refuse_unknown
from peftlab.tasks import Decoding, Task
from peftlab.tasks.metric_choice import with_plugins
from peftlab.training.config import BUDGETS, TrainConfig

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Overrides:
    """What a user sets for the whole grid; None leaves it to the experiment.

    Attributes:
        models: other bases; every row is then made on each of them.
        tasks: some of the experiment's.
        data: a folder with a saved data set for every task, named after it.
        limit, test_limit: rows, see `tasks.options`.
        metrics: those that need weights and shall be measured.
        training: settings of every row; a budget replaces the rows' own.
        seeds, device, general_text: as of a `Plan`.
        latency_tokens: see `EvaluationConfig`.
    """

    models: tuple[str, ...] | None = None
    tasks: tuple[str, ...] | None = None
    data: Path | None = None
    limit: int | None = None
    test_limit: int | None = None
    metrics: tuple[str, ...] = ()
    training: Mapping[str, Any] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0,)
    device: str = "cpu"
    general_text: tuple[str, ...] = ()
    latency_tokens: int = EvaluationConfig.latency_tokens


@dataclass(frozen=True)
class Part:
    """Rows that run under the same settings on one task and base: a plan of its own.

    rows: the title of each method's row. folder: of all parts of this task and base.
    """

    task: str
    model: str
    rows: tuple[str, ...]
    plan: Plan
    folder: Path


def parts(spec: ExperimentSpec, over: Overrides) -> list[Part]:
    """Every part, in the order of the experiment's bases, tasks and rows.

    Raises:
        InputError: an unknown task, data that cannot be loaded, or a setting that cannot be used.
    """
    chosen = over.tasks or tuple(spec.tasks)
    for name in chosen:
        if name not in spec.tasks:
            raise InputError(
                f"{spec.name} has no task {name!r}; it has {', '.join(spec.tasks)}."
                f"{nearest(name, spec.tasks)}"
            )
    loaded = {name: _load(name, spec.tasks[name], over) for name in chosen}
    return [
        part
        for model in over.models or spec.models
        for name, task in loaded.items()
        for part in _parts(spec, over, model, name, task)
    ]


def rows_of(spec: ExperimentSpec, model: str, measured: bool = True) -> list[RowSpec]:
    """The rows that belong to a base; on a base of the user's, all that have a method."""
    return [
        row
        for row in spec.rows
        if (row.method is not None or not measured)
        and (model not in spec.models or not row.models or model in row.models)
    ]


def _load(name: str, task: TaskSpec, over: Overrides) -> Task:
    metrics = [
        column.metric
        for column in task.columns
        if column.metric and (not column.weights or column.metric in over.metrics)
    ]
    notes: list[str] = []
    options: dict[str, Any] = {"metrics": with_plugins(metrics, notes)}
    for key in ("limit", "test_limit"):
        if getattr(over, key) is not None:
            options[key] = getattr(over, key)
    if over.data is not None:
        options["data"] = over.data / name
    loaded = Task.load(name, **options)
    return replace(loaded, notes=(*loaded.notes, *notes))


def _parts(spec: ExperimentSpec, over: Overrides, model: str, name: str, task: Task) -> list[Part]:
    groups: dict[str, tuple[TrainConfig, Task, list[tuple[str, Method | Guest]]]] = {}
    for row in rows_of(spec, model):
        setting = row.setting(model, name)
        config = _config(spec, setting, over, row.title)
        own = _task(task, setting, row.title)
        key = json.dumps([asdict(config), asdict(own.decoding), own.max_new_tokens,
                          own.template.source_tokens])  # fmt: skip
        (method,) = parse(setting.method or "")
        groups.setdefault(key, (config, own, []))[2].append((row.title, method))
    return [
        Part(
            name,
            model,
            tuple(title for title, _ in made),
            Plan(
                model=model,
                task=own,
                methods=tuple(method for _, method in made),
                config=config,
                evaluation=EvaluationConfig(latency_tokens=over.latency_tokens),
                general_text=over.general_text,
                seeds=over.seeds,
                device=over.device,
            ),
            Path(f"{slug(name)}-{slug(Path(model).name if Path(model).exists() else model)}"),
        )
        for config, own, made in groups.values()
    ]


def _config(spec: ExperimentSpec, setting: Setting, over: Overrides, row: str) -> TrainConfig:
    values = {**spec.training, **setting.training}
    if any(budget in over.training for budget in BUDGETS):
        values = {key: value for key, value in values.items() if key not in BUDGETS}
    return _made(TrainConfig, {**values, **over.training}, f"training of {row!r}")


def _task(task: Task, setting: Setting, row: str) -> Task:
    own = {one.name: getattr(task.decoding, one.field) for one in entries(Decoding).values()}
    decoding = {**own, **setting.decoding}
    template = task.template
    if setting.source_tokens is not None:
        template = replace(template, source_tokens=setting.source_tokens)
    return replace(
        task,
        template=template,
        max_new_tokens=setting.max_new_tokens or task.max_new_tokens,
        guesses_length=task.guesses_length and setting.max_new_tokens is None,
        decoding=_made(Decoding, decoding, f"decoding of {row!r}"),
    )


def _made(kind: type[T], values: Mapping[str, Any], what: str) -> T:
    refuse_unknown(values, entries(kind), what)
    return made(kind, values, lambda name: f"{what}: {name}")
