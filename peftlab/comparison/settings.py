"""What a comparison can be told: the options of a command line, of a YAML file and of Python.

Nothing here loads a model or imports torch. `resolve` makes a plan of the values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Gt, Le

from peftlab.bases.number_formats import formats
from peftlab.options import (
    DEVICE,
    MODEL,
    TASK,
    Checked,
    Entry,
    Option,
    byte_size,
    duration,
    entries,
    names,
    seeds,
)
from peftlab.tasks.options import COLUMNS, Options
from peftlab.training.config import OneBudget, TrainConfig
from peftlab.units import size

if TYPE_CHECKING:
    from peftlab.estimate import Prediction

# Task options with names of their own; the others are typed as -o NAME=VALUE.
OF_THE_TASK = ("limit", "test_limit", "metrics")
KEYS = (*(name for name in entries(Options) if name not in OF_THE_TASK), *COLUMNS)


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig(Checked):
    """How every run is evaluated."""

    train_rows: Annotated[
        int,
        Ge(1),
        Option("Training pairs whose loss is measured, at most.", name="evaluate_train_rows"),
    ] = 100
    validation_rows: Annotated[
        int,
        Ge(1),
        Option(
            "Validation pairs whose loss is measured, at most.", name="evaluate_validation_rows"
        ),
    ] = 500
    batch_size: Annotated[
        int, Ge(1), Le(10**6), Option("Rows that decode together.", name="evaluate_batch_size")
    ] = 16
    latency_tokens: Annotated[
        int, Ge(0), Option("Tokens that each latency is taken over; 0: it is not measured.")
    ] = 24


@dataclass(frozen=True, kw_only=True)
class SamplingConfig(Checked):
    """How much evaluation may cost; what is drawn for it is part of a run, see `plan.Samples`.

    test: whether the test split may be sampled; not where somebody has said how much of it to take.
    """

    share: Annotated[
        float | None,
        Ge(0),
        Option(
            "Of training's tokens, for validation, losses and generation: samples of the splits "
            "are drawn for it, the same for every method; 0: all is read. By default a third, or "
            "what the folder's runs have.",
            name="evaluation_share",
        ),
    ] = None
    test: bool = True


WHOLE = SamplingConfig(share=0.0)
"""Everything is read, whatever it costs."""


@dataclass(frozen=True, kw_only=True)
class SearchConfig(Checked):
    """How each method's learning rate is found; the same for all that have one."""

    trials: Annotated[
        int,
        Ge(0),
        Le(10_000),
        Option("Learning rates tried for each method; 0: the methods' own.", name="search"),
    ] = 0
    share: Annotated[
        float,
        Gt(0),
        Le(1),
        Option("Of a run's budget, for each of these trials.", name="search_share"),
    ] = 0.5


@dataclass(frozen=True, kw_only=True)
class Limits(Checked):
    """The most that a method may be predicted to cost; None is no limit.

    Attributes:
        memory, adapter: bytes. seconds: of training, the search for the rate included.
    """

    memory: Annotated[
        float | None,
        Gt(0),
        Option(
            "Leave out what is predicted to take more: 2GB.", name="max_memory", parse=byte_size
        ),
    ] = None
    adapter: Annotated[
        float | None,
        Gt(0),
        Option(
            "Leave out what is predicted to be larger: 1MB.",
            name="max_adapter_size",
            parse=byte_size,
        ),
    ] = None
    seconds: Annotated[
        float | None,
        Gt(0),
        Option(
            "Leave out what is predicted to train longer, search included: 10m.",
            name="max_time",
            parse=duration,
        ),
    ] = None

    def __bool__(self) -> bool:
        return any(value is not None for value in vars(self).values())

    def reason(self, predicted: Prediction) -> str | None:
        """Why a method will not fit; None when it will."""
        time = (predicted.train_seconds or 0.0) + predicted.search_seconds
        reasons = []
        if self.memory is not None and (predicted.peak_memory or 0) > self.memory:
            reasons.append(
                f"{size(predicted.peak_memory or 0)} of memory, above {size(self.memory)}"
            )
        if self.adapter is not None and predicted.adapter_bytes > self.adapter:
            reasons.append(
                f"an adapter of {size(predicted.adapter_bytes)}, above {size(self.adapter)}"
            )
        if self.seconds is not None and time > self.seconds:
            reasons.append(f"{time:,.0f} s of training, above {self.seconds:,.0f} s")
        return f"predicted to take {' and '.join(reasons)}" if reasons else None


