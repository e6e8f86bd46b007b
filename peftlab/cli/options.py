"""Options that several commands share, and what they stand for."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from peftlab.cli.bases import AdapterBaseDtype as AdapterBaseDtype
from peftlab.cli.bases import BaseDtype as BaseDtype
from peftlab.cli.bases import BaseDtypes as BaseDtypes
from peftlab.cli.bases import ShardBase as ShardBase
from peftlab.cli.bases import device_name as device_name
from peftlab.cli.bases import load_base as load_base
from peftlab.cli.bases import load_base_together as load_base_together
from peftlab.cli.bases import one_format as one_format
from peftlab.cli.bases import open_adapters as open_adapters
from peftlab.errors import InputError, nearest
from peftlab.printable import echo

if TYPE_CHECKING:
    from peftlab.estimate import Limits
    from peftlab.tasks import Task
    from peftlab.training import TrainConfig

_TRAIN, _TASK = "How to train", "What to learn"

Model = Annotated[
    str, typer.Option(help="The frozen base: demo, a folder, or a hub id.", rich_help_panel=_TASK)
]
TaskName = Annotated[
    str,
    typer.Option(
        "--task",
        help="A task's name, a file, a folder with train/validation/test files, or a hub id.",
        rich_help_panel=_TASK,
    ),
]
TaskOptions = Annotated[
    list[str],
    typer.Option(
        "--task-option",
        "-o",
        metavar="KEY=VALUE",
        help="How the task is loaded: template, cue, instruction, data, truncate, labels, "
        "max_new_tokens, drop_blank, long (cut, skip or refuse), source (column), target (column), "
        "…",
        rich_help_panel=_TASK,
    ),
]
Limit = Annotated[
    int | None,
    typer.Option(help="Training pairs, and examples of the other splits.", rich_help_panel=_TASK),
]
TestLimit = Annotated[
    int | None, typer.Option(help="Test examples, whatever --limit says.", rich_help_panel=_TASK)
]
Metrics = Annotated[
    str | None,
    typer.Option(help="Metrics by name, with commas: rouge1,rougeL,bleu.", rich_help_panel=_TASK),
]
GeneralText = Annotated[
    str,
    typer.Option(
        metavar="FILE",
        help="Text of no task, to measure what is forgotten: demo (documents of the demo world), a "
        "text file, or none.",
        rich_help_panel=_TASK,
    ),
]
Steps = Annotated[int | None, typer.Option(help="Optimiser steps.", rich_help_panel=_TRAIN)]
Epochs = Annotated[float | None, typer.Option(help="Instead of --steps.", rich_help_panel=_TRAIN)]
BatchSize = Annotated[int, typer.Option(help="Rows of a micro-batch.", rich_help_panel=_TRAIN)]
Accumulation = Annotated[int, typer.Option(help="Micro-batches of a step.", rich_help_panel=_TRAIN)]
LearningRate = Annotated[
    float | None,
    typer.Option(help="Peak rate; by default each method's own.", rich_help_panel=_TRAIN),
]
Optimizer = Annotated[str, typer.Option(help="adamw or adafactor.", rich_help_panel=_TRAIN)]
Precision = Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16.", rich_help_panel=_TRAIN)]
MaxLength = Annotated[
    int | None,
    typer.Option(
        help="Tokens of a row, prompt and target included; by default the context.",
        rich_help_panel=_TRAIN,
    ),
]
EvaluateEvery = Annotated[
    int, typer.Option(help="Steps between validation losses.", rich_help_panel=_TRAIN)
]
Patience = Annotated[
    int,
    typer.Option(
        help="Validation losses without improvement before training stops; 0: never.",
        rich_help_panel=_TRAIN,
    ),
]
ValidationLimit = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Rows of the validation split that steer training; by default all.",
        rich_help_panel=_TRAIN,
    ),
]
Recompute = Annotated[
    bool,
    typer.Option(
        "--gradient-checkpointing",
        "--recompute",
        help="Compute each block again in backward: less memory, more time.",
        rich_help_panel=_TRAIN,
    ),
]
Offload = Annotated[
    bool,
    typer.Option(
        "--offload-activations",
        help="What backward needs waits in the CPU's memory: longer inputs fit on a GPU.",
        rich_help_panel=_TRAIN,
    ),
]
Budget = Annotated[
    str | None,
    typer.Option(
        metavar="KIND=AMOUNT",
        help="steps=300, tokens=2e6 (all through the base, a backward pass counting once more) or "
        "seconds=60 (of training; not repeatable): the same for every method.",
        rich_help_panel=_TRAIN,
    ),
]
MaxMemory = Annotated[
    str | None, typer.Option(help="Leave out what is predicted to take more: 2GB.")
]
MaxAdapterSize = Annotated[
    str | None, typer.Option(help="Leave out what is predicted to be larger: 1MB.")
]
MaxTime = Annotated[
    str | None,
    typer.Option(help="Leave out what is predicted to train longer, search included: 10m."),
]
Track = Annotated[
    str,
    typer.Option(
        help="Report to experiment trackers, with commas: tensorboard, wandb, mlflow, trackio.",
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]


def load_task(
    name: str,
    options: Sequence[str],
    *,
    limit: int | None = None,
    test_limit: int | None = None,
    metrics: str | None = None,
) -> Task:
    """The task that the options of a command line describe.

    Raises:
        InputError: an option or a task that cannot be used.
    """
    from peftlab.metrics import metric_spec, split_names
    from peftlab.tasks import Task

    values = task_options(options)
    values |= {k: v for k, v in (("limit", limit), ("test_limit", test_limit)) if v is not None}
    if metrics is not None:
        values["metrics"] = tuple(split_names(metrics))
    for metric in values.get("metrics", ()):
        metric_spec(metric)
    return Task.load(name, **values)


def say(notes: Sequence[str]) -> None:
    """Tell what loading has decided, beside what a command prints."""
    for note in notes:
        echo(note, err=True)


def general_documents(name: str) -> tuple[str, ...]:
    """The documents that `--general-text` stands for.

    Raises:
        InputError: a file that is missing, empty or not UTF-8.
    """
    from peftlab.tasks import plain

    return plain.general_documents(name)


def task_options(options: Sequence[str]) -> dict[str, Any]:
    """`["cue=Summary:", "source=text"]` as the keyword arguments of `Task.load`."""
    from dataclasses import fields

    from pydantic import TypeAdapter, ValidationError

    from peftlab.tasks import Options

    known = [field.name for field in fields(Options)] + ["source", "target"]
    raw: dict[str, Any] = {}
    for option in options:
        key, equals, value = option.partition("=")
        if not equals or key not in known:
            raise InputError(
                f"--task-option {option!r} cannot be used: KEY=VALUE was expected, KEY one of "
                f"{', '.join(known)}.{nearest(key, known)}"
            )
        raw[key] = tuple(value.split(",")) if key in ("metrics", "labels") else value
    columns = {key: raw.pop(key) for key in ("source", "target") if key in raw}
    if columns:
        raw["columns"] = columns
    try:
        made = TypeAdapter(Options).validate_python(raw)
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(
            f"--task-option {first['loc'][0]}: {first['msg']}, got {first['input']!r}"
        ) from error
    return {key: getattr(made, key) for key in raw}


def train_config(default_steps: int, **given: Any) -> TrainConfig:
    """Training settings with one budget, as given: `budget`, `steps` or `epochs`.

    Raises:
        InputError: two budgets, or a value that cannot be used.
    """
    from pydantic import TypeAdapter, ValidationError

    from peftlab.training import TrainConfig

    if given["steps"] is not None and given["epochs"] is not None:
        raise InputError("both --steps and --epochs are given; one of them was expected")
    budget = given.pop("budget", None)
    if budget is not None:
        if given["steps"] is not None or given["epochs"] is not None:
            raise InputError("--budget and --steps or --epochs are given; one of them was expected")
        given |= budget_of(budget)
    given["steps"] = given["steps"] if given["steps"] is not None else default_steps
    try:
        return TypeAdapter(TrainConfig).validate_python(given)
    except ValidationError as error:
        first = error.errors()[0]
        option = str(first["loc"][0]).replace("_", "-")
        raise InputError(f"--{option}: {first['msg']}, got {first['input']!r}") from error


_SIZE_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_TIME_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


def byte_size(option: str, text: str | None) -> float | None:
    """`2GB`, `500 MiB` or a number of bytes; units are powers of 1024.

    Raises:
        InputError: anything else.
    """
    return _quantity(option, text, _SIZE_UNITS, r"i?b?", "2GB or 500MB")


def duration(option: str, text: str | None) -> float | None:
    """`90`, `90s`, `10m` or `2h`, in seconds.

    Raises:
        InputError: anything else.
    """
    return _quantity(option, text, _TIME_UNITS, "", "90s, 10m or 2h")


def _quantity(
    option: str, text: str | None, units: Mapping[str, float], ending: str, expected: str
) -> float | None:
    if text is None:
        return None
    names = "|".join(filter(None, units))
    found = re.fullmatch(rf"(\d+(?:\.\d+)?)\s*({names})?{ending}", text.strip().lower())
    amount = 0.0 if found is None else float(found[1]) * units[found[2] or ""]
    if not 0 < amount < math.inf:
        raise InputError(f"{option} {text!r}: {expected} was expected")
    return amount


def limits(memory: str | None, adapter: str | None, time: str | None) -> Limits:
    """The limits that a command line names.

    Raises:
        InputError: a size or a time that cannot be read.
    """
    from peftlab.estimate import Limits

    return Limits(
        memory=byte_size("--max-memory", memory),
        adapter=byte_size("--max-adapter-size", adapter),
        seconds=duration("--max-time", time),
    )


def budget_of(text: str) -> dict[str, int | float]:
    """`tokens=2e6` as a setting of training.

    Raises:
        InputError: anything else than steps, tokens or seconds with an amount.
    """
    kind, _, amount = text.partition("=")
    kinds = ("steps", "tokens", "seconds")
    try:
        value = float(amount)
    except ValueError:
        value = 0.0
    if kind not in kinds or not 0 < value < float("inf"):
        raise InputError(
            f"--budget {text!r}: steps=300, tokens=2e6 or seconds=60 was expected."
            f"{nearest(kind, kinds)}"
        )
    return {kind: value if kind == "seconds" else max(1, round(value))}
