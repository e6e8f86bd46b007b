"""`peftlab compare`: the main job."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from peftlab.cli import options as shared
from peftlab.errors import InputError
from peftlab.printable import echo

if TYPE_CHECKING:
    from peftlab.comparison.resolve import ComparisonSettings
    from peftlab.options import Called

_BESIDES = ("experiment", "data")  # what a file may hold besides a comparison's own options


def options() -> shared.Entries:
    """A comparison's."""
    from peftlab.comparison.settings import comparison_entries

    return shared.typeable(comparison_entries())


def compare(
    given: Mapping[str, Any],
    config: Annotated[
        Path | None,
        typer.Option(
            help="Take options from a YAML file, called as the flags are; flags override them."
        ),
    ] = None,
    print_config: Annotated[
        bool,
        typer.Option(
            "--print-config", help="Print all options as such a file holds them, and run nothing."
        ),
    ] = False,
    experiment: Annotated[
        str | None,
        typer.Option(
            help="A published table, run again: prefix-tuning-table1, cnn-dailymail-gpt2, or a "
            "YAML file. --model and --task then stand for the experiment's own."
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="With --experiment: a folder with a saved data set for every task, named after it."
        ),
    ] = None,
) -> None:
    """Train and evaluate several methods on one task, and say which is best.

    With no argument: five methods on the bundled demo, offline, in minutes. Finished runs are not
    made again; an interrupted comparison continues when the same command is given again.
    """
    from peftlab.comparison.resolve import resolved

    besides = {"experiment": experiment, "data": data}
    typed = {**given, **{name: value for name, value in besides.items() if value is not None}}
    values, called = _with_file(typed, config)
    experiment, data = values.pop("experiment", None), values.pop("data", None)
    if experiment is not None:
        from peftlab.cli.experiment import from_options

        if print_config:
            raise InputError("--print-config belongs to a comparison; leave --experiment out")
        from_options(str(experiment), None if data is None else Path(data), values, called)
        return
    if data is not None:
        raise InputError("--data belongs to --experiment; for a recipe give -o data=FOLDER")
    settings = resolved(values, called)
    if print_config:
        settings.plan()  # what is printed can be run
        echo(_as_file(settings), nl=False)
    else:
        _carry_out(settings)


def _as_file(settings: ComparisonSettings) -> str:
    """All options, as a file that makes the same runs."""
    import yaml

    return str(yaml.safe_dump(settings.values(), sort_keys=False, allow_unicode=True))


def _with_file(typed: Mapping[str, Any], config: Path | None) -> tuple[dict[str, Any], Called]:
    """What a file holds with what was typed over it, and how each option is called."""
    called = shared.flag(options())
    if config is None:
        return dict(typed), called
    from peftlab.comparison.settings import comparison_entries
    from peftlab.files import read_yaml
    from peftlab.options import refuse_unknown
    from peftlab.training.config import BUDGETS

    held = read_yaml(config)
    if held is None or not isinstance(held, dict):
        raise InputError(f"{config} holds {type(held).__name__}; names with values were expected")
    refuse_unknown(held, [*comparison_entries(), *_BESIDES], str(config))
    budgets = {"budget", *BUDGETS}
    if budgets & typed.keys():
        held = {name: value for name, value in held.items() if name not in budgets}
    values = {**held, **typed}
    return values, lambda name: called(name) if name in typed else f"{name} in {config}"


def _carry_out(settings: ComparisonSettings) -> None:
    from peftlab.cli.together import watcher_of
    from peftlab.comparison import run as comparison
    from peftlab.comparison.processes import Stopped
    from peftlab.comparison.within.run import compare_within
    from peftlab.files import write_text
    from peftlab.records.folders import COMPARISON, SETTINGS
    from peftlab.records.reading import StoredRuns
    from peftlab.report.page import write
    from peftlab.report.show import show

    if settings.what.engine == "processes":
        comparison.warm_up()
    engine, plan, out = settings.engine(echo), settings.plan(), settings.out
    watcher = watcher_of(settings.what.engine, plan, out)
    command = shlex.join(["peftlab", *sys.argv[1:]])
    compare = comparison.compare if plan.within is None else compare_within
    try:
        compared = compare(plan, out, watcher, {"command": command}, engine)
    except (Stopped, KeyboardInterrupt):
        if plan.within is not None:
            _so_far(out)
        raise
    finally:
        watcher.close()
        if (out / COMPARISON).is_file():
            write_text(out / SETTINGS, _as_file(settings))
    if not compared.runs:
        _so_far(out)
        return
    show(compared.runs)
    page = write(out, StoredRuns(compared.runs, []))
    echo(f"Everything is in {out}; show it again with: peftlab report {out}")
    echo(f"The page to look at and to send: {page}")
    if any(record.status == "failed" for record in compared.records):
        raise typer.Exit(1)


def _so_far(out: Path) -> None:
    """What a comparison within a given time can say where it was stopped."""
    from peftlab.records.reading import read
    from peftlab.report.show import show
    from peftlab.verdict.timed import Timed, about, by_loss

    timed = Timed.read(out)
    if timed is None:
        return
    try:
        runs = [run for run in read(out).runs if run.record.status == "finished"]
    except InputError:
        runs = []
    if runs and timed.pairs:
        show(runs)
    else:
        for line in (by_loss(timed), *about(timed)):
            echo(line)