def _key_values(value: Any) -> dict[str, Any]:
    """`["cue=Summary:"]` or a mapping, as a mapping.

    Raises:
        ValueError: anything else, or a name twice.
    """
    if isinstance(value, Mapping):
        return dict(value)
    if not isinstance(value, list | tuple) or not all("=" in str(item) for item in value):
        raise ValueError(f"KEY=VALUE, KEY one of {', '.join(KEYS)},")
    pairs = [str(item).split("=", 1) for item in value]
    if len({key for key, _ in pairs}) < len(pairs):
        raise ValueError("each KEY once")
    return dict(pairs)


@dataclass(frozen=True, kw_only=True)
class ComparisonConfig(Checked):
    """What is compared, on what, and where. In Python, task and methods may be objects too."""

    model: Annotated[str, Option(MODEL)] = "demo"
    base_dtype: Annotated[
        tuple[str, ...],
        Option(
            "How the frozen base's numbers are kept: fp32, bf16, int8 or nf4 (4 bits: QLoRA's); "
            "several with commas: every method on each.",
            parse=formats,
        ),
    ] = ("fp32",)
    task: Annotated[Any, Option(TASK)] = "demo"
    task_option: Annotated[
        Mapping[str, Any],
        Option(
            f"How the task is loaded: {', '.join(KEYS)}.",
            flags=("--task-option", "-o"),
            metavar="KEY=VALUE",
            parse=_key_values,
            several=True,
        ),
    ] = field(default_factory=dict)
    methods: Annotated[
        Any,
        Option(
            "Methods with settings: lora:rank=4,prompt_tuning:length=5; PEFT's as peft:oft.",
        ),
    ] = ""
    full: Annotated[
        bool,
        Option(
            "Every method, where sources are long also from the cue on; a search for each one's "
            "rate, three seeds."
        ),
    ] = False
    seeds: Annotated[
        tuple[int, ...],
        Option(
            "How many (3: the seeds 0, 1, 2), or which, with commas. By default seed 0 alone, of "
            "--full three.",
            parse=seeds,
        ),
    ] = (0,)
    within: Annotated[
        float | None,
        Gt(0),
        Option(
            "The time for the best verdict that fits: 1h, 30m, its plan included. Rates, lengths "
            "(--steps at most), seeds and test examples are bought as they change the verdict; "
            "with a longer time the same command goes on.",
            parse=duration,
        ),
    ] = None
    margin: Annotated[
        float | None,
        Gt(0),
        Option(
            "With --within: a difference in the metric that does not matter, below which methods "
            "are tied; by default a hundredth of its range (a point of ROUGE or BLEU)."
        ),
    ] = None
    general_text: Annotated[
        str,
        Option(
            "Text of no task, to measure what is forgotten: demo (documents of the demo world), a "
            "text file, or none.",
            metavar="FILE",
        ),
    ] = "demo"
    out: Annotated[
        Path | None, Option("Folder of all runs; by default runs/TASK-MODEL.", metavar="FOLDER")
    ] = None
    track: Annotated[
        tuple[str, ...],
        Option(
            "Report to experiment trackers, with commas: tensorboard, wandb, mlflow, trackio.",
            parse=names,
        ),
    ] = ()
    device: Annotated[str, Option(DEVICE)] = "auto"
    engine: Annotated[
        Literal["processes", "ray"],
        Option("Processes of this machine, one run at a time, or a Ray cluster."),
    ] = "processes"
    address: Annotated[
        str | None,
        Option("HOST:PORT of the cluster's head; by default that of RAY_ADDRESS, or here."),
    ] = None
    cpus: Annotated[
        int | None,
        Ge(1),
        Option(
            "CPUs of each run on a cluster; by default all of the smallest node, so that no runs "
            "disturb each other's times."
        ),
    ] = None


@cache
def training_entries() -> dict[str, Entry]:
    """The options of training that are the same for several trainings."""
    return {k: v for k, v in entries(OneBudget, TrainConfig).items() if k != "seed"}


@cache
def task_entries() -> dict[str, Entry]:
    """The task, and how it is loaded."""
    config, options = entries(ComparisonConfig), entries(Options)
    return {k: config[k] for k in ("task", "task_option")} | {k: options[k] for k in OF_THE_TASK}


@cache
def comparison_entries() -> dict[str, Entry]:
    """Every option of a comparison, by name."""
    return {
        **entries(ComparisonConfig),
        **task_entries(),
        **entries(SearchConfig),
        **training_entries(),
        **entries(EvaluationConfig),
        **entries(SamplingConfig),
        **entries(Limits),
    }
