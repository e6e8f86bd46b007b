"""The runs of a study: variants that can be compared with each other are made as one comparison.

OUT/runs/ holds the comparisons, one folder for each task (rows included) and base; studies of one
OUT share them, so that a run which two studies have in common is made once.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from peftlab.comparison.label import slug
from peftlab.comparison.plan import Plan
from peftlab.comparison.profile import Profile
from peftlab.comparison.run import Silent, Watcher, compare
from peftlab.comparison.settings import EvaluationConfig, SearchConfig
from peftlab.methods import Method
from peftlab.records.reading import StoredRun
from peftlab.study.base import Made, Setting, Variant
from peftlab.tasks import Task
from peftlab.tasks.rows import take
from peftlab.tasks.task import fingerprint
from peftlab.training import TrainConfig

RUNS = "runs"
EVALUATION = EvaluationConfig(latency_tokens=0)


class Teller(Watcher, Protocol):
    """What wants to know how a study goes on."""

    def measuring(self, label: str) -> None:
        """Something is being measured of a finished run."""


class Quiet(Silent):
    """Tells nobody."""

    def measuring(self, label: str) -> None: ...


@dataclass(frozen=True)
class _Group:
    """Runs that one comparison makes."""

    base: str
    task: Task
    config: TrainConfig
    seeds: tuple[int, ...]


def make(
    setting: Setting,
    task: Task,
    variants: Sequence[Variant],
    teller: Teller,
    command: str,
    problems: list[str],
) -> list[Made]:
    """Make the runs of all variants that are not there yet; adds a sentence for what went wrong.

    Raises:
        InputError: a base, task or setting that cannot work at all.
        DiskFull, Stopped: what is finished is kept, and the same call continues.
    """
    groups: dict[tuple[Any, ...], tuple[_Group, list[Method]]] = {}
    for variant in variants:
        for key, group in _groups(setting, task, variant):
            methods = groups.setdefault(key, (group, []))[1]
            if variant.method not in methods:
                methods.append(variant.method)
    runs_of: dict[tuple[Any, ...], list[StoredRun]] = {}
    for key, (group, methods) in groups.items():
        for kept in _compared(setting, group, methods, teller, command, problems):
            runs_of.setdefault((key, kept.record.label), []).append(kept)
    return [_made(setting, task, variant, runs_of, problems) for variant in variants]


def _made(
    setting: Setting,
    task: Task,
    variant: Variant,
    runs_of: dict[tuple[Any, ...], list[StoredRun]],
    problems: list[str],
) -> Made:
    name = variant.method.label
    keys = [key for key, _ in _groups(setting, task, variant)]
    runs = [kept for key in keys for kept in runs_of[key, name]]
    failed = [kept for kept in runs if kept.record.status != "finished"]
    problems += [
        f"{name}, seed {kept.record.seed}, on {kept.record.task.name}: {kept.record.status}: "
        f"{kept.record.error}"
        for kept in failed
    ]
    return Made(variant, tuple(kept for kept in runs if kept not in failed), tuple(failed))


def _groups(
    setting: Setting, task: Task, variant: Variant
) -> Iterable[tuple[tuple[Any, ...], _Group]]:
    """The comparisons that a variant takes part in: one, or one a seed where rows are drawn."""
    base, own = variant.base or setting.model, variant.task or task
    config = shortened(setting.config, variant.share)
    few = variant.rows is not None and variant.rows < len(own.train)
    for seeds in [(seed,) for seed in setting.seeds] if few else [setting.seeds]:
        rows = drawn(own, variant.rows or 0, seeds[0]) if few else own
        group = _Group(base, rows, config, seeds)
        yield (base, rows.name, rows.source.fingerprint, variant.share, seeds), group


def shortened(config: TrainConfig, share: float) -> TrainConfig:
    """The same training with a share of its budget, whatever that is counted in."""
    if share == 1:
        return config

    def part(amount: float | None) -> float | None:
        return None if amount is None else amount * share

    tokens = part(config.tokens)
    return replace(
        config,
        steps=max(1, round(config.steps * share)),
        epochs=part(config.epochs),
        tokens=None if tokens is None else max(1, round(tokens)),
        seconds=part(config.seconds),
    )


def drawn(task: Task, rows: int, seed: int) -> Task:
    """The task with so many training examples, and at most so many for validation.

    Of one seed, fewer rows are among more rows. Who has ten examples has no hundred to choose the
    best step by; so the validation split shrinks with the training split.
    """
    order = random.Random(f"{seed}/rows").sample(range(len(task.train)), len(task.train))
    train = take(task.train, sorted(order[:rows]))
    validation = task.validation[:rows]
    content = fingerprint(train, validation, task.test)
    source = replace(task.source, fingerprint=content)
    return replace(task, train=train, validation=validation, source=source)


def _compared(
    setting: Setting,
    group: _Group,
    methods: Sequence[Method],
    teller: Teller,
    command: str,
    problems: list[str],
) -> list[StoredRun]:
    plan = Plan(
        model=group.base,
        task=group.task,
        methods=tuple(methods),
        config=group.config,
        evaluation=EVALUATION,
        search=SearchConfig(trials=setting.search),
        general_text=setting.general_text,
        seeds=group.seeds,
        device=setting.device,
    )
    folder = setting.out / RUNS / _folder(group)
    compared = compare(plan, folder, teller, {"command": command})
    problems += _cut(compared.profile, group.task)
    return compared.runs


def _folder(group: _Group) -> str:
    whose = f"{group.base}\n{group.task.source.fingerprint}"
    digest = hashlib.sha256(whose.encode()).hexdigest()[:8]
    return f"{slug(group.task.name, 24)}-{slug(Path(group.base).name, 24)}-{digest}"


def _cut(profile: Profile, task: Task) -> list[str]:
    if not profile.cut:
        return []
    return [
        f"On {task.name}, sources are cut to {profile.source_tokens} tokens for every variant, so "
        f"that {profile.longest[0] or 'the template'} (+{profile.longest[1]} tokens) fits too: "
        f"{profile.cut:,} rows lose some."
    ]
