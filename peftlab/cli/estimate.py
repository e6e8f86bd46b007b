"""`peftlab estimate`: what methods would cost, without training them, or even having the model."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from peftlab.cli import options as shared
from peftlab.errors import InputError, PeftlabError, nearest
from peftlab.printable import echo, json_text, terminal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from peftlab.estimate import Prediction
    from peftlab.methods import Method
    from peftlab.tasks import Task
    from peftlab.training import TrainConfig

    Predict = Callable[[Method, Task, TrainConfig], Prediction]

_FORMATS = ("table", "json")
_PREDICTED = (
    "trainable_parameters", "adapter_bytes", "peak_memory", "step_seconds", "train_seconds",
)  # fmt: skip


def options() -> shared.Entries:
    """What is estimated, on which base and task, under which settings and limits."""
    from peftlab.comparison.settings import (
        ComparisonConfig,
        Limits,
        task_entries,
        training_entries,
    )
    from peftlab.options import entries

    what = {
        name: entries(ComparisonConfig)[name] for name in ("model", "methods", "full", "device")
    }
    known = {**what, **task_entries(), **training_entries(), **entries(Limits)}
    return shared.typeable({n: e for n, e in known.items() if n not in ("test_limit", "metrics")})


def estimate(
    given: Mapping[str, Any],
    base_dtype: shared.BaseDtype = "fp32",
    format: Annotated[str, typer.Option(help="table or json.")] = "table",
) -> None:
    """Predict parameters, adapter size, peak memory and time of training on this machine.

    A few steps are taken with each method: on the model where it is here, else on two small models
    of its widths, made from its configuration alone.
    """
    from peftlab.comparison.resolve import DEMO_STEPS, STEPS, config_of, methods_of, the_task
    from peftlab.comparison.settings import ComparisonConfig, Limits
    from peftlab.frozen.named import device_name
    from peftlab.options import made

    if format not in _FORMATS:
        raise InputError(
            f"there is no format {format!r}; there are {', '.join(_FORMATS)}."
            f"{nearest(format, _FORMATS)}"
        )
    called = shared.flag(options())
    what, limits = made(ComparisonConfig, given, called), made(Limits, given, called)
    model, loaded = what.model, the_task(given, called)
    config = config_of(given, DEMO_STEPS if what.task == "demo" else STEPS, called)
    where = device_name(what.device), shared.one_format(base_dtype)
    rows = []
    with _predictor(model, *where) as (predict, weights, about):
        for method in methods_of(what.methods, loaded, what.full):
            row = _row(predict, method, loaded, config)
            predicted = row.pop("prediction")
            row["left_out"] = limits.reason(predicted) if predicted is not None else None
            rows.append(row)
    if format == "json":
        told = {"model": model, "weights_bytes": weights, "methods": rows}
        echo(json_text(told))
    else:
        _show(rows, f"{model}: {about}")


@contextmanager
def _predictor(name: str, device: str, dtype: str) -> Iterator[tuple[Predict, int, str]]:
    """How to predict for a model, the bytes of its weights, and what it is in words."""
    from peftlab.bases import names
    from peftlab.bases.known_models import configuration
    from peftlab.bases.number_formats import base_bytes
    from peftlab.comparison.cost_prediction import PROBED, WEIGHED
    from peftlab.comparison.processes import Stopped, call
    from peftlab.estimate import Miniature
    from peftlab.units import size

    def on(model: str, *rest: Any) -> Prediction:
        try:
            prediction: Prediction = call(PROBED, model, device, dtype, *rest)
        except Stopped:
            raise KeyboardInterrupt from None  # nothing is kept that could be continued
        return prediction

    if names.is_here(name):
        count, weights = call(WEIGHED, name, device, dtype)
        file = names.words_of(name)
        about = f"{count:,} parameters, {size(weights)} of weights"
        if file is not None:
            about += f" in {dtype}, dequantised from a {file}"
        yield partial(on, name), weights, about
        return
    config = configuration(names.located(name))
    small = Miniature(config)
    weights = base_bytes(config, small.shape.parameters, dtype)
    about = f"{small.shape.size:,} parameters, {size(weights)} of weights, not here: predicted from"
    with tempfile.TemporaryDirectory(prefix="peftlab-small-") as folder:
        few, many = small.write(Path(folder), names.located(names.DEMO))

        def predict(method: Method, *rest: Any) -> Prediction:
            method.check(small.shape)
            return small.whole(method, *(on(str(model), method, *rest) for model in (few, many)))

        yield predict, weights, f"{about} small models of its widths"


def _row(predict: Predict, method: Any, task: Task, config: TrainConfig) -> dict[str, Any]:
    from peftlab.guests import is_guest

    row: dict[str, Any] = {"method": method.label, "prediction": None}
    if is_guest(method):
        return {**row, "problem": "guests are not predicted"}
    try:
        prediction = predict(method, task, config)
    except PeftlabError as error:
        return {**row, "problem": str(error)}
    return {
        **row,
        "prediction": prediction,
        "problem": None,
        "busy": prediction.busy,
        **prediction.values(),
    }


def _show(rows: list[dict[str, Any]], title: str) -> None:
    from rich import box
    from rich.table import Table

    from peftlab.records.figures import named

    shown = [named(name) for name in _PREDICTED]
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("method", overflow="fold")
    for figure in shown:
        table.add_column(figure.title, justify="right", no_wrap=True)
    for row in rows:
        cells = [
            "–" if (value := row.get(figure.name)) is None else figure.unit.loose.cell(value)
            for figure in shown
        ]
        table.add_row(row["method"], *cells)
    console = terminal()
    echo(title)
    console.print(table)
    if any(row.get("busy") for row in rows):
        echo("Other programs are busy on this machine: times may be far off.")
    for row in rows:
        if row["problem"] or row["left_out"]:
            echo(f"{row['method']}: {row['problem'] or row['left_out']}")
