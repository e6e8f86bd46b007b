"""`peftlab compare --experiment`: a published table run again."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from peftlab.errors import InputError
from peftlab.printable import echo, terminal

if TYPE_CHECKING:
    from peftlab.experiments.grid import Overrides, Part
    from peftlab.experiments.kept import Experiment
    from peftlab.experiments.spec import ExperimentSpec

_ALLOWED = {
    "experiment", "data", "model", "task", "metrics", "limit", "test_limit", "budget", "steps",
    "epochs", "batch_size", "accumulation", "optimizer", "precision", "max_length",
    "evaluate_every", "patience", "validation_limit", "recompute", "seeds", "general_text", "out",
    "device",
}  # fmt: skip
_TRAINING = (
    "steps", "epochs", "batch_size", "accumulation", "optimizer", "precision", "max_length",
    "evaluate_every", "patience", "validation_limit", "recompute",
)  # fmt: skip


def from_options(experiment: str, context: typer.Context) -> None:
    """What `compare --experiment` does, from the options that were typed.

    Raises:
        InputError: an option that would have no effect, or a value that cannot be used.
    """
    from peftlab.cli import options as shared
    from peftlab.cli.compare import seeds_of
    from peftlab.comparison.label import slug
    from peftlab.experiments.grid import Overrides
    from peftlab.experiments.spec import load

    spec = load(experiment)
    values = {name: v for name, v in context.params.items() if _typed(context, name)}
    _check(set(values), experiment)
    over = Overrides(
        models=_names(values.get("model")),
        tasks=_names(values.get("task")),
        data=Path(values["data"]) if "data" in values else None,
        limit=values.get("limit"),
        test_limit=values.get("test_limit"),
        metrics=_names(values.get("metrics")) or (),
        training=_training(values),
        seeds=seeds_of(values.get("seeds") or "0"),
        device=shared.device_name(context.params["device"]),
        general_text=shared.general_documents(context.params["general_text"]),
    )
    carry_out(spec, over, Path(values.get("out") or Path("runs") / slug(spec.name)))


def _check(given: set[str], experiment: str) -> None:
    useless = sorted(given - _ALLOWED)
    if useless:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in useless)
        raise InputError(
            f"{names} cannot be given with --experiment {experiment}: its file says how rows are "
            "made. Copy the file, change it, and give its path"
        )


def _typed(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"


def _names(text: str | None) -> tuple[str, ...] | None:
    return tuple(part.strip() for part in text.split(",") if part.strip()) if text else None


def _training(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of training that were typed, for every row."""
    from peftlab.cli import options as shared

    budget = {} if "budget" not in values else shared.budget_of(values["budget"])
    named = [*budget, *(name for name in ("steps", "epochs") if name in values)]
    if len(named) > 1:
        raise InputError(f"{' and '.join(named)} are given; one budget was expected")
    return {name: values[name] for name in _TRAINING if name in values} | budget


def carry_out(spec: ExperimentSpec, over: Overrides, out: Path) -> None:
    """Show what will be done, do it, and show the table."""
    from peftlab.cli.watch import Shown
    from peftlab.comparison import run as comparison
    from peftlab.experiments.grid import parts
    from peftlab.experiments.run import run

    comparison.warm_up()
    grid = parts(spec, over)
    _announce(spec, grid)

    watching: list[Shown] = []

    def watcher(part: Part, folder: Path) -> Shown:
        watching.append(Shown(part.plan, folder))
        return watching[-1]

    command = shlex.join(["peftlab", *sys.argv[1:]])
    try:
        found = run(spec, grid, out, watcher, {"command": command})
    finally:
        for one in watching:
            one.close()
    show(found)
    echo(f"Everything is in {out}; show it again with: peftlab report {out}")
    if any(record.status == "failed" for record in found.records.values()):
        raise typer.Exit(1)


def _announce(spec: ExperimentSpec, grid: list[Part]) -> None:
    from peftlab.comparison.plan import seeds_of

    runs = sum(len(seeds_of(part.plan, m)) for part in grid for m in part.plan.methods)
    tasks, models = ({getattr(part, what) for part in grid} for what in ("task", "model"))
    echo(
        f"{spec.title}: {runs} runs, on {len(tasks)} task(s) with {len(models)} base(s). "
        "Published values are reference rows; they need no run."
    )
    for part in grid:
        for row, method in zip(part.rows, part.plan.methods, strict=True):
            echo(f"  {part.model}, {part.task}, {row}: {method.label}")


def show(found: Experiment) -> None:
    """Print the table and what has to be said beside it."""

    from peftlab.report.experiment import as_rich, notes, sections

    console = terminal()
    if not console.is_terminal:
        console.width = max(console.width, 160)
    console.print(found.spec.title, markup=False, highlight=False)
    for section in sections(found):
        console.print(as_rich(section))
    for text in notes(found):
        console.print(text, markup=False, highlight=False)
