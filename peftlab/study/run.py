"""Carry out a study: variants → runs → measurements → panels → result, written into its folder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from peftlab.errors import InputError
from peftlab.records.record import Record
from peftlab.study.base import Context, Made, Setting, Study, Variant
from peftlab.study.make import RUNS, Quiet, Teller, make
from peftlab.study.measure import measured
from peftlab.study.result import Panel, Result
from peftlab.tasks import Task
from peftlab.training import Budget
from peftlab.units import amount

ONE_SEED = (
    "One seed: what is said holds for the trained models at hand; another seed may say otherwise "
    "(--seeds 0,1,2)."
)


def carry_out(
    study: Study, setting: Setting, teller: Teller | None = None, command: str = ""
) -> Result:
    """Make what is missing, and the result, which is written to OUT/STUDY/study.json.

    Raises:
        InputError: a setting, base or task that cannot be used, or nothing that could be shown.
        DiskFull, Stopped: what is finished is kept, and the same call continues.
    """
    _check(study, setting)
    teller = teller or Quiet()
    problems: list[str] = []
    # Whatever cannot work on one of the tasks is said before the first run.
    plans = [(task, study.variants(setting, task)) for task in study.targets(setting)]
    panels: list[Panel] = []
    records: list[Record] = []
    for task, variants in plans:
        made = _made(study, setting, task, variants, teller, command, problems)
        context = Context(setting, task, made, problems)
        panels += study.panels(context)
        records += [kept.record for one in made for kept in one.runs]
    result = Result(
        study=study.name,
        title=study.title,
        source=study.source,
        note=study.note(setting),
        panels=tuple(panels),
        facts=tuple(_facts(setting, records).items()),
        command=command,
        problems=tuple(dict.fromkeys(problems)),
        caution=ONE_SEED if len(setting.seeds) == 1 else "",
    )
    result.write(setting.out / study.name)
    return result


def _made(
    study: Study,
    setting: Setting,
    task: Task,
    variants: Sequence[Variant],
    teller: Teller,
    command: str,
    problems: list[str],
) -> list[Made]:
    made = make(setting, task, variants, teller, command, problems)
    more = study.then(setting, task, made)
    if more:
        made += make(setting, task, more, teller, command, problems)
    return [measured(study, setting, task, one, teller) for one in made]


def _check(study: Study, setting: Setting) -> None:
    """Refuse what the study would not use.

    Raises:
        InputError: says what the study takes.
    """
    options = {
        "values": ("--values", bool(setting.values)),
        "methods": ("--methods", bool(setting.methods)),
        "words": ("--wording", bool(setting.words)),
        "general_text": ("--general-text", bool(setting.general_text)),
        "models": ("--model twice", len(setting.models) > 1),
    }
    for name, (option, given) in options.items():
        if given and name not in study.takes:
            raise InputError(f"the study {study.name} has no use for {option}: leave it out")
    names = [task.name for task in study.targets(setting)]
    if len(set(names)) < len(names):
        raise InputError(f"--task names something twice: {', '.join(names)}")


def _facts(setting: Setting, records: Sequence[Record]) -> dict[str, str]:
    """What all runs have in common, or the different values."""

    def values(read: Any) -> str:
        return ", ".join(dict.fromkeys(str(read(record)) for record in records))

    config = setting.config
    budget = Budget.of(config, len(setting.tasks[0].pairs("train")))
    searched = f"{setting.search} trials each" if setting.search else "no: each method's own rate"
    return {
        "base": values(lambda r: f"{r.model.name} ({amount(r.model.parameters)} parameters)"),
        "task": values(lambda r: r.task.name),
        "training examples": values(lambda r: f"{r.task.train_rows:,}"),
        "test examples": values(lambda r: f"{r.task.test_rows:,}"),
        "budget of a run": f"{budget.amount:,.0f} {budget.kind}, {config.rows_a_step} rows a step",
        "search for rates": searched,
        "seeds": ", ".join(map(str, setting.seeds)),
        "runs": str(len({record.config_hash for record in records})),
        "records": f"../{RUNS}",
    }
