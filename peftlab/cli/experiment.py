"""`peftlab compare --experiment`: a published table run again."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from peftlab.errors import InputError
from peftlab.options import Called, entries, made, names
from peftlab.printable import echo, terminal

if TYPE_CHECKING:
    from peftlab.experiments.grid import Overrides, Part
    from peftlab.experiments.kept import Experiment
    from peftlab.experiments.spec import ExperimentSpec

# What is the same for all rows of a grid; the rest is said by the experiment's own file.
_ALLOWED = {
    "model", "task", "metrics", "limit", "test_limit", "budget", "steps", "epochs", "tokens",
    "seconds", "batch_size", "accumulation", "optimizer", "precision", "max_length",
    "evaluate_every", "patience", "validation_limit", "recompute", "offload", "share", "fast",
    "checkpoint_seconds", "trunk_memory", "trunk_disk", "seeds", "general_text", "out", "device",
}  # fmt: skip


def from_options(
    experiment: str, data: Path | None, given: Mapping[str, Any], called: Called
) -> None:
    """What `compare --experiment` does, from the options that were given.

    Raises:
        InputError: an option that would have no effect, or a value that cannot be used.
    """
    from peftlab.comparison.label import slug
    from peftlab.comparison.settings import OF_THE_TASK, ComparisonConfig
    from peftlab.experiments.grid import Overrides
    from peftlab.experiments.spec import load
    from peftlab.frozen.named import device_name
    from peftlab.tasks import Options
    from peftlab.tasks.plain import general_documents

    spec = load(experiment)
    useless = [called(name) for name in sorted(given.keys() - _ALLOWED)]
    if useless:
        raise InputError(
            f"{', '.join(useless)} cannot be given with --experiment {experiment}: its file says "
            "how rows are made. Copy the file, change it, and give its path"
        )
    what = made(ComparisonConfig, given, called)
    loading = made(Options, {n: given[n] for n in OF_THE_TASK if n in given}, called)
    over = Overrides(
        models=_names(given.get("model")),
        tasks=_names(given.get("task")),
        data=data,
        limit=loading.limit,
        test_limit=loading.test_limit,
        metrics=loading.metrics or (),
        training=_training(given, called),
        seeds=what.seeds,
        device=device_name(what.device),
        general_text=general_documents(what.general_text),
    )
    carry_out(spec, over, what.out or Path("runs") / slug(spec.name))


def _names(text: str | None) -> tuple[str, ...] | None:
    return names(text) if text else None


def _training(given: Mapping[str, Any], called: Called) -> dict[str, Any]:
    """The settings of training that were given, for every row."""
    from peftlab.comparison.resolve import config_of
    from peftlab.training.config import BUDGETS, TrainConfig

    config = config_of(given, called=called)
    budget = next((b for b in reversed(BUDGETS) if getattr(config, b) is not None), "steps")
    asked = given.keys() & entries(TrainConfig).keys() - set(BUDGETS)
    if given.keys() & {"budget", *BUDGETS}:
        asked |= {budget}
    return {name: getattr(config, name) for name in asked}


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
        experiment = run(spec, grid, out, watcher, {"command": command})
    finally:
        for one in watching:
            one.close()
    show(experiment)
    echo(f"Everything is in {out}; show it again with: peftlab report {out}")
    if any(record.status == "failed" for record in experiment.records.values()):
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


def show(experiment: Experiment) -> None:
    """Print the table and what has to be said beside it."""

    from peftlab.experiments.table import as_rich, notes, sections

    console = terminal()
    if not console.is_terminal:
        console.width = max(console.width, 160)
    console.print(experiment.spec.title, markup=False, highlight=False)
    for section in sections(experiment):
        console.print(as_rich(section))
    for text in notes(experiment):
        console.print(text, markup=False, highlight=False)
