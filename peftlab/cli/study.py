"""`peftlab study NAME`: a figure of the literature on the user's own base and task."""

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
from peftlab.study import find, lines

if TYPE_CHECKING:
    from peftlab.comparison.plan import Run
    from peftlab.comparison.profile import Profile
    from peftlab.records.reading import StoredRun
    from peftlab.records.record import Record
    from peftlab.study.base import Study
    from peftlab.study.result import Result
    from peftlab.tasks import Task

HELP = "Make one figure of the literature, on the demo or on your own base and tasks.\n\n" + (
    "\b\n" + "\n".join(f"{name:<12} {line}" for name, line in lines().items())
)
OUT = Path("runs/studies")


def options() -> shared.Entries:
    """How every variant is trained and its task loaded."""
    from peftlab.comparison.settings import (
        ComparisonConfig,
        SearchConfig,
        task_entries,
        training_entries,
    )
    from peftlab.options import entries

    known = {**entries(SearchConfig), **task_entries(), **training_entries()}
    known |= {name: entries(ComparisonConfig)[name] for name in ("seeds", "device")}
    left_out = ("task", "metrics", "search_share")
    return shared.typeable({n: e for n, e in known.items() if n not in left_out})


def study(
    given: Mapping[str, Any],
    name: Annotated[str, typer.Argument(help="One of those above.", show_default=False)],
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="The frozen base: demo, a folder, a hub id or a GGUF file; several for scale."
        ),
    ] = None,
    task: Annotated[
        list[str] | None, typer.Option(help="As of compare; give it again for more tasks.")
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(help="Two to draw: rougeL,bleu; `loss` is the test loss, drawn by default."),
    ] = None,
    values: Annotated[
        str | None, typer.Option(help="Other places: 1,4,16 (lengths, ranks, examples …).")
    ] = None,
    methods: Annotated[
        str, typer.Option(help="Other methods, for studies that compare some.")
    ] = "",
    wording: Annotated[
        list[str] | None, typer.Option(help="For instruction: a wording; give it again for more.")
    ] = None,
    general_text: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="For forgetting: a text file, instead of the demo's."),
    ] = None,
    out: Annotated[
        Path,
        typer.Option(help="Folder of all studies that may share runs; each has its own in it."),
    ] = OUT,
) -> None:
    """Make a study; what it is called and does stands in `HELP`."""
    from peftlab.comparison import run as comparison
    from peftlab.comparison.resolve import DEMO_STEPS, DEMO_TEST, STEPS, config_of
    from peftlab.comparison.settings import ComparisonConfig, SearchConfig
    from peftlab.demo.world import demo_tasks
    from peftlab.frozen.named import device_name
    from peftlab.methods import parse
    from peftlab.options import made
    from peftlab.study import look
    from peftlab.study.base import Setting
    from peftlab.study.page import write
    from peftlab.study.run import carry_out

    chosen, called = find(name), shared.flag(options())
    comparison.warm_up()
    names = tuple(task) if task else chosen.tasks
    demo = set(names) <= demo_tasks().keys()
    if demo and not given.keys() & {"limit", "test_limit"}:
        given = {**given, "test_limit": DEMO_TEST}
    drawn = _drawn(metrics)
    tasks = tuple(_task(one, given, drawn) for one in names)
    bases = tuple(model) if model else chosen.bases(echo)
    what = made(ComparisonConfig, given, called)
    setting = Setting(
        models=bases,
        shape=look.shape(bases[0]),
        tasks=tasks,
        config=config_of(given, DEMO_STEPS if demo else STEPS, called),
        seeds=what.seeds,
        metrics=drawn or _usual(tasks),
        out=out,
        device=device_name(what.device),
        search=made(SearchConfig, given, called).trials,
        values=_numbers(values),
        methods=tuple(parse(methods)) if methods else (),
        words=tuple(wording or ()),
        general_text=_general_text(chosen, general_text),
    )
    command = shlex.join(["peftlab", *sys.argv[1:]])
    result = carry_out(chosen, setting, Told(), command)
    _tell(result, write(out / chosen.name, result))


def _task(name: str, given: Mapping[str, Any], drawn: tuple[str, ...]) -> Task:
    """The task, scored with its own metrics and with those that are drawn."""
    from dataclasses import replace

    from peftlab.comparison.resolve import the_task
    from peftlab.metrics import metric_spec
    from peftlab.study.words import LOSS

    task = the_task({**given, "task": name}, shared.flag(options()))
    wanted = [metric for metric in drawn if metric != LOSS]
    for metric in wanted:
        metric_spec(metric)
    return replace(task, metrics=tuple(dict.fromkeys((*task.metrics, *wanted))))


def _drawn(text: str | None) -> tuple[str, ...]:
    from peftlab.metrics import split_names

    return tuple(dict.fromkeys(split_names(text))) if text else ()


def _usual(tasks: tuple[Task, ...]) -> tuple[str, ...]:
    """The main metric of the first task, and the test loss."""
    from peftlab.metrics import main_metric
    from peftlab.study.words import LOSS

    return (main_metric(dict.fromkeys(tasks[0].metrics, 0.0)), LOSS)


def _general_text(study: Study, given: str | None) -> tuple[str, ...]:
    if given is None and "general_text" not in study.takes:
        return ()
    from peftlab.tasks.plain import general_documents

    return general_documents(given or "demo")


def _numbers(text: str | None) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError as error:
        raise InputError(f"--values {text!r}: numbers with commas were expected: 1,4,16") from error


class Told:
    """Prints a line for each comparison that a study makes, and for each run that ends."""

    def __init__(self) -> None:
        self.left = 0

    def planned(self, runs: list[Run], profile: Profile, finished: int) -> None:
        """How much there is to do."""
        first = runs[0]
        kept = f", {finished} of them finished already" if finished else ""
        seeds = "s" * (len(runs) != 1)
        echo(
            f"{first.task.name} ({len(first.task.train):,} training examples) with "
            f"{profile.base.name}: {len(runs)} run{seeds}{kept}"
        )
        self.left = len(runs) - finished

    def started(self, run: Run) -> None: ...
    def heard(self, word: str, *values: Any) -> None: ...

    def ended(self, run: Run, record: Record) -> None:
        """What came out."""
        from peftlab.records.figures import outline, trained_in

        self.left -= 1
        if record.status == "finished":
            said = f"{outline(record)} ({trained_in(record)})"
        else:
            said = f"{record.status}: {record.error}"
        label = " ".join(run.label.split())
        echo(f"  {label}, seed {run.seed}: {said}; {self.left} to go")

    def again(self, runs: list[Run]) -> None: ...
    def begins(self, title: str) -> None: ...
    def stands(self, told: str, runs: list[StoredRun]) -> None: ...

    def measuring(self, label: str) -> None:
        """Something besides the record."""
        echo(f"  {label}: measuring")


def _tell(result: Result, files: list[Path]) -> None:
    echo()
    for sentence in [*result.words, *filter(None, (result.note, result.caution))]:
        echo(sentence)
    for problem in result.problems:
        echo(f"note: {problem}", err=True)
    echo("Written: " + ", ".join(map(str, files)))
